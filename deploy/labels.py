"""Labels of episodes: on disk before they are acknowledged, and carried out off the control loop, once each.

`labels.jsonl` has a line for each label and a line for each that was carried out; what a crash leaves undone is done at
the next start. A label of an episode that still runs is held until that is over, so that it finds all of it. What an
episode consisted of is spooled to a file of its own while it runs, so that a label that comes after a restart finds it.
"""

import contextlib
import json
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vlamem.deploy.persistence import sync_folder
from vlamem.deploy.sole import sole
from vlamem.deploy.wire import WireError, WireLimits, pack, unpack
from vlamem.memory.success.memory import SuccessMemory
from vlamem.memory.success.recorder import EpisodeRecorder
from vlamem.memory.success.verify import OperatorVerifier, Verifier

Outcome = Literal["success", "failure", "unsaid"]
"""unsaid: nobody labelled the episode before the next one began, and the server's verifier is asked."""
Array = np.ndarray[Any, Any]
_BLOCK = 4096
"""What a small file takes on disk [bytes]."""
_LENGTH = struct.Struct("<I")
_RECORD = WireLimits(bytes=4 << 20)


class LabelError(ValueError):
    """A label that means nothing or cannot be kept; the message says why."""


@dataclass(frozen=True)
class Label:
    """What someone said of an episode.

    Attributes:
        label: its own name; a second label of that name is the same one, sent again.
        session, episode: which episode.
        outcome: see Outcome.
        source: who said it, e.g. "operator".
        made: when [s since 1970].
    """

    label: str
    session: str
    episode: int
    outcome: Outcome
    source: str
    made: float

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise LabelError(f"outcome {self.outcome!r}: expected 'success' or 'failure'")
        if not isinstance(self.label, str) or not 0 < len(self.label) <= 64:
            raise LabelError(f"label id {str(self.label)[:80]!r}: expected 1 to 64 letters")


class LabelDesk:
    """Takes labels, keeps them, and hands each to `carry_out` in a thread of its own.

    `carry_out` returns one line that says what it did; when it raises, the label stays undone and is tried again at the
    next start, and `report` is told. A label whose episode `runs` at the start is held until it is released.

    Attributes:
        taken: labels on disk.
        judges: whether `carry_out` can judge episodes that nobody labelled, so that it is to be given these too.
    """

    def __init__(
        self,
        path: Path,
        carry_out: Callable[[Label], str],
        report: Callable[[str], None] = lambda line: None,
        most: int = 10_000,
        runs: Callable[[Label], bool] = lambda label: False,
        judges: bool = False,
    ) -> None:
        """`most`: names that are remembered; a label that comes again after as many others counts as a new one.

        Raises LabelError for a file that is damaged, InUseError for one that another process has.
        """
        self._carry_out, self._report, self._most, self.judges = carry_out, report, most, judges
        self._lock = sole(path.with_name(f".{path.name}.lock"), str(path))
        self._known, undone, self.taken = _read(path, most)
        self._held = [label for label in undone if runs(label)]
        self._waiting = [label for label in undone if label not in self._held]
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._file).st_size
        sync_folder(path.parent)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="labels", daemon=True)
        self._thread.start()

    def take(self, label: Label, hold: bool = False) -> bool:
        """Keeps a label: on disk when this returns. False for one taken before. Raises OSError on a full disk.

        With `hold` it is carried out when `release` says that its episode is over.
        """
        with self._changed:
            if label.label in self._known:
                return False
            self._append({"label": asdict(label)})
            _remember(self._known, label.label, self._most)
            self.taken += 1
            (self._held if hold else self._waiting).append(label)
            self._changed.notify_all()
            return True

    def release(self, session: str, episode: int) -> None:
        """Episode `episode` of a session is over, and all before it: labels that were held for them are carried out."""
        over = [label for label in self._held if label.session == session and label.episode <= episode]
        if not over:
            return  # without the lock, which is held while a label is written
        with self._changed:
            self._held = [label for label in self._held if label not in over]
            self._waiting += over
            self._changed.notify_all()

    @property
    def held(self) -> frozenset[str]:
        """Sessions with labels that wait for the end of an episode."""
        return frozenset(label.session for label in self._held)

    def settle(self, timeout_s: float) -> bool:
        """Waits until every label that is not held was carried out or reported; False when it took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self) -> None:
        """Ends the thread after the label at hand; the others wait for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        os.close(self._file)
        self._lock.release()

    def _append(self, line: dict[str, Any]) -> None:
        """One line, on the medium when this returns. Raises OSError when it is not: then nothing of it stays."""
        data = (json.dumps(line, sort_keys=True) + "\n").encode()
        os.ftruncate(self._file, self._size)  # cuts what stayed of a line that could not be taken back
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes of a label were written: the disk is full")
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                label = self._waiting[0]
            try:
                said = self._carry_out(label)
                with self._changed:
                    self._append({"done": label.label, "said": said, "at": time.time()})
            except Exception as error:  # whatever the store raises, the next label must have its turn
                self._report(f"label '{label.label}' of {label.session}/{label.episode} stays undone: {error}")
            with self._changed:
                self._waiting.pop(0)
                self._changed.notify_all()


