"""Sessions on disk: their records, and the memory of their episode, written when the gate writes and not else.

One folder a session: `session.json` (owner, episode, token's hash; replaced when an episode begins) and
`memory.journal` (`vlamem.memory.designs.aura.journal`, two slots). A journal entry carries the number of the episode
that it belongs to, so the memory of one episode is never taken for another's, whenever the power went.
"""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.files import make_folder, sync_folder
from vlamem.core.locks import exclusive_lock
from vlamem.deploy.server.session_record import (
    IN_USE,
    Fence,
    Owner,
    StateError,
    StoredSession,
    check_name,
    has_record,
    layout_of,
    read_record,
    stored_sessions,
    write_record,
)
from vlamem.memory.designs.aura.journal import SLOT, StateJournal

log = logging.getLogger("vlamem.serve")
_EMPTY = np.zeros(0, np.float32)
_JOURNAL = "memory.journal"
_KEPT_S = 30 * 24 * 3600.0
"""A session that was used within it is never removed for another."""


class SessionsFullError(StateError):
    """A folder that holds as many sessions as it may, all of them in use; the message says what to do."""


class SessionStore:
    """Sessions in a folder, all of one owner.

    Args:
        folder: made when missing.
        owner: that new sessions belong to; sessions of another are refused when they are resumed.
        template: a state of the memory, for its layout; empty when there is none to keep.
        most: sessions kept; beyond it those without an episode, and those unused for 30 days, are removed for new ones.
        writes: whether it may change anything, which one process may do at a time; others may read.

    Raises StateError for a memory whose state a journal cannot hold, InUseError for a folder that another writes to.
    """

    def __init__(
        self,
        folder: Path,
        owner: Owner,
        template: Mapping[str, np.ndarray[Any, Any]],
        most: int = 256,
        writes: bool = True,
    ) -> None:
        self.folder, self.owner, self._most = folder, owner, most
        self._template = {name: np.asarray(template[name]) for name in sorted(template)}
        self._bytes = sum(x.nbytes for x in self._template.values())
        if any(x.dtype != np.float32 for x in self._template.values()) or self._bytes > SLOT - 64:
            raise StateError(
                f"a memory of {layout_of(template)} cannot be kept: expected float32 arrays of at most {SLOT - 64} "
                "bytes; serve without --state"
            )
        make_folder(folder)
        self._lock = exclusive_lock(folder / ".lock", str(folder), IN_USE) if writes else None
        self._journals: dict[str, StateJournal] = {}
        if writes:
            self._remove_half_made()

    def _remove_half_made(self) -> None:
        """Removes what a crash left of sessions that never had a record."""
        for place in self.folder.iterdir():
            if place.is_dir() and not has_record(place) and not (place / _JOURNAL).exists():
                shutil.rmtree(place, ignore_errors=True)

    def begin(
        self,
        name: str,
        token: str,
        episode: int,
        ended: bool = False,
        fence: Fence = (0, ""),
        saved: float | None = None,
    ) -> StoredSession:
        """A session, or a new episode of one: on disk when this returns, and every memory before it void.

        `token` is the hash that `hash_token` gives; `ended` marks the episode that runs as over, `fence` says which
        controller drives it; `saved` is the record's time where only that changes. Raises OSError on a full disk,
        SessionsFullError where all sessions are in use; a session that was not there before is not there then either.
        """
        self.check_lock()
        session = StoredSession(
            check_name(name), self.owner, token, episode, time.time() if saved is None else saved, ended, *fence
        )
        place = self.folder / name
        if has_record(place):
            write_record(place, session)
            return session
        self._make_room()
        place.mkdir(exist_ok=True)
        try:
            (place / _JOURNAL).unlink(missing_ok=True)  # of a session of this name whose record is gone
            write_record(place, session)
            sync_folder(self.folder)
        except OSError:
            shutil.rmtree(place)
            raise
        return session

    def persist(self, session: StoredSession, step: int, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Makes `state` what is recovered; on the medium when this returns."""
        self.check_lock()
        flat = np.concatenate([np.asarray(state[name], np.float32).ravel() for name in self._template])
        self._journal(session.name).persist(flat, _EMPTY, (session.episode << 32) | (step + 1))

    def recover(self, name: str) -> tuple[StoredSession, dict[str, np.ndarray[Any, Any]], int]:
        """The session, the memory of its episode (empty when nothing was written in it) and the step of its last write.

        The step is -1 when nothing was written. Raises StateError when it does not exist, is damaged or another's.
        """
        session = read_record(self.folder / check_name(name))
        session.owner.check(self.owner, f"session '{name}'")
        blank = {k: np.zeros_like(v) for k, v in self._template.items()}
        if not self._bytes or not (self.folder / name / _JOURNAL).exists():
            return session, blank, -1
        flat = np.zeros(self._bytes // 4, np.float32)
        # not the journal of `persist`: that may be closed, by a session that ends, while this reads
        journal = StateJournal(self.folder / name / _JOURNAL, self._bytes)
        try:
            tick = journal.recover(flat, _EMPTY)
        finally:
            journal.close()
        if tick is None and journal.damaged:
            path = journal.path
            log.warning("%s holds no whole state, session %s has an empty memory: begin another episode", path, name)
        if tick is None or tick >> 32 != session.episode:
            return session, blank, -1
        at, state = 0, {}
        for key, like in self._template.items():
            state[key] = flat[at : at + like.size].reshape(like.shape).copy()
            at += like.size
        return session, state, (tick & 0xFFFFFFFF) - 1

    def check_lock(self) -> None:
        """Raises InUseError where another process may write to the folder."""
        if self._lock is not None:
            self._lock.check()

    def has(self, name: str) -> bool:
        """Whether there is such a session."""
        return has_record(self.folder / check_name(name))

    def runs(self, name: str, episode: int) -> bool:
        """Whether this episode of a session has begun and is not over."""
        try:
            session = read_record(self.folder / check_name(name))
        except StateError:
            return False
        return session.episode == episode and not session.ended

    def release(self, name: str) -> None:
        """Closes the session's file; what is on disk stays."""
        journal = self._journals.pop(name, None)
        if journal is not None:
            journal.close()

    def remove(self, name: str) -> None:
        """Removes a session from disk."""
        self.release(name)
        shutil.rmtree(self.folder / check_name(name), ignore_errors=True)

    def close(self) -> None:
        """Closes every file."""
        for name in list(self._journals):
            self.release(name)
        if self._lock is not None:
            self._lock.release()

    def _journal(self, name: str) -> StateJournal:
        if name not in self._journals:
            self._journals[name] = StateJournal(self.folder / name / _JOURNAL, self._bytes)
        return self._journals[name]

    def _make_room(self) -> None:
        found = stored_sessions(self.folder)
        over = len(found) - self._most + 1
        for place in found if over > 0 else ():
            if over > 0 and place.name not in self._journals and self._is_unused(place):
                self.remove(place.name)
                over -= 1
        if over > 0:
            raise SessionsFullError(
                f"{self.folder} holds {len(found)} sessions, all of them used within 30 days: remove the folders of "
                "those that are not needed, or give another --state"
            )

    def _is_unused(self, place: Path) -> bool:
        try:
            record = read_record(place)
        except StateError:
            return False  # damaged: for an operator to look at
        return record.episode == 0 or time.time() - record.saved > _KEPT_S
