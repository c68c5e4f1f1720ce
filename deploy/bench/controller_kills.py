"""Controllers killed in the middle of an episode while server and arm go on: does the next one go on with it?"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.deploy.bench.processes import ProcessError, RobotProcess
from vlamem.deploy.bench.robot_process import RobotRun
from vlamem.deploy.server import SessionStore, StateError, StoredSession, read_record, template_of

LIMIT_S = 2.0
"""From the start of the next controller to its first fresh command in the episode; later is not survived."""
_WAIT_S = 60.0


@dataclass(frozen=True)
class ControllerKill:
    """One kill, and how its episode went on.

    Attributes:
        episode, step: the episode that it interrupted, and the step that the memory was at when it was joined again.
        kept: the same session, episode and memory, and commands from a fresh chunk.
        resume_s: from the start of the next controller to its first command from a fresh chunk in the same episode;
            None when there was none.
    """

    episode: int
    step: int
    kept: bool
    resume_s: float | None

    @property
    def survived(self) -> bool:
        """Whether the episode went on with its memory, and within LIMIT_S."""
        return self.kept and self.resume_s is not None and self.resume_s <= LIMIT_S


@dataclass(frozen=True)
class Stored:
    """The memory of a session on a server's disk: its record, the step of its last write (-1: none), its arrays."""

    record: StoredSession
    step: int
    arrays: dict[str, np.ndarray[Any, Any]]

    def goes_on_in(self, later: "Stored") -> bool:
        """Whether `later` is this memory or what became of it: no episode has begun between, nothing was emptied."""
        same = all(np.array_equal(x, later.arrays[name]) for name, x in self.arrays.items())
        driven = replace(later.record, epoch=self.record.epoch, writer=self.record.writer)  # by whichever controller
        return self.record == driven and (later.step > self.step or (later.step == self.step and same))


def stored(state: Path, session: str) -> Stored | None:
    """What lies in a server's --state folder of a session; None before there is one."""
    try:
        record = read_record(state / "sessions" / session)
    except StateError:
        return None
    store = SessionStore(state / "sessions", record.owner, template_of(record.owner.layout), writes=False)
    try:
        record, arrays, step = store.recover(session)
    finally:
        store.close()
    return Stored(record, step, arrays)


def kill_controllers(
    plan: RobotRun, server_state: Path, kills: int, seed: int, say: Callable[[str], None]
) -> tuple[list[ControllerKill], dict[str, Any]]:
    """Kills the controller of `plan` so many times, each time after its episode's memory was written.

    `plan` says what to drive; its folder takes a folder for each controller, and its arm is one that outlives them.
    Returns the kills and the report of the last controller. Raises ProcessError when a controller does not start, does
    not end, or writes nothing.
    """
    rng, folder, found = stream(seed, "controller kills"), Path(plan.folder), []
    with tempfile.TemporaryDirectory(prefix="vlamem-") as short:  # a socket's path has 108 letters at most
        arm = _arm(plan, Path(short) / "arm", folder)
        socket, state = str(Path(short) / "arm"), str(folder / "state")
        plan = replace(plan, arm=socket, state=state, until_end_file=True, seconds=0.0)
        controller = RobotProcess(replace(plan, folder=str(folder / "0")))
        try:
            controller.wait_until_running()
            for kill in range(kills):
                wait_for_write(controller, server_state, plan)
                time.sleep(rng.uniform(0.1, 1.0) * min(2.0, plan.episode_s / 4))  # in the episode still
                controller.kill()
                before = _settled(server_state, plan)
                controller = RobotProcess(replace(plan, folder=str(folder / str(kill + 1))))
                found.append(_next(controller, before, server_state, plan))
                after = found[-1].resume_s
                where = f"episode {found[-1].episode}, step {found[-1].step}"
                came = "did not go on" if after is None else f"after {after:.2f} s"
                say(f"  controller kill {kill + 1}: {where}, {came}{'' if found[-1].kept else ', memory not kept'}")
            controller.end()
            return found, controller.report(plan.episode_s + 120)
        finally:
            controller.kill()
            arm.kill()
            arm.wait()


def _arm(plan: RobotRun, at: Path, folder: Path) -> "subprocess.Popen[bytes]":
    folder.mkdir(parents=True)
    words = ["vlamem.deploy.robot.mujoco_arm", str(at), plan.suite, str(plan.size), str(folder / "arm.jsonl")]
    with (folder / "arm.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=log)


def wait_for_write(controller: RobotProcess, server_state: Path, plan: RobotRun) -> None:
    """Waits for a write in an episode that has time left. Raises ProcessError when none comes."""
    until = time.monotonic() + _WAIT_S + 2 * plan.episode_s
    while time.monotonic() < until and controller.running:
        here = stored(server_state, plan.session)
        # the record was saved when the episode began; in its second half the next controller might find it over
        runs = here is not None and here.step >= 0 and not here.record.ended
        if here is not None and runs and time.time() - here.record.saved < plan.episode_s / 2:
            return
        time.sleep(0.05)
    raise ProcessError(f"no write in an episode that has just begun: {controller.output()[-2000:]}")


def _settled(server_state: Path, plan: RobotRun) -> Stored:
    """What is stored when the server has worked off what the killed controller had sent."""
    last, until = None, time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        time.sleep(0.1)
        here = stored(server_state, plan.session)
        if here is not None and last is not None and (here.record, here.step) == (last.record, last.step):
            return here
        last = here
    raise ProcessError(f"the memory of session '{plan.session}' changes although its controller was killed")


def _next(controller: RobotProcess, before: Stored, server_state: Path, plan: RobotRun) -> ControllerKill:
    """Watches a controller that comes after a killed one until it goes on, or begins something else."""
    episode, until = before.record.episode, time.monotonic() + _WAIT_S
    while time.monotonic() < until and controller.running:
        begun = controller.events("episode")
        if any(e["episode"] != episode for e in begun):
            return ControllerKill(episode, -1, False, None)
        moving = [e for e in controller.events("mode") if e["now"] == "run"]
        if begun and moving:
            restored = [e["restored"] for e in controller.events("connected")]
            here = stored(server_state, plan.session)
            kept = restored == [True] and begun[0]["step"] >= before.step
            kept = kept and here is not None and before.goes_on_in(here)
            return ControllerKill(episode, int(begun[0]["step"]), kept, moving[0]["t"] - controller.started)
        time.sleep(0.02)
    if not controller.running:
        raise ProcessError(f"the controller ended by itself: {controller.output()[-2000:]}")
    return ControllerKill(episode, -1, False, None)
