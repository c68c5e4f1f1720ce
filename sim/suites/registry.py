"""Suites of tasks: the interface, and finding one by name."""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from vlamem.core.spec import ActionSpec

Kind = Literal["skill", "memory", "oracle"]
RenderProfile = Literal["fast", "faithful"]
KINDS: dict[str, Kind] = {"skills": "skill", "memory": "memory", "oracle": "oracle"}
"""Names that stand for all tasks of a kind."""

_SUITES = {
    "tabletop": "vlamem.sim.suites.tabletop:SUITE",
    "libero_spatial": "vlamem.sim.suites.libero:LIBERO_SPATIAL",
    "libero_object": "vlamem.sim.suites.libero:LIBERO_OBJECT",
    "libero_goal": "vlamem.sim.suites.libero:LIBERO_GOAL",
    "libero_10": "vlamem.sim.suites.libero:LIBERO_10",
    "libero_90": "vlamem.sim.suites.libero:LIBERO_90",
}


class SuiteError(ValueError):
    """A suite or task that does not exist; the message names the nearest one that does."""


@dataclass(frozen=True)
class TaskInfo:
    """One task of a suite.

    Attributes:
        name: e.g. "touch".
        kind: "skill" (the current frame is enough), "memory" (it is not), or "oracle" (a memory task whose
            instruction tells the answer).
        remember: what has to be remembered; empty for skills.
        chance: success rate of a perfect hand with a random choice, 0 to 1.
        max_steps: control steps until an episode is truncated.
        instructions: example sentences.
    """

    name: str
    kind: Kind
    remember: str
    chance: float
    max_steps: int
    instructions: tuple[str, ...] = ()


class SuiteEnv(Protocol):
    """A gymnasium environment of a suite, as the rollout uses it.

    An observation is a dict: one uint8 [H, W, 3] RGB upright image per camera, `proprioception` float32 [P] and
    `instruction` str. With `render_on_step` False, observations come without images and `observe` gives a full one.
    `reset` takes options {"episode": int, "split": str, "wording": str}; the initial state is a function of (task,
    split, episode) alone. `step` reports {"success": bool} in its info. `expert_action` is what a scripted expert with
    privileged state does now.
    """

    action_spec: ActionSpec
    control_hz: float
    render_on_step: bool

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; see the class."""
        ...

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step with an action in the environment's action space."""
        ...

    def observe(self) -> dict[str, Any]:
        """The current observation with its images."""
        ...

    def expert_action(self) -> Float[np.ndarray, "A"]:
        """The scripted expert's action."""
        ...

    def close(self) -> None:
        """Frees the simulator and its GL context."""
        ...


class Suite(Protocol):
    """A named set of tasks."""

    name: str
    tasks: Mapping[str, TaskInfo]

    def make(
        self, task: str, *, image_size: int = 84, render: RenderProfile = "fast", **task_parameters: Any
    ) -> SuiteEnv:
        """An environment for one task. `guessing=True` gives its expert a random choice in place of the answer."""
        ...


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(known)}"


def load_attribute(path: str) -> Any:
    """What "package.module:ATTRIBUTE" names. Raises ImportError or AttributeError when it is not there."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_suite(name: str) -> Suite:
    """The suite called `name`: a registered one, or one of your own given as "package.module:ATTRIBUTE".

    Raises SuiteError for an unknown name, and for one of your own that cannot be imported.
    """
    if name not in _SUITES and ":" not in name:
        raise SuiteError(f"unknown suite '{name}': {_nearest(name, list(_SUITES))}")
    if name in _SUITES:
        known: Suite = load_attribute(_SUITES[name])
        return known
    try:
        suite: Suite = load_attribute(name)
    except ModuleNotFoundError as error:
        raise SuiteError(f"suite '{name}' needs the module '{error.name}': is it installed and on the path?") from error
    except AttributeError as error:
        raise SuiteError(f"suite '{name}' is not there ({error}): expected package.module:ATTRIBUTE") from error
    return suite


def select_tasks(suite: Suite, names: Sequence[str]) -> tuple[str, ...]:
    """Names of tasks, in the suite's order, without repetition: "all", a kind ("skills", "memory", "oracle") or a task.

    Raises SuiteError for a name that is none of these, and when nothing is selected.
    """
    wanted: set[str] = set()
    for name in names:
        if name == "all":
            wanted |= set(suite.tasks)
        elif name in KINDS:
            wanted |= {task for task, info in suite.tasks.items() if info.kind == KINDS[name]}
        elif name in suite.tasks:
            wanted.add(name)
        else:
            known = [*suite.tasks, *KINDS, "all"]
            raise SuiteError(f"unknown task '{name}' in suite '{suite.name}': {_nearest(name, known)}")
    if not wanted:
        raise SuiteError(
            f"no task of suite '{suite.name}' is selected by {list(names)}: choose from {list(suite.tasks)}"
        )
    return tuple(task for task in suite.tasks if task in wanted)


def images_of(observation: Mapping[str, Any], cameras: Sequence[str]) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """The images of `cameras` in an observation. Raises SuiteError naming a camera that is not there."""
    missing = [c for c in cameras if c not in observation]
    if missing:
        has = [k for k, v in observation.items() if getattr(v, "ndim", 0) == 3]
        raise SuiteError(
            f"the environment has no camera '{missing[0]}', only {has}: choose a policy trained with these cameras"
        )
    return {c: observation[c] for c in cameras}
