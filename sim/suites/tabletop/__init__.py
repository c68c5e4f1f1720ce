"""The tabletop suite: skills, memory tasks and their oracle variants on robosuite's Panda.

The simulator is imported when an environment is made, not when tasks are listed.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from vlamem.sim import gl
from vlamem.sim.suites.protocol import Recorder, RenderProfile, SuiteError, TaskInfo

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.env import TabletopEnv
    from vlamem.sim.suites.tabletop.shift import ShiftedEnv

gl.settle()  # before MuJoCo is imported

__all__ = ["SUITE", "TabletopSuite", "make_env", "register_gymnasium"]


class TabletopSuite:
    """Tasks of the suite, and environments for them."""

    name = "tabletop"
    recorder = Recorder(
        demonstrations="vlamem.sim.suites.tabletop.demonstrations:work",
        features=True,
        visits=True,
        lerobot="vlamem.sim.suites.tabletop.lerobot_dataset:write_lerobot",
        labels="vlamem.sim.suites.tabletop.demonstrations:labels",
        frames="vlamem.sim.suites.tabletop.frame_labels:FRAMES",
    )

    def goals(self) -> tuple[tuple[str, ...], ...]:
        """Paraphrases of every goal that a task can have."""
        from vlamem.sim.suites.tabletop.language import all_goals

        return tuple((*g.training_sentences, g.sentence(-1)) for g in all_goals())

    @cached_property
    def tasks(self) -> dict[str, TaskInfo]:
        """Every task: skills, memory tasks, and the oracle variant of each memory task (suffix `_told`)."""
        from vlamem.sim.suites.tabletop.catalogue import catalogue

        return catalogue()

    @overload
    def make(
        self,
        task: str,
        *,
        image_size: int = 84,
        render: RenderProfile = "fast",
        guessing: bool = False,
        shift: None = None,
        **task_parameters: Any,
    ) -> "TabletopEnv": ...

    @overload
    def make(
        self,
        task: str,
        *,
        image_size: int = 84,
        render: RenderProfile = "fast",
        guessing: bool = False,
        shift: str,
        **task_parameters: Any,
    ) -> "ShiftedEnv": ...

    def make(
        self,
        task: str,
        *,
        image_size: int = 84,
        render: RenderProfile = "fast",
        guessing: bool = False,
        shift: str | None = None,
        **task_parameters: Any,
    ) -> "TabletopEnv | ShiftedEnv":
        """An environment for one task, under a local shift written as kind:strength, e.g. "camera:0.05".

        Raises SuiteError for an unknown task, shift or parameter.
        """
        if task not in self.tasks:
            raise SuiteError(f"unknown task '{task}' in suite 'tabletop': choose one of {', '.join(self.tasks)}")
        from vlamem.sim.suites.tabletop.env import TabletopEnv
        from vlamem.sim.suites.tabletop.tasks import make_task

        try:
            made, oracle = make_task(task, task_parameters)
        except TypeError as error:
            raise SuiteError(f"task '{task}' does not take these parameters: {error}") from error
        env = TabletopEnv(made, oracle=oracle, image_size=image_size, render=render, guessing=guessing)
        if shift is None:
            return env
        from vlamem.sim.suites.tabletop.shift import Shift, ShiftedEnv

        try:
            return ShiftedEnv(env, Shift.parse(shift.replace(":", "=")))
        except ValueError as error:
            env.close()
            raise SuiteError(str(error)) from error


SUITE = TabletopSuite()


def make_env(**options: Any) -> "TabletopEnv":
    """SUITE.make as a function, for gymnasium's registry (which passes `render_mode` too)."""
    options.pop("render_mode", None)
    made: TabletopEnv = SUITE.make(**options)
    return made


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
