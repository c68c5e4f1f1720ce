"""MIKASA-Robo's canonical tasks: its own scenes, initial states, sentences and verdict, and a strict verdict beside it.

The benchmark, its simulator and a Vulkan driver come with `make mikasa`. Tasks can be listed without; the simulator is
imported when an environment is made.
"""

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vlamem.core.check import Check
from vlamem.sim.suites.mikasa import vulkan
from vlamem.sim.suites.mikasa.catalogue import CANONICAL, NOT_CANONICAL, info_of, sentences_of, why_refused
from vlamem.sim.suites.mikasa.language import oracle_instructions
from vlamem.sim.suites.mikasa.package import MikasaMissingError, find_package
from vlamem.sim.suites.protocol import Recorder, RenderProfile, SuiteError, TaskInfo

if TYPE_CHECKING:
    from vlamem.sim.suites.mikasa.env import MikasaEnv

__all__ = ["MIKASA", "MikasaSuite"]


class MikasaSuite:
    """The canonical tasks by the benchmark's ids. Those that need files which are not here are `refused`."""

    name = "mikasa"
    recorder = Recorder()

    @property
    def refused(self) -> dict[str, str]:
        """Ids that cannot be played here, and why."""
        found = dict.fromkeys(NOT_CANONICAL, "the package registers it, and it is not one of the 90 canonical tasks")
        for task in CANONICAL.values():
            if task.needs:
                try:
                    why = why_refused(task)
                except MikasaMissingError as error:
                    why = str(error)
                if why:
                    found[task.name] = why
        return found

    @property
    def tasks(self) -> dict[str, TaskInfo]:
        """Every task that can be played here, in the benchmark's order of families; without sentences where the
        benchmark is not installed.
        """
        refused = self.refused
        found = {}
        for task in CANONICAL.values():
            if task.name not in refused:
                try:
                    sentences = sentences_of(task.module)
                except MikasaMissingError:
                    sentences = ()
                found[task.name] = info_of(task, sentences)
        return found

    def goals(self) -> tuple[tuple[str, ...], ...]:
        """The sentences of the canonical tasks and the oracle instructions, which have no paraphrase.

        Raises MikasaMissingError when the benchmark is not installed.
        """
        modules = dict.fromkeys(task.module for task in CANONICAL.values())
        said = dict.fromkeys(s for module in modules for s in (*sentences_of(module),))
        return tuple((sentence, sentence) for sentence in (*said, *oracle_instructions()))

    def examine(self) -> Iterator[Check]:
        """The benchmark, and the Vulkan driver that its simulator draws with, for `vlamem doctor`."""
        try:
            package = find_package()
        except MikasaMissingError as error:
            yield Check("MIKASA-Robo", "absent", str(error).partition(":")[0], "make mikasa")
            return
        yield Check("MIKASA-Robo", "ok", str(package))
        if importlib.util.find_spec("sapien") is None:
            yield Check("Vulkan", "broken", "the benchmark's simulator, sapien, is not installed", "make mikasa")
            return
        try:
            found = vulkan.choose()
        except MikasaMissingError as error:
            what, _, mend = str(error).rpartition(": ")
            yield Check("Vulkan", "broken", what, mend)
            return
        yield Check("Vulkan", "ok", f"the driver {found.name}{' (software: slow)' if found.software else ''}")

    def make(
        self,
        task: str,
        *,
        image_size: int = 84,
        render: RenderProfile = "fast",
        guessing: bool = False,
        **task_parameters: Any,
    ) -> "MikasaEnv":
        """An environment for one task. Parameters: `actor`, who acts as the expert (see experts), and `control_mode`,
        which can only be the benchmark's.

        Raises SuiteError for an unknown, refused or not canonical task and for another parameter, MikasaMissingError.
        """
        refused = self.refused
        if task in refused:
            raise SuiteError(f"task '{task}' of suite '{self.name}' cannot be played here: {refused[task]}")
        if task not in CANONICAL:
            raise SuiteError(f"unknown task '{task}' in suite '{self.name}': expected one of the benchmark's VLA ids")
        from vlamem.sim.suites.mikasa.conventions import CONTROL_MODE

        actor = str(task_parameters.pop("actor", "guess" if guessing else "expert"))
        mode = task_parameters.pop("control_mode", CONTROL_MODE)
        if mode != CONTROL_MODE:
            raise SuiteError(f"control_mode '{mode}' is not the benchmark's canonical one: use {CONTROL_MODE}")
        if task_parameters:
            raise SuiteError(
                f"task '{task}' does not take the parameter '{next(iter(task_parameters))}': it takes actor"
            )
        from vlamem.sim.suites.mikasa.env import MikasaEnv
        from vlamem.sim.suites.mikasa.experts import check_actor

        check_actor(CANONICAL[task], actor)
        return MikasaEnv(CANONICAL[task], image_size=image_size, render=render, actor=actor)


MIKASA = MikasaSuite()
