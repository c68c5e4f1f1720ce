"""Memory that outlives power loss: the state on disk at every write and only then.

The file holds two slots used in turn. A record is written into the slot that does not hold the newest one, then
synced: a crash in the middle spoils that slot alone, its checksum says so, and the other slot still holds the state
before. Space is constant, and a tick that writes no memory writes no byte.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]

_MAGIC = b"AURA0001"
_HEAD = struct.Struct("<8sQQII")  # magic, sequence number, tick, payload bytes, checksum of all else
SLOT = 8192
"""Bytes between the two slots: whole pages, so that no page is shared between them."""


class JournalError(ValueError):
    """A journal that holds no state of this size; the message names the file."""


class StateJournal:
    """The newest state of one row in a file, durable when `persist` returns.

    Attributes:
        damaged: slots that hold something and no whole record, when they were read last; a write that a crash cut short
            leaves one, too.

    Args:
        path: of the journal; made when missing.
        state_bytes: of a state, at most SLOT less the record's head.

    Raises JournalError when the file holds states of another size, ValueError for a state too large.
    """

    def __init__(self, path: Path, state_bytes: int = 4224) -> None:
        if not 0 < state_bytes <= SLOT - _HEAD.size:
            raise ValueError(f"a state of {state_bytes} bytes does not fit a slot of {SLOT - _HEAD.size}")
        self.path, self.state_bytes = path, state_bytes
        fresh = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if fresh:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # else the file itself may be gone after power loss
            finally:
                os.close(folder)
        self.damaged = 0
        found = self._newest()
        self.sequence = 0 if found is None else found[0]

    def persist(self, W: Array, b: Array, tick: int) -> None:
        """Makes (W, b) the state to recover; on the medium when this returns. Raises OSError when it cannot be."""
        payload = W.tobytes() + b.tobytes()
        if len(payload) != self.state_bytes:
            raise ValueError(f"a state of {len(payload)} bytes does not fit a journal of {self.state_bytes}")
        sequence = self.sequence + 1
        head = _HEAD.pack(_MAGIC, sequence, tick, len(payload), 0)
        record = _HEAD.pack(_MAGIC, sequence, tick, len(payload), zlib.crc32(head + payload)) + payload
        written = os.pwrite(self._file, record, SLOT * (sequence % 2))
        if written != len(record):
            raise OSError(f"{self.path}: {written} of {len(record)} bytes written; the state before it stays")
        os.fdatasync(self._file)
        self.sequence = sequence

    def recover(self, W: Array, b: Array) -> int | None:
        """Fills W and b with the last persisted state and returns its tick; None when nothing was ever persisted."""
        found = self._newest()
        if found is None:
            return None
        _, tick, payload = found
        if W.nbytes + b.nbytes != len(payload):
            raise JournalError(f"{self.path} holds states of {len(payload)} bytes, not {W.nbytes + b.nbytes}")
        W[...] = np.frombuffer(payload, np.float32, W.size).reshape(W.shape)
        b[...] = np.frombuffer(payload, np.float32, b.size, W.nbytes)
        return tick

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _newest(self) -> tuple[int, int, bytes] | None:
        """Sequence number, tick and payload of the newest whole record."""
        best, self.damaged = None, 0
        for slot in (0, 1):
            raw = os.pread(self._file, SLOT, SLOT * slot)
            if len(raw) < _HEAD.size or raw[:8] != _MAGIC:
                self.damaged += any(raw)
                continue
            magic, sequence, tick, size, checksum = _HEAD.unpack_from(raw)
            payload = raw[_HEAD.size : _HEAD.size + size]
            if zlib.crc32(_HEAD.pack(magic, sequence, tick, size, 0) + payload) != checksum:
                self.damaged += 1
                continue
            if size != self.state_bytes:
                raise JournalError(f"{self.path} holds states of {size} bytes, not {self.state_bytes}")
            if best is None or sequence > best[0]:
                best = (sequence, tick, payload)
        return best
