"""Traces of the episodes that a server serves: every control step, the cameras' film strip, and labels.

traces/SESSION-EPISODE.running.jsonl   while the episode goes on; after a crash too
traces/SESSION-EPISODE.parquet         when it is over
traces/SESSION-EPISODE.strip.jpg       frames over its time
traces/SESSION-EPISODE.jpg             the last frame
traces/labels.jsonl                    a line for each label
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.files import write_atomically
from vlamem.core.jsonl import JsonLog
from vlamem.core.observation import Observation
from vlamem.core.running_trace import SUFFIX, RunningTrace, finish, running_path
from vlamem.core.tick_trace import SERVED, TraceError, image_path, strip_path, trace_path
from vlamem.deploy.server.batcher import Decision
from vlamem.deploy.server.film import FilmStrip

log = logging.getLogger("vlamem.serve")
LONGEST_BYTES = 32 << 20
"""Of the lines of an episode that goes on: some 50,000 steps, 40 minutes at 20 Hz."""
_LOOK_EVERY = 256
"""Steps after which it is looked whether a trace is that long."""
Array = np.ndarray[Any, Any]


@dataclass
class _Episode:
    episode: int
    trace: RunningTrace | None  # None where it could not be written
    film: FilmStrip = field(default_factory=FilmStrip)
    step: dict[str, Any] | None = None  # the newest, whose command is not known yet
    steps: int = 0
    full: bool = False


class TickTraces:
    """Writes the traces of a server's sessions to FOLDER/traces.

    A trace that cannot be written, as on a full disk, is given up with a warning: robots are served all the same. One
    that reaches LONGEST_BYTES ends there.
    Methods but the jobs of `end` are for the server's event loop alone.

    Args:
        folder: of the server's state.
        columns: of the policy's traces; those of a server are added.
        about: what every trace says of its episode, such as `control_hz`, `arm` and `policy`.
        low, high: [A], bounds of an action.
        most_bytes: of all traces; the oldest that are over are removed first.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str],
        about: Mapping[str, Any],
        low: Array,
        high: Array,
        most_bytes: int = 512 << 20,
    ) -> None:
        self._folder, self._columns, self._about = folder, dict(columns) | SERVED, dict(about)
        self._low, self._high, self._most = low, high, most_bytes
        self._running: dict[str, _Episode] = {}
        self._files = threading.Lock()  # held by the one job that makes or removes files
        self.failed = 0
        (folder / "traces").mkdir(parents=True, exist_ok=True)

    def begin(self, session: str, episode: int) -> Callable[[], None]:
        """An episode begins; gives the job that ends the one before of this session, to be run in any thread."""
        end_before = self.end(session)
        self._open(session, episode, fresh=True)

        def job() -> None:
            end_before()
            self._finish_others(session, episode)

        return job

    def resume(self, session: str, episode: int) -> None:
        """An episode that another process began goes on."""
        self._open(session, episode, fresh=False)

    def _open(self, session: str, episode: int, fresh: bool) -> None:
        path = trace_path(self._folder, session, episode)
        try:
            if fresh:
                running_path(path).unlink(missing_ok=True)
            about = self._about | {"task": session, "episode": episode}
            self._running[session] = _Episode(episode, RunningTrace(path, self._columns, about))
        except OSError as error:
            self._running[session] = _Episode(episode, None)
            self._give_up(session, error)

    def _finish_others(self, session: str, episode: int) -> None:
        """Makes the files of episodes that a server left when it was killed."""
        for left in (self._folder / "traces").glob(f"{session}-*{SUFFIX}"):
            name, _, number = left.name.removesuffix(SUFFIX).rpartition("-")
            if name == session and number.isdecimal() and int(number) < episode:
                try:
                    self._finish_file(trace_path(self._folder, session, int(number)))
                except (OSError, TraceError) as error:
                    self._give_up(session, error)

    def _finish_file(self, path: Path) -> None:
        """Makes the Parquet file of a trace, unless another job has."""
        with self._files:
            if running_path(path).exists():
                finish(path)

    def acted(self, session: str, step: int, action: Array) -> None:
        """What the robot executed between step - 1 and step."""
        self._note(session, step, {"command": action})

    def reported(self, session: str, step: int, report: Mapping[str, Any]) -> None:
        """What the robot's controller did between step - 1 and step, as `read_report` gives it."""
        self._note(session, step, report)

    def stepped(self, session: str, step: int, obs: Observation, decision: Decision, chunk: Array | None) -> None:
        """A control step: what memory and policy made of an observation; `chunk` before it was brought into bounds."""
        running = self._running.get(session)
        if running is None or running.full or not self._write(session, running) or running.trace is None:
            return
        if running.steps % _LOOK_EVERY == 0 and self._is_full(session, running.trace.path):
            running.full = True
            return
        if not running.steps:
            running.trace.about["instruction"] = obs.instruction[0]
        times = {"wait_ms": 1e3 * decision.waited_s, "pass_ms": 1e3 * decision.took_s, "pass_rows": decision.rows}
        seen = {"proprioception": obs.proprioception[0]}
        running.step = {"step": step, "planned": False} | seen | times | decision.columns
        if chunk is not None:
            outside = np.maximum(self._low - chunk, chunk - self._high).max()
            running.step["bounded"] = max(0.0, float(outside))
        running.film.seen(running.steps, obs)
        running.steps += 1

    def end(self, session: str) -> Callable[[], None]:
        """The session's episode is over; gives the job that makes its files, to be run in any thread."""
        running = self._running.pop(session, None)
        if running is None or not self._write(session, running) or running.trace is None:
            return lambda: None
        running.trace.close()
        return lambda: self._finish(session, running)

    def labelled(self, session: str, episode: int, outcome: str, source: str, quarantined: bool) -> None:
        """A label of an episode came."""
        line = {"session": session, "episode": episode, "outcome": outcome, "source": source}
        try:
            with JsonLog(self._folder / "traces" / "labels.jsonl", sync=False) as labels:
                labels.append(line | {"quarantined": quarantined})
        except OSError as error:
            self._give_up(session, error)

    def close(self) -> None:
        """The server ends: episodes that go on may be gone on with by the next."""
        for session, running in self._running.items():
            self._write(session, running)
            if running.trace is not None:
                running.trace.close()
        self._running.clear()

    def _note(self, session: str, step: int, values: Mapping[str, Any]) -> None:
        running = self._running.get(session)
        if running is not None and running.step is not None and running.step["step"] == step - 1:
            running.step |= values

    def _write(self, session: str, running: _Episode) -> bool:
        """Writes the newest step, of which nothing more is to come; False where the trace is given up."""
        row, running.step = running.step, None
        if row is None or running.trace is None:
            return running.trace is not None
        try:
            running.trace.append(row)
        except OSError as error:
            running.trace.close()
            running.trace = None
            self._give_up(session, error)
            return False
        return True

    def _is_full(self, session: str, path: Path) -> bool:
        """Whether a trace has reached its bound: an episode that never ends would fill memory when it is read."""
        lines = running_path(path)
        full = lines.exists() and lines.stat().st_size >= min(LONGEST_BYTES, self._most)
        if full:
            log.warning("the trace of session %s is %d MB long and ends here", session, LONGEST_BYTES >> 20)
        return full

    def _finish(self, session: str, running: _Episode) -> None:
        """Makes the files of an episode that is over."""
        assert running.trace is not None
        try:
            self._finish_file(running.trace.path)
            if (strip := running.film.strip()) is not None:
                write_atomically(strip_path(self._folder, session, running.episode), strip)
                write_atomically(image_path(self._folder, session, running.episode), running.film.last())
            self._remove_oldest()
        except (OSError, TraceError) as error:
            self._give_up(session, error)

    def _give_up(self, session: str, error: Exception) -> None:
        self.failed += 1
        log.warning("the trace of session %s is not written any further: %s", session, error)

    def _remove_oldest(self) -> None:
        """Removes what is beyond the quota, of episodes that are over."""
        with self._files:
            kept = {running_path(r.trace.path) for r in list(self._running.values()) if r.trace is not None}
            sizes: dict[str, int] = {}
            changed: dict[str, float] = {}
            files: dict[str, list[Path]] = {}
            for path in (self._folder / "traces").iterdir():
                if path.name == "labels.jsonl" or path in kept or path.name.startswith("."):
                    continue
                about, name = path.stat(), _ENDINGS.sub("", path.name)
                sizes[name] = sizes.get(name, 0) + about.st_size
                changed[name] = max(changed.get(name, 0.0), about.st_mtime)
                files.setdefault(name, []).append(path)
            total = 0
            for name in sorted(sizes, key=lambda name: changed[name], reverse=True):
                total += sizes[name]
                if total > self._most:
                    for path in files[name]:
                        path.unlink(missing_ok=True)


