"""Traces of episodes (what the policy saw, planned and the robot executed), on disk for a label that comes later."""

import contextlib
import logging
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.deploy.server.labels import LabelError
from vlamem.deploy.wire import WireError, WireLimits, pack, unpack

log = logging.getLogger("vlamem.serve")
Array = np.ndarray[Any, Any]
_BLOCK = 4096
"""What a small file takes on disk [bytes]."""
_LENGTH = struct.Struct("<I")
_TRACE = ".trace"
_LABELLED = ".labelled"
"""Suffix of an episode whose label was processed."""
_FIRST = 512
"""The first entry is shorter."""
_RECORD = WireLimits(bytes=4 << 20)


class TraceStore:
    """Traces of the episodes of sessions, one file an episode; what is written survives the end of the process.

    A trace whose label was processed stays, for a label that corrects it, until the session's next episode is over.

    Each session has its own quota: half of it is for the episode that runs, which is truncated there, and half for
    those that ended and wait for a label, at most `most` of them. The oldest of these are removed first, also where all
    sessions together exceed their quota; an episode that runs is never removed. Those whose label is still to be
    processed stay, and count: where they alone take a session's half, or all of the quota of all, no further episode
    of it is recorded.

    Attributes:
        pinned_bytes: of episodes whose label was still to be processed when an episode began last.

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
        self._checked: dict[str, tuple[int, bool]] = {}
        self._lock, self._unrecorded, self.pinned_bytes = threading.Lock(), set[str](), 0
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
        pinned = {self.path(*each) for each in keep} - running
        found = [trace for trace in _traces(self._folder) if trace.path not in running]
        ended = [trace for trace in found if trace.path not in pinned]
        waiting = [trace for trace in found if trace.path in pinned]
        mine = [trace.bytes for trace in waiting if trace.session == session]
        count, own, all_ = len(mine), sum(mine), sum(trace.bytes for trace in waiting)
        self.pinned_bytes = all_
        self._unrecorded.discard(session)
        if own >= self._half or all_ >= self._total:
            self._unrecorded.add(session)
            log.warning(
                "episode %d of session %s is not recorded: labels that could not be processed keep %d MB of traces",
                episode, session, all_ >> 20,
            )  # fmt: skip
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
            self._unrecorded.discard(session)
            self._checked.pop(session, None)
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
        offset: Array | None = None,
    ) -> None:
        """The policy planned `chunk` [H, A] at a step, from an observation with this key [K] and proprioception [P].

        `used` are the ids of the stored segments behind it, `offset` [A] is what a residual prior added to its actions.
        """
        body = {"step": step, "instruction": instruction, "key": key, "proprioception": proprioception, "chunk": chunk}
        if used is not None and len(used):
            body["used"] = used
        if offset is not None:
            body["offset"] = offset
        self._append(session, episode, body)

    def record_action(self, session: str, episode: int, step: int, action: Array) -> None:
        """The robot executed an action [A] between step - 1 and step."""
        self._append(session, episode, {"step": step, "action": action})

    def read(self, session: str, episode: int) -> Iterator[dict[str, Any]]:
        """The entries of an episode in order; none when it is unknown. Raises LabelError for a file that is damaged."""
        for entry in self._entries(session, episode):
            yield {name: value for name, value in entry.items() if name != "crc"}

    def _entries(self, session: str, episode: int) -> Iterator[dict[str, Any]]:
        path = self.path(session, episode)
        if not path.exists():
            return
        raw, at, checked = path.read_bytes(), 0, False
        while at < len(raw):
            try:
                data, after = _entry_at(raw, at, checked)
                if data is None and at == 0 and len(raw) > _FIRST:
                    raise ValueError("its first entry is longer than any is")
                if data is None:
                    return  # the process ended while it wrote
                entry = _entry_of(data)
            except (WireError, ValueError) as error:
                raise LabelError(
                    f"{path} is damaged at byte {at} ({error}): nothing of its episode can be kept, remove it"
                ) from error
            checked = checked or "crc" in entry
            yield entry
            at = after

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

    def _is_checked(self, session: str, episode: int) -> bool:
        """Whether entries of an episode carry checksums; those of one that version 0.1 began do not."""
        known = self._checked.get(session)
        if known is None or known[0] != episode:
            with contextlib.suppress(LabelError):
                first = next(self._entries(session, episode), {})
                known = self._checked[session] = episode, "crc" in first
        return known is None or known[0] != episode or known[1]

    def _append(self, session: str, episode: int, body: dict[str, Any]) -> None:
        """Adds an entry; before the first comes one with an identity that no other episode has or had."""
        with self._lock:
            if session not in self._unrecorded:
                self._write(session, episode, body)

    def _write(self, session: str, episode: int, body: dict[str, Any]) -> None:
        with self.path(session, episode).open("ab", buffering=0) as file:
            at = file.tell()
            if at >= self._half:
                return
            if at == 0:
                identity = f"{session}/{episode}/{secrets.token_hex(8)}"
                data = _entry({"identity": identity, "crc": zlib.crc32(identity.encode())}, checked=False)
                data += _entry(body, checked=True)
                self._checked[session] = episode, True
            else:
                data = _entry(body, self._is_checked(session, episode))
            written = file.write(data)
            if written != len(data):
                file.truncate(at)
                raise OSError(f"{written} of {len(data)} bytes of a trace were written: the disk is full")


_ENTRIES = {"identity", "crc", "step", "action", "instruction", "key", "proprioception", "chunk", "used", "offset"}


def _entry(body: dict[str, Any], checked: bool) -> bytes:
    """An entry with its length; `checked`: and with a checksum behind each of the two."""
    data = pack(body)
    length = _LENGTH.pack(len(data))
    if not checked:
        return length + data
    return length + _LENGTH.pack(zlib.crc32(length)) + data + _LENGTH.pack(zlib.crc32(data))


def _entry_at(raw: bytes, at: int, checked: bool) -> tuple[bytes | None, int]:
    """The bytes of the entry at `at` and where the next begins; None for one that was cut short.

    Raises ValueError for one whose checksums are others.
    """
    head = _LENGTH.size * (2 if checked else 1)
    if at + head > len(raw):
        return None, at
    length = raw[at : at + _LENGTH.size]
    if checked and zlib.crc32(length) != _LENGTH.unpack_from(raw, at + _LENGTH.size)[0]:
        raise ValueError("the checksum of its length is another")
    end = at + head + _LENGTH.unpack(length)[0]
    after = end + (_LENGTH.size if checked else 0)
    if after > len(raw):
        return None, at
    data = raw[at + head : end]
    if checked and zlib.crc32(data) != _LENGTH.unpack_from(raw, end)[0]:
        raise ValueError("its checksum is another")
    return data, after


def _entry_of(data: bytes) -> dict[str, Any]:
    entry = unpack(data, _RECORD)
    if not isinstance(entry, dict) or not entry.keys() <= _ENTRIES:
        raise ValueError("it is no entry of a trace")
    if "crc" in entry and entry["crc"] != zlib.crc32(str(entry.get("identity")).encode()):
        raise ValueError("its identity is another")
    return entry


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
