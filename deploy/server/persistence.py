"""Sessions on disk: whose they are, and the memory of their episode, written when the memory is written and not else.

One folder a session: `session.json` (owner, episode, token's hash; replaced when an episode begins) and
`memory.journal` (`vlamem.memory.designs.aura.journal`, two slots). A record carries the number of the episode that it
belongs to, so the memory of one episode is never taken for another's, whenever the power went.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vlamem.core.locks import sole
from vlamem.core.tensors import write_tensors
from vlamem.memory.designs.aura.journal import SLOT, StateJournal

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_EMPTY = np.zeros(0, np.float32)


class StateError(ValueError):
    """A stored session that does not exist, is damaged or belongs to something else; the message names both."""


@dataclass(frozen=True)
class Owner:
    """What a stored memory belongs to.

    Attributes:
        policy: name of the frozen policy.
        fingerprint: of its spec.
        normaliser: hash of its normaliser.
        memory: hash of the memory's weights, "none" without one.
        layout: name, dtype and shape of each array of the memory's state.
        version: of this format.
    """

    policy: str
    fingerprint: str
    normaliser: str
    memory: str
    layout: str
    version: int = FORMAT

    def check(self, other: "Owner", where: str) -> None:
        """Raises StateError naming the first field in which what is stored at `where` (self) differs from `other`."""
        for name, mine in asdict(self).items():
            theirs = getattr(other, name)
            if mine != theirs:
                raise StateError(
                    f"{where} belongs to {name} {mine!r}, this server has {theirs!r}: serve the policy and memory that "
                    "wrote it, or begin a new session"
                )


@dataclass(frozen=True)
class StoredSession:
    """What is known of a session.

    Attributes:
        name: of the session.
        owner: of its memory.
        token: SHA-256 of the token that resumes it.
        episode: number of its episode, 1 for the first; 0 before it.
        saved: time of the last change of this record [s since 1970].
        ended: whether that episode is over.
    """

    name: str
    owner: Owner
    token: str
    episode: int
    saved: float
    ended: bool = False


def check_name(name: object) -> str:
    """`name`, when it may be the name of a session (and so of a folder). Raises StateError otherwise."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise StateError(f"session {str(name)[:80]!r}: expected 1 to 64 letters, digits, '_', '-' or '.'")
    return name


