"""Names and sentences of LIBERO's tasks, read from the installed benchmark without importing it."""

import functools
import re
import runpy

from vlamem.sim.suites.libero.assets import find_root
from vlamem.sim.suites.protocol import TaskInfo

MAX_STEPS = {
    "libero_spatial": 280,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Control steps after which an episode is truncated, as the field and lerobot-eval count them."""
_SCENE = re.compile(r"^[A-Z_]+_SCENE\d+_")


def sentence(task: str) -> str:
    """What the benchmark tells a policy: the task's name in words, without its scene."""
    return _SCENE.sub("", task).replace("_", " ")


@functools.cache
def catalogue(suite: str) -> dict[str, TaskInfo]:
    """Every task of `suite`, in the benchmark's order. Raises LiberoMissingError when it is not installed."""
    names = runpy.run_path(str(find_root() / "benchmark" / "libero_suite_task_map.py"))["libero_task_map"][suite]
    return {name: TaskInfo(name, "skill", "", 0.0, MAX_STEPS[suite], (sentence(name),)) for name in names}


def all_sentences() -> tuple[str, ...]:
    """Every sentence of the five suites, each once. Raises LiberoMissingError when the benchmark is not installed."""
    infos = (info for suite in MAX_STEPS for info in catalogue(suite).values())
    return tuple(dict.fromkeys(info.instructions[0] for info in infos))
