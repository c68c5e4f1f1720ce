"""The LIBERO benchmark's suites: its own scenes, initial states and verdict.

The benchmark and its meshes come with `make libero`; without them tasks cannot be listed, and the error says so. The
simulator is imported when an environment is made.
"""

from typing import TYPE_CHECKING, Any

from vlamem.sim.suites.protocol import Recorder, RenderProfile, SuiteError, TaskInfo

if TYPE_CHECKING:
    from vlamem.sim.suites.libero.env import LiberoEnv

__all__ = ["LIBERO_10", "LIBERO_90", "LIBERO_GOAL", "LIBERO_OBJECT", "LIBERO_SPATIAL", "SUITES", "LiberoSuite"]


class LiberoSuite:
    """One suite of the benchmark. All of them share their goals, so that recordings of several train one memory."""

    recorder = Recorder("libero", demonstrations="vlamem.sim.suites.libero.demonstrations:work")

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def tasks(self) -> dict[str, TaskInfo]:
        """Every task, in the benchmark's order. Raises LiberoMissingError when the benchmark is not installed."""
        from vlamem.sim.suites.libero.catalogue import catalogue

        return catalogue(self.name)

    def goals(self) -> tuple[tuple[str, ...], ...]:
        """The sentence of every task of all five suites, which has no paraphrase.

        Raises LiberoMissingError when the benchmark is not installed.
        """
        from vlamem.sim.suites.libero.catalogue import all_sentences

        return tuple((sentence, sentence) for sentence in all_sentences())

    def make(
        self,
        task: str,
        *,
        image_size: int = 84,
        render: RenderProfile = "fast",
        guessing: bool = False,
        **task_parameters: Any,
    ) -> "LiberoEnv":
        """An environment for one task; raises SuiteError for an unknown task or parameter, LiberoMissingError."""
        if task not in self.tasks:
            raise SuiteError(f"unknown task '{task}' in suite '{self.name}': choose one of {', '.join(self.tasks)}")
        if guessing:
            raise SuiteError(f"task '{task}' has nothing to guess: the current frame is enough; use --policy expert")
        if task_parameters:
            raise SuiteError(f"task '{task}' does not take the parameter '{next(iter(task_parameters))}': it has none")
        from vlamem.sim.suites.libero.env import LiberoEnv

        return LiberoEnv(self.name, self.tasks[task], image_size=image_size, render=render)


LIBERO_SPATIAL = LiberoSuite("libero_spatial")
LIBERO_OBJECT = LiberoSuite("libero_object")
LIBERO_GOAL = LiberoSuite("libero_goal")
LIBERO_10 = LiberoSuite("libero_10")
LIBERO_90 = LiberoSuite("libero_90")
SUITES = {suite.name: suite for suite in (LIBERO_SPATIAL, LIBERO_OBJECT, LIBERO_GOAL, LIBERO_10, LIBERO_90)}