def layout_of(state: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The layout of a memory's state in one line."""
    return " ".join(f"{k}:{v.dtype.str}:{'x'.join(map(str, v.shape))}" for k, v in sorted(state.items()))


def template_of(layout: str) -> dict[str, np.ndarray[Any, Any]]:
    """An empty state of a layout, the reverse of `layout_of`. Raises StateError for text that is none."""
    found = {}
    for word in layout.split():
        name, _, rest = word.partition(":")
        kind, _, shape = rest.partition(":")
        if kind != "<f4" or not name:
            raise StateError(f"memory layout {word[:80]!r} is not of float32 arrays")
        found[name] = np.zeros([int(n) for n in shape.split("x") if n], np.float32)
    return found


def hash_token(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class SessionStore:
    """Sessions in a folder, all of one owner.

    Args:
        folder: made when missing.
        owner: whom new sessions belong to; sessions of another are refused when they are resumed.
        template: a state of the memory, for its layout; empty when there is none to keep.
        most: sessions kept; beyond it those that were not used for longest go.
        writes: whether it is to change anything, which one process may do at a time; another may look.

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
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = sole(folder / ".lock", str(folder)) if writes else None
        self._journals: dict[str, StateJournal] = {}

    def begin(self, name: str, token: str, episode: int, ended: bool = False) -> StoredSession:
        """A session, or a new episode of one: on disk when this returns, and every memory before it void.

        `token` is the hash that `hash_token` gives; `ended` marks the episode that runs as over. Raises OSError on a
        full disk; a session that was not there before is not there then either.
        """
        session = StoredSession(check_name(name), self.owner, token, episode, time.time(), ended)
        place = self.folder / name
        if place.is_dir():
            _write_record(place / "session.json", session)
            return session
        self._make_room()
        place.mkdir()
        try:
            _write_record(place / "session.json", session)
            sync_folder(self.folder)
        except OSError:
            shutil.rmtree(place)
            raise
        return session

    def persist(self, session: StoredSession, step: int, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Makes `state` what is recovered; on the medium when this returns."""
        flat = np.concatenate([np.asarray(state[name], np.float32).ravel() for name in self._template])
        self._journal(session.name).persist(flat, _EMPTY, (session.episode << 32) | (step + 1))

    def recover(self, name: str) -> tuple[StoredSession, dict[str, np.ndarray[Any, Any]], int]:
        """The session, the memory of its episode (empty when nothing was written in it) and the step of its last write.

        The step is -1 when nothing was written. Raises StateError when it does not exist, is damaged or another's.
        """
        session = read_record(self.folder / check_name(name))
        session.owner.check(self.owner, f"session '{name}'")
        blank = {k: np.zeros_like(v) for k, v in self._template.items()}
        if not self._bytes or not (self.folder / name / "memory.journal").exists():
            return session, blank, -1
        flat = np.zeros(self._bytes // 4, np.float32)
        tick = self._journal(name).recover(flat, _EMPTY)
        if tick is None or tick >> 32 != session.episode:
            return session, blank, -1
        at, state = 0, {}
        for key, like in self._template.items():
            state[key] = flat[at : at + like.size].reshape(like.shape).copy()
            at += like.size
        return session, state, (tick & 0xFFFFFFFF) - 1

    def has(self, name: str) -> bool:
        """Whether there is such a session."""
        return (self.folder / check_name(name) / "session.json").exists()

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

    def forget(self, name: str) -> None:
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
            self._journals[name] = StateJournal(self.folder / name / "memory.journal", self._bytes)
        return self._journals[name]

    def _make_room(self) -> None:
        found = sorted(self.folder.glob("*/session.json"), key=lambda p: p.stat().st_mtime)
        for record in found[: max(0, len(found) - self._most + 1)]:
            if record.parent.name not in self._journals:
                self.forget(record.parent.name)


def _write_record(path: Path, session: StoredSession) -> None:
    text = json.dumps(asdict(session), indent=1, sort_keys=True)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the medium."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(place: Path) -> StoredSession:
    """The record of the session stored in a folder. Raises StateError when there is none or it is damaged."""
    path = place / "session.json"
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return StoredSession(**(body | {"owner": Owner(**body["owner"])}))
    except FileNotFoundError as error:
        raise StateError(f"there is no session '{place.name}' in {place.parent}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"{path} is damaged ({error}): remove the folder of this session") from error


def export_session(store: SessionStore, name: str, path: Path) -> StoredSession:
    """Writes a stored session to one safetensors file. Raises OSError, e.g. on a full disk."""
    session, state, step = store.recover(name)
    record = json.dumps(asdict(session) | {"step": step}, sort_keys=True)
    write_tensors(path, {k: np.ascontiguousarray(v) for k, v in state.items()}, {"vlamem_session": record})
    return session


def import_session(store: SessionStore, path: Path, name: str | None = None) -> StoredSession:
    """Puts an exported session into a store, under its own name or another; its token stays.

    Raises StateError when the file is none, belongs to another owner, or the name is taken.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("vlamem_session")
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except SafetensorError as error:
        raise StateError(f"{path} is not a safetensors file ({error}): export the session again") from error
    if text is None:
        raise StateError(f"{path} is not an exported session: write one with 'vlamem state export'")
    body = json.loads(text)
    step = int(body.pop("step"))
    session = StoredSession(**(body | {"owner": Owner(**body["owner"])}))
    session.owner.check(store.owner, str(path))
    session = replace(session, name=check_name(name or session.name), saved=time.time())
    if store.has(session.name):
        raise StateError(f"session '{session.name}' exists: import it under another --name, or remove that one")
    (store.folder / session.name).mkdir()
    _write_record(store.folder / session.name / "session.json", session)
    if step >= 0:
        store.persist(session, step, state)
    store.release(session.name)
    return session
