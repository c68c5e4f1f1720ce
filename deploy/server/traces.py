"""What happens in the episodes of sessions, on disk while they run, so that a label that comes later finds it."""

import contextlib
import secrets
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.deploy.server.labels import LabelError
from vlamem.deploy.wire import WireError, WireLimits, pack, unpack

Array = np.ndarray[Any, Any]
_BLOCK = 4096
"""What a small file takes on disk [bytes]."""
_LENGTH = struct.Struct("<I")
_TRACE = ".trace"
_LABELLED = ".labelled"
"""Behind the name of an episode whose label was carried out."""
_RECORD = WireLimits(bytes=4 << 20)


class Spool:
    """What happens in the episodes of sessions, one file an episode; what is written survives the end of the process.

    One whose label was carried out stays, for a label that corrects it, until the session's next episode is over.

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
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, session: str, episode: int) -> Path:
        """The file of an episode."""
        trace = self._folder / f"{session}-{episode:08d}{_TRACE}"
        labelled = trace.with_suffix(_LABELLED)
        return labelled if labelled.exists() else trace

    def begin(self, session: str, episode: int, wanted: frozenset[tuple[str, int]] = frozenset()) -> None:
        """Makes room for an episode, which runs from now on; the one before of this session has ended.

        Those that are `wanted`, since a label of theirs is not carried out, stay.
        """
        with self._lock:
            self._begin(session, episode, wanted)

    def resume(self, session: str, episode: int) -> None:
        """An episode goes on after a restart: it makes no room for others."""
        self._running[session] = episode

    def _begin(self, session: str, episode: int, wanted: frozenset[tuple[str, int]]) -> None:
        self._running[session] = episode
        for suffix in (_TRACE, _LABELLED):
            self.path(session, episode).with_suffix(suffix).unlink(missing_ok=True)
        running = {self.path(*each) for each in list(self._running.items())}
        kept = running | {self.path(*each) for each in wanted}
        ended = [trace for trace in _traces(self._folder) if trace.path not in kept]
        count, own, all_ = 0, 0, 0
        for trace in sorted(ended, key=lambda trace: (not trace.labelled, trace.changed), reverse=True):
            if trace.labelled and trace.session == session and trace.episode != episode - 1:
                trace.path.unlink(missing_ok=True)
                continue
            all_ += trace.bytes
            if trace.session == session:
                count, own = count + 1, own + trace.bytes
            if all_ > self._total or (trace.session == session and (count > self._most or own > self._half)):
                trace.path.unlink(missing_ok=True)

    def release(self, session: str, wanted: frozenset[tuple[str, int]] = frozenset()) -> None:
        """The session has ended: its last episode may make room for others, and no label corrects another any more."""
        with self._lock:
            self._running.pop(session, None)
            for trace in _traces(self._folder):
                if trace.labelled and trace.session == session and (session, trace.episode) not in wanted:
                    trace.path.unlink(missing_ok=True)

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

    def settle(self, session: str, episode: int) -> None:
        """Its label was carried out: it stays for a correction, and is the first to make room."""
        with self._lock:
            path = self.path(session, episode)
            if path.exists():
                path.replace(path.with_suffix(_LABELLED))

    def settled(self, session: str, episode: int) -> bool:
        """Whether a label of it was carried out."""
        return self.path(session, episode).suffix == _LABELLED

    def forget(self, session: str, episode: int) -> None:
        """Removes an episode."""
        self.path(session, episode).unlink(missing_ok=True)

    def _append(self, session: str, episode: int, body: dict[str, Any]) -> None:
        """Adds an entry; the first gives the episode a name that no other has or had, whatever their sessions are."""
        data = _entry(body)
        with self._lock, self.path(session, episode).open("ab", buffering=0) as file:
            at = file.tell()
            if at >= self._half:
                return
            if at == 0:
                data = _entry({"identity": f"{session}/{episode}/{secrets.token_hex(8)}"}) + data
            written = file.write(data)
            if written != len(data):
                file.truncate(at)
                raise OSError(f"{written} of {len(data)} bytes of an episode were written: the disk is full")


def _entry(body: dict[str, Any]) -> bytes:
    data = pack(body)
    return _LENGTH.pack(len(data)) + data


@dataclass(frozen=True)
class _Trace:
    path: Path
    session: str
    episode: int
    labelled: bool
    bytes: int
    changed: int


def _traces(folder: Path) -> Iterator[_Trace]:
    for path in (*folder.glob(f"*{_TRACE}"), *folder.glob(f"*{_LABELLED}")):
        with contextlib.suppress(FileNotFoundError):  # it was labelled meanwhile
            about = path.stat()
            session, _, episode = path.stem.rpartition("-")
            bytes_ = max(about.st_size, _BLOCK)
            yield _Trace(path, session, int(episode), path.suffix == _LABELLED, bytes_, about.st_mtime_ns)