def _remember(names: dict[str, None], name: str, most: int) -> None:
    names[name] = None
    if len(names) > most:
        del names[next(iter(names))]


def _read(path: Path, most: int) -> tuple[dict[str, None], list[Label], int]:
    """The last `most` names, the labels that were not carried out, and how many labels there are.

    A last line cut short was never acknowledged: it is removed.
    """
    known: dict[str, None] = {}
    undone: dict[str, Label] = {}
    whole = taken = 0
    if not path.exists():
        return known, [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                os.truncate(path, whole)
                break
            whole += len(line)
            try:
                body = json.loads(line)
                if "label" in body:
                    label = Label(**body["label"])
                    undone[label.label] = label
                    _remember(known, label.label, most)
                    taken += 1
                else:
                    undone.pop(body["done"], None)
            except (ValueError, KeyError, TypeError) as error:
                raise LabelError(f"{path}, line {number} is no label ({error}): mend or remove that line") from error
    return known, list(undone.values()), taken


class Spool:
    """What happens in the episodes of sessions, one file an episode; what is written survives the end of the process.

    No session takes the room of another: half of its bytes is for the episode that runs, which is cut short there, and
    half for those that ended and wait for a label, `most` of them. What ended first makes room, also where all sessions
    together have more than their bytes; an episode that runs is never removed.

    It is not synced: a label that comes after power loss may find an episode without its last seconds.

    Args:
        folder: made when missing.
        session_bytes: of one session.
        total_bytes: of all sessions.
        most: ended episodes of one session.
    """

    def __init__(
        self, folder: Path, session_bytes: int = 128 << 20, total_bytes: int = 2 << 30, most: int = 64
    ) -> None:
        self._folder, self._half, self._total, self._most = folder, session_bytes // 2, total_bytes, most
        self._running: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, session: str, episode: int) -> Path:
        """The file of an episode."""
        return self._folder / f"{session}-{episode:08d}.trace"

    def begin(self, session: str, episode: int) -> None:
        """Makes room for an episode, which runs from now on; the one before of this session has ended.

        It gets a name that no other episode has or had, whatever their sessions are called.
        """
        self._running[session] = episode
        self.path(session, episode).unlink(missing_ok=True)
        running = {self.path(*each) for each in list(self._running.items())}
        ended = [trace for trace in _traces(self._folder) if trace.path not in running]
        count, own, all_ = 0, 0, 0
        for trace in sorted(ended, key=lambda trace: trace.changed, reverse=True):
            all_ += trace.bytes
            if trace.session == session:
                count, own = count + 1, own + trace.bytes
            if all_ > self._total or (trace.session == session and (count > self._most or own > self._half)):
                trace.path.unlink(missing_ok=True)
        self._append(session, episode, {"identity": f"{session}/{episode}/{secrets.token_hex(8)}"})

    def release(self, session: str) -> None:
        """The session has ended: its last episode may make room for others."""
        self._running.pop(session, None)

    def cut_short(self, session: str, episode: int) -> bool:
        """Whether an episode reached its share of the session's bytes, so that nothing was written after it."""
        path = self.path(session, episode)
        return path.exists() and path.stat().st_size >= self._half

    def asked(
        self, session: str, episode: int, step: int, instruction: str, key: Array, proprioception: Array, chunk: Array
    ) -> None:
        """The policy planned `chunk` at a step from what it saw."""
        body = {"step": step, "instruction": instruction, "key": key, "proprioception": proprioception, "chunk": chunk}
        self._append(session, episode, body)

    def acted(self, session: str, episode: int, step: int, action: Array) -> None:
        """The robot executed an action between step - 1 and step."""
        self._append(session, episode, {"step": step, "action": action})

    def read(self, session: str, episode: int) -> Iterator[dict[str, Any]]:
        """What was written of an episode, in order; nothing when it is unknown."""
        path = self.path(session, episode)
        if not path.exists():
            return
        raw, at = path.read_bytes(), 0
        while at + _LENGTH.size <= len(raw):
            (size,) = _LENGTH.unpack_from(raw, at)
            at += _LENGTH.size
            if at + size > len(raw):
                return  # the process ended while it wrote
            try:
                yield unpack(raw[at : at + size], _RECORD)
            except WireError as error:
                raise LabelError(f"{path} is damaged at byte {at} ({error})") from error
            at += size

    def forget(self, session: str, episode: int) -> None:
        """Removes an episode."""
        self.path(session, episode).unlink(missing_ok=True)

    def _append(self, session: str, episode: int, body: dict[str, Any]) -> None:
        data = pack(body)
        data = _LENGTH.pack(len(data)) + data
        self._running[session] = episode  # also of a session that goes on after a restart
        with self.path(session, episode).open("ab", buffering=0) as file:
            at = file.tell()
            if at >= self._half:
                return
            written = file.write(data)
            if written != len(data):
                file.truncate(at)
                raise OSError(f"{written} of {len(data)} bytes of an episode were written: the disk is full")


