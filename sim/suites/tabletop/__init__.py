"""The tabletop suite: skills, memory tasks and their oracle variants on robosuite's Panda.

The simulator is imported when an environment is made, not when tasks are listed.
"""

import ctypes.util
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vlamem.sim.suites.protocol import RenderProfile, SuiteError, TaskInfo

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.env import TabletopEnv

if "MUJOCO_GL" not in os.environ and "DISPLAY" not in os.environ:
    # MuJoCo reads it when it is imported, and without it asks for a window system
    os.environ["MUJOCO_GL"] = "osmesa" if ctypes.util.find_library("OSMesa") else "egl"

__all__ = ["SUITE", "TabletopSuite", "make_env", "register_gymnasium"]


class TabletopSuite:
    """Tasks of the suite, and environments for them."""

    name = "tabletop"

    @cached_property
    def tasks(self) -> dict[str, TaskInfo]:
        """Every task: skills, memory tasks, and the oracle variant of each memory task (suffix `_told`)."""
        from vlamem.sim.suites.tabletop.catalogue import catalogue

        return catalogue()

    def make(
        self,
        task: str,
        *,
        image_size: int = 84,
        render: RenderProfile = "fast",
        guessing: bool = False,
        **task_parameters: Any,
    ) -> "TabletopEnv":
        """An environment for one task; raises SuiteError for an unknown task or parameter."""
        if task not in self.tasks:
            raise SuiteError(f"unknown task '{task}' in suite 'tabletop': choose one of {', '.join(self.tasks)}")
        from vlamem.sim.suites.tabletop.env import TabletopEnv
        from vlamem.sim.suites.tabletop.tasks import make_task

        try:
            made, told = make_task(task, task_parameters)
        except TypeError as error:
            raise SuiteError(f"task '{task}' does not take these parameters: {error}") from error
        return TabletopEnv(made, told=told, image_size=image_size, render=render, guessing=guessing)


SUITE = TabletopSuite()


def make_env(**options: Any) -> "TabletopEnv":
    """SUITE.make as a function, for gymnasium's registry (which passes `render_mode` too)."""
    options.pop("render_mode", None)
    return SUITE.make(**options)


def register_gymnasium() -> list[str]:
    """Registers every task with gymnasium as `vlamem/Tabletop-<Task>-v0` and returns the ids."""
    import gymnasium

    ids = []
    for name in SUITE.tasks:
        words = "".join(w.capitalize() for w in name.split("_"))
        identifier = f"vlamem/Tabletop-{words}-v0"
        if identifier not in gymnasium.registry:
            gymnasium.register(identifier, entry_point="vlamem.sim.suites.tabletop:make_env", kwargs={"task": name})
        ids.append(identifier)
    return ids
