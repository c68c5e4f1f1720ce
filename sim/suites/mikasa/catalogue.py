"""The 90 canonical tasks of MIKASA-Robo's VLA benchmark: names, horizons, and what each needs beyond the package.

The table that the benchmark's own runner reads is not in its wheel. Names, horizons and sentences are those that the
package registers; whether a task can be played here depends on files that the package does not bring.
"""

import ast
import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlamem.sim.suites.mikasa.package import find_package
from vlamem.sim.suites.protocol import TaskInfo

Needs = Literal["", "bulb", "ycb"]
Judging = Literal["touch", "sequence", ""]
"""How a strict verdict is made; see verdicts."""

_ROTATIONS = tuple(range(-45, -4)) + tuple(range(5, 91))
"""Whole degrees that the sentences of the Rotate tasks can ask for."""
_TEMPLATE = "LANGUAGE_INSTRUCTION_TEMPLATE"
_SENTENCE = "LANGUAGE_INSTRUCTION"


@dataclass(frozen=True)
class MikasaTask:
    """One canonical task.

    Attributes:
        name: the benchmark's id.
        family: its name without number and version, e.g. "RememberColor".
        max_steps: horizon [control steps].
        module: of mikasa_robo_suite.vla.memory_envs, where it is registered.
        remember: what has to be remembered.
        chance: of a perfect hand that chooses blindly, 0 to 1.
        judging: how the strict verdict is made; empty where there is none.
        frozen: whether the benchmark's wrapper holds the robot still until the choice.
        needs: files beyond the package.
    """

    name: str
    family: str
    max_steps: int
    module: str
    remember: str
    chance: float = 0.0
    judging: Judging = ""
    frozen: bool = False
    needs: Needs = ""


def _touch(family: str, module: str, remember: str, sizes: dict[str, int], steps: dict[str, int]) -> list[MikasaTask]:
    """Tasks that end by touching one object of `sizes`; `steps` by suffix."""
    return [
        MikasaTask(f"{family}{size}{suffix}-VLA-v0", family, most, module, remember, 1 / n, "touch", not suffix)
        for suffix, most in steps.items()
        for size, n in sizes.items()
    ]


def _colours(family: str, remember: str, ordered: bool, long: tuple[int, int, int]) -> list[MikasaTask]:
    """Tasks that end by touching several of nine cubes and pressing a button."""
    module = {"BunchOfColors": "bunch_of_colors_vla", "SeqOfColors": "seq_of_colors_vla"}.get(
        family, "chain_of_colors_vla"
    )
    found = []
    for suffix, horizons in (("", (400, 400, 400)), ("-Long", long)):
        for n, most in zip((3, 5, 7), horizons, strict=True):
            chance = 1 / (math.perm(9, n) if ordered else math.comb(9, n))
            found.append(MikasaTask(f"{family}{n}{suffix}-VLA-v0", family, most, module, remember, chance, "sequence"))
    return found


def _plain(
    family: str, module: str, remember: str, horizons: dict[str, int], needs: Needs = "", chance: float = 0.0
) -> list[MikasaTask]:
    return [
        MikasaTask(
            f"{family}{kind}-VLA-v0",
            family.rstrip("-"),
            most,
            module,
            remember,
            chance,
            needs=needs,
            frozen=needs == "ycb" and "Long" not in kind,
        )
        for kind, most in horizons.items()
    ]


_N = {"3": 3, "5": 5, "9": 9}
_PAIRS = {"3x2": 6, "3x3": 9, "5x3": 15}
_BOTH = {"": 25, "-Long": 600}
_SPEEDS = {"Slow": 60, "Medium": 60, "Fast": 60}
_HANDS = {"Easy": 0, "Medium": 0, "Hard": 0}


def _graded(easy: int, medium: int, hard: int, suffix: str = "") -> dict[str, int]:
    return {f"{grade}{suffix}": most for grade, most in zip(_HANDS, (easy, medium, hard), strict=True)}


_IMPOSTER_PAIRS = [
    MikasaTask(
        f"FindImposterShapeAndColor{size}-VLA-v0",
        "FindImposterShapeAndColor",
        40 if size == "5x3" else 25,
        "find_imposter_shape_and_color_vla",
        "which object was not there",
        1 / n,
        "touch",
        True,
    )
    for size, n in _PAIRS.items()
]