@dataclass(frozen=True)
class _Trace:
    path: Path
    session: str
    bytes: int
    changed: int


def _traces(folder: Path) -> Iterator[_Trace]:
    for path in folder.glob("*.trace"):
        with contextlib.suppress(FileNotFoundError):  # it was labelled meanwhile
            about = path.stat()
            yield _Trace(path, path.stem.rpartition("-")[0], max(about.st_size, _BLOCK), about.st_mtime_ns)


def commit_episode(
    memory: SuccessMemory,
    spool: Spool,
    label: Label,
    meaning: Callable[[str], Array] | None = None,
    verifier: Verifier | None = None,
) -> str:
    """Commits a labelled episode to success memory and says what came of it; the spooled episode is removed.

    Where nobody said what it was, `verifier` judges it.
    """
    if spool.cut_short(label.session, label.episode):
        spool.forget(label.session, label.episode)
        return f"nothing of {label.session}/{label.episode} could be kept: it was longer than its share of the disk"
    recorder = EpisodeRecorder(memory.layout)
    identity: str | None = None
    begun = False
    steps = 0
    for entry in spool.read(label.session, label.episode):
        if "identity" in entry:
            identity = entry["identity"]
            continue
        if "action" in entry:
            while begun and steps < entry["step"] - 1:  # a step without word of its action repeats the last
                recorder.act(entry["action"])
                steps += 1
            if begun:
                recorder.act(entry["action"])
                steps += 1
            continue
        if not begun:
            text = entry["instruction"]
            recorder.begin(text, identity, None if meaning is None else meaning(text))
            begun = True
        recorder.observe(entry["key"], entry["proprioception"], entry["chunk"])
    trace = recorder.trace()
    if label.outcome == "unsaid" and verifier is not None:
        verdict = verifier.verify(trace)
    else:
        said_so = {"success": True, "failure": False}.get(label.outcome)
        verdict = OperatorVerifier(name=label.source).verify(trace, said_so)
    episode = recorder.finish(verdict, label.made, trace)
    if episode is None:
        said = f"nothing of {label.session}/{label.episode} could be kept: {len(trace.actions)} actions are known"
    else:
        committed = memory.commit(episode)
        said = f"{len(committed.ids)} segments kept, {committed.merged} merged"
    spool.forget(label.session, label.episode)
    return said
