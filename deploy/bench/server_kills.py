"""The server killed while a robot works: how soon, and with what memory, is its session back?"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlamem.deploy.bench.controller_kills import LIMIT_S, stored
from vlamem.deploy.bench.processes import RobotProcess, ServerProcess

_RESTORED_S = 60.0
_COLD_EVERY = 4
"""Of so many kills one takes the process along that would start the server again."""


@dataclass(frozen=True)
class ServerKill:
    """One kill of the server (kill -9).

    Attributes:
        cold: whether the process that starts it again was killed with it, so that all was imported anew.
        loading_s: from the kill, or for a cold one from the new start, to where the new server listens.
        resume_s: from there to the robot's session restored; None when it was not.
        kept: whether the session's episode went on with the memory that the killed server left on disk, or what became
            of it; None where the robot had ended that episode when the server was back.
        stalled_s: how much of `resume_s` the network was stalled.
    """

    cold: bool
    loading_s: float
    resume_s: float | None
    kept: bool | None
    stalled_s: float = 0.0

    @property
    def survived(self) -> bool:
        """Whether the session was restored, and its memory with it."""
        return self.resume_s is not None and self.kept is not False

    @property
    def back_s(self) -> float | None:
        """From the kill, or the new start, to the session restored; None when it was not."""
        return None if self.resume_s is None else self.loading_s + self.resume_s


def is_cold(number: int) -> bool:
    """Whether kill `number`, counted from 1, takes all of the server along."""
    return number % _COLD_EVERY == 2


def kill_server(
    number: int,
    robot: RobotProcess,
    server: ServerProcess,
    state: Path,
    session: str,
    stalls: Sequence[tuple[float, float]],
) -> ServerKill:
    """Kills the server, has it started again, and waits for the robot's session; `stalls` are the network's so far.

    Raises ProcessError when the server does not listen again.
    """
    seen, cold = len(robot.events("connected")), is_cold(number)
    if cold:
        server.kill()
        before = stored(state, session)
        began = time.monotonic()
        listening = server.start()
    else:
        began = server.crash()
        before = stored(state, session)
        listening = server.wait_listening()
    at = time.time() - (time.monotonic() - listening)
    until = time.monotonic() + _RESTORED_S
    while not (after := robot.events("connected")[seen:]) and robot.running and time.monotonic() < until:
        time.sleep(0.02)
    back = next((event for event in after if event["restored"]), None)
    if back is None or before is None:
        return ServerKill(cold, listening - began, None, None)
    now = stored(state, session)
    kept: bool | None = now is not None and before.goes_on_in(now)
    if not kept and any(e["episode"] > before.record.episode for e in robot.events("episode")):
        kept = None
    resume_s = max(0.0, back["t"] - at)
    return ServerKill(cold, listening - began, resume_s, kept, overlap_s((at, at + resume_s), stalls))


def overlap_s(span: tuple[float, float], stalls: Sequence[tuple[float, float]]) -> float:
    """How much of a span of time lies in `stalls`, which do not overlap each other."""
    return sum(max(0.0, min(span[1], end) - max(span[0], begin)) for begin, end in stalls)


def words(kill: ServerKill) -> str:
    """A kill in one line."""
    if kill.resume_s is None:
        return "not restored"
    memory = {True: "with its memory", False: "WITHOUT its memory", None: "in the robot's next episode"}[kill.kept]
    stalled = f", of which the network was stalled {kill.stalled_s:.2f} s" if kill.stalled_s else ""
    cold = "cold, " if kill.cold else ""
    return f"{cold}listening after {kill.loading_s:.2f} s, restored {kill.resume_s:.2f} s later {memory}{stalled}"


def figures(kills: Sequence[ServerKill]) -> dict[str, tuple[float, int | None]]:
    """Value and n of what these kills say."""
    found: dict[str, tuple[float, int | None]] = {"kills_survived": (sum(k.survived for k in kills), len(kills))}
    went_on = [k.kept for k in kills if k.kept is not None]
    if went_on:
        found["server_memories_kept"] = (sum(went_on), len(went_on))
    back = [(k.cold, bool(k.stalled_s), k.back_s) for k in kills if k.back_s is not None]
    for cold, name in ((False, "server_back"), (True, "server_back_cold")):
        for stalled, kind in ((False, name), (True, f"{name}_stalled")):
            times = [s for c, n, s in back if (c, n) == (cold, stalled)]
            if times:
                found[f"{kind}_p50_s"] = (statistics.median(times), len(times))
                found[f"{kind}_max_s"] = (max(times), len(times))
    warm = [k for k in kills if not k.cold]
    if warm:
        in_time = [k.back_s is not None and k.back_s - k.stalled_s <= LIMIT_S for k in warm]
        found["server_back_in_time"] = (sum(in_time), len(warm))
    loading = [k.loading_s for k in kills if k.cold]
    if loading:
        found["server_loading_p50_s"] = (statistics.median(loading), len(loading))
    return found