CANONICAL: dict[str, MikasaTask] = {
    task.name: task
    for task in [
        *_touch("RememberColor", "remember_color_vla", "the colour of a cube", _N, _BOTH),
        *_touch("RememberShape", "remember_shape_vla", "the shape of an object", _N, _BOTH),
        *_touch(
            "RememberShapeAndColor", "remember_shape_and_color_vla", "shape and colour of an object", _PAIRS, _BOTH
        ),
        *_touch("FindImposterColor", "find_imposter_color_vla", "which colour was not there", _N, {"": 25}),
        *_touch("FindImposterShape", "find_imposter_shape_vla", "which shape was not there", _N, {"": 25}),
        *_IMPOSTER_PAIRS,
        *_colours("BunchOfColors", "which colours were shown together", False, (700, 700, 700)),
        *_colours("SeqOfColors", "which colours were shown, one after the other", True, (800, 1000, 1200)),
        *_colours("ChainOfColors", "which colours were shown, and in what order", True, (800, 1000, 1200)),
        *_plain("Intercept", "intercept_vla", "how fast the ball rolls", _SPEEDS),
        *_plain("InterceptGrab", "intercept_grab_vla", "how fast the ball rolls", _SPEEDS),
        *_plain("RotateLenient", "rotate_lenient_vla", "how the peg lay", {"Pos": 60, "PosNeg": 60}),
        *_plain("RotateStrict", "rotate_strict_vla", "how the peg lay", {"Pos": 90, "PosNeg": 90}),
        *_plain("TakeItBack", "take_it_back_vla", "where the cube was", {"": 60}, chance=1 / 3),
        *_plain("BatteriesCheckerEasy-", "batteries_checker_easy_vla", "which work", {"3": 540, "6": 1080}, "bulb"),
        *_plain("BatteriesCheckerHard-", "batteries_checker_hard_vla", "which work", {"3": 1080, "6": 2160}, "bulb"),
        *_plain(
            "BlinkCountButtonPress",
            "blink_count_button_press_vla",
            "how often a lamp blinked",
            _graded(150, 200, 300) | _graded(1200, 1200, 1200, "-Long"),
            "bulb",
        ),
        *_plain("TraceShape", "trace_shape_vla", "a path that was shown", _graded(250, 300, 350), "bulb"),
        *_plain("TraceShapeSeq", "trace_shape_seq_vla", "paths that were shown", _graded(1500, 1500, 1500), "bulb"),
        *_plain(
            "TimedTransfer",
            "timed_transfer_vla",
            "how long ago a signal was",
            _graded(200, 250, 300) | _graded(600, 900, 1200, "-Long"),
            "bulb",
        ),
        *_plain(
            "GatherAndRecall",
            "gather_and_recall_vla",
            "the colours of flashes",
            {"1": 200, "3": 400, "5": 600, "7": 800, "9": 1000},
            "bulb",
        ),
        *_plain("ShellGameTouch", "shell_game_touch_vla", "which cup hides the ball", {"": 30}, "ycb", 1 / 3),
        *_plain("ShellGamePush", "shell_game_push_vla", "which cup hides the ball", {"": 30}, "ycb", 1 / 3),
        *_plain(
            "ShellGameShuffleTouch",
            "shell_game_shuffle_touch_vla",
            "which cup hides the ball",
            {"": 60, "-Long": 600},
            "ycb",
            1 / 3,
        ),
        *_plain(
            "ShellGameShuffleColorLampTouch",
            "shell_game_shuffle_color_lamp_touch_vla",
            "which cup hides which colour",
            {"": 60, "-Long": 600},
            "ycb",
            1 / 3,
        ),
        *_plain(
            "ShellGameColorLampTouch",
            "shell_game_color_lamp_touch_vla",
            "which cup hides which colour",
            {"": 30},
            "ycb",
            1 / 3,
        ),
    ]
}
"""All 90 by name. `tests/test_mikasa_play.py` compares them with what the package registers."""

NOT_CANONICAL = (
    "BatteriesCheckerEasy-9-VLA-v0",
    "BatteriesCheckerEasy-12-VLA-v0",
    "BatteriesCheckerEasy-15-VLA-v0",
    "BatteriesCheckerHard-9-VLA-v0",
    "BatteriesCheckerHard-12-VLA-v0",
    "BatteriesCheckerHard-15-VLA-v0",
    "ShellGamePick-VLA-v0",
)
"""Registered by the package and not among the 90."""


def _needed(needs: Needs) -> tuple[Path, str]:
    """The file that tasks with these needs load, and why it may be missing."""
    if needs == "bulb":
        package = find_package()
        return package / "vla" / "utils" / "objects" / "low_poly_light_bulb.glb", (
            "the package's wheel lacks the mesh of a light bulb"
        )
    home = Path(os.environ.get("MS_ASSET_DIR") or Path.home() / ".maniskill")
    return home / "data" / "assets" / "mani_skill2_ycb" / "info_pick_v0.json", (
        "the cups are meshes of the YCB set, which lies on a hub and in no package"
    )


def why_refused(task: MikasaTask) -> str:
    """Why a canonical task cannot be played here; empty where it can. Raises MikasaMissingError."""
    if not task.needs:
        return ""
    path, why = _needed(task.needs)
    if path.is_file():
        return ""
    mend = "put it there" if task.needs == "bulb" else "put the set there, or name its folder with MS_ASSET_DIR"
    return f"{why}: expected {path}; {mend}"


@functools.cache
def sentence_of(module: str) -> str:
    """The sentence of a module's tasks as its source has it, with {angle_deg} where it names an angle; empty where the
    source has none. The module is not imported. Raises MikasaMissingError.
    """
    source = (find_package() / "vla" / "memory_envs" / f"{module}.py").read_text(encoding="utf-8")
    for outer in ast.parse(source).body:
        for inner in outer.body if isinstance(outer, ast.ClassDef) else ():
            if isinstance(inner, ast.Assign) and isinstance(inner.targets[0], ast.Name):
                name = inner.targets[0].id
                if name in (_SENTENCE, _TEMPLATE) and isinstance(inner.value, ast.Constant):
                    return str(inner.value.value)
    return ""


def sentences_of(module: str) -> tuple[str, ...]:
    """Every sentence that a module's tasks can say. Raises MikasaMissingError."""
    sentence = sentence_of(module)
    if "{angle_deg}" in sentence:
        return tuple(sentence.format(angle_deg=angle) for angle in _ROTATIONS)
    return (sentence,) if sentence else ()


def info_of(task: MikasaTask, sentences: tuple[str, ...]) -> TaskInfo:
    """What the rollout is told of a task."""
    return TaskInfo(task.name, "memory", task.remember, task.chance, task.max_steps, sentences[:3])