_ENDINGS = re.compile(r"(\.running\.jsonl|\.parquet|(\.strip)?\.jpg)$")
"""Of an episode's files; a session's name may hold dots itself."""
REPORT = {"mode": str, "limits": list, "clipped": float, "plan_ms": float, "late_ms": float}
"""What a robot may report of its controller with a frame."""
_WORDS = 12
_LONGEST = 20


def read_report(given: Any) -> dict[str, Any]:
    """The columns of what a robot's controller reports with a frame.

    Raises ValueError for what is no such report, naming the entry.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"the report is a {type(given).__name__}: expected a map of {', '.join(REPORT)}")
    found: dict[str, Any] = {}
    for name, value in given.items():
        kind = REPORT.get(name) if isinstance(name, str) else None
        if kind is float and isinstance(value, float | int) and np.isfinite(value):
            found[name] = float(value)
        elif kind is str and isinstance(value, str) and len(value) <= _LONGEST:
            found[name] = value
        elif kind is list and isinstance(value, list) and len(value) <= _WORDS and all(map(_is_word, value)):
            found[name] = " ".join(value)
        else:
            raise ValueError(
                f"{str(name)[:40]} of the report is {str(value)[:40]!r}: expected mode (text), limits (a list of "
                "kinds), clipped, plan_ms and late_ms (finite numbers)"
            )
    return found


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST
