"""Traces of episodes (what the policy saw, planned and the robot executed), on disk for a label that comes later."""

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
"""Suffix of an episode whose label was processed."""
_RECORD = WireLimits(bytes=4 << 20)


class TraceStore:
    """Traces of the episodes of sessions, one file an episode; what is written survives the end of the process.

    A trace whose label was processed stays, for a label that corrects it, until the session's next episode is over.

    Each session has its own quota: half of it is for the episode that runs, which is truncated there, and half for
    those that ended and wait for a label, at most `most` of them. The oldest of these are removed first, also where all
    sessions together exceed their quota; an episode that runs is never removed.

    Files are not synced: a label that comes after power loss may find a trace without its last seconds.

    Args:
        folder: made when missing.
        session_bytes: quota of one session.
        total_bytes: quota of all sessions.
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

    def begin(self, session: str, episode: int, keep: frozenset[tuple[str, int]] = frozenset()) -> None:
        """Makes room for an episode, which runs from now on; the one before of this session has ended.

        Episodes in `keep` stay: a label of theirs is still to be processed.
        """
        with self._lock:
            self._begin(session, episode, keep)

    def resume(self, session: str, episode: int) -> None:
        """An episode goes on after a restart: it makes no room for others."""
        self._running[session] = episode

    def _begin(self, session: str, episode: int, keep: frozenset[tuple[str, int]]) -> None:
        self._running[session] = episode
        for suffix in (_TRACE, _LABELLED):
            self.path(session, episode).with_suffix(suffix).unlink(missing_ok=True)
        running = {self.path(*each) for each in list(self._running.items())}
        kept = running | {self.path(*each) for each in keep}
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

    def release(self, session: str, keep: frozenset[tuple[str, int]] = frozenset()) -> None:
        """The session has ended: its last trace may be removed, and labelled ones are, except those in `keep`."""
        with self._lock:
            self._running.pop(session, None)
            for trace in _traces(self._folder):
                if trace.labelled and trace.session == session and (session, trace.episode) not in keep:
                    trace.path.unlink(missing_ok=True)

    def is_truncated(self, session: str, episode: int) -> bool:
        """Whether a trace reached its share of the quota, so that nothing more was written."""
        path = self.path(session, episode)
        return path.exists() and path.stat().st_size >= self._half

    def record_plan(
        self,
        session: str,
        episode: int,
        step: int,
        instruction: str,
        key: Array,
        proprioception: Array,
        chunk: Array,
        used: Array | None = None,
    ) -> None:
        """The policy planned `chunk` [H, A] at a step, from an observation with this key [K] and proprioception [P].

        `used` are the ids of the stored segments behind it.
        """
        body = {"step": step, "instruction": instruction, "key": key, "proprioception": proprioception, "chunk": chunk}
        if used is not None and len(used):
            body["used"] = used
        self._append(session, episode, body)

    def record_action(self, session: str, episode: int, step: int, action: Array) -> None:
        """The robot executed an action [A] between step - 1 and step."""
        self._append(session, episode, {"step": step, "action": action})

    def read(self, session: str, episode: int) -> Iterator[dict[str, Any]]:
        """The entries of an episode in order; none when it is unknown. Raises LabelError for a file that is damaged."""
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

    def mark_labelled(self, session: str, episode: int) -> None:
        """Its label was processed: the trace stays for a correction, and is the first to be removed."""
        with self._lock:
            path = self.path(session, episode)
            if path.exists():
                path.replace(path.with_suffix(_LABELLED))

    def is_labelled(self, session: str, episode: int) -> bool:
        """Whether a label of it was processed."""
        return self.path(session, episode).suffix == _LABELLED

    def remove(self, session: str, episode: int) -> None:
        """Removes a trace."""
        self.path(session, episode).unlink(missing_ok=True)

    def _append(self, session: str, episode: int, body: dict[str, Any]) -> None:
        """Adds an entry; before the first comes one with an identity that no other episode has or had."""
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
                raise OSError(f"{written} of {len(data)} bytes of a trace were written: the disk is full")


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
