"""One stored session as a safetensors file, to carry its memory to another machine."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.checksums import sealed, unsealed
from vlamem.core.files import sync_folder
from vlamem.core.tensors import TensorsError, read_tensors, write_tensors
from vlamem.deploy.bounds import MOST_EPISODES
from vlamem.deploy.server.session_record import (
    Owner,
    StateError,
    StoredSession,
    check_name,
    layout_of,
    write_record,
)
from vlamem.deploy.server.session_store import SessionStore


def export_session(store: SessionStore, name: str, path: Path) -> StoredSession:
    """Writes a stored session to one safetensors file. Raises OSError, e.g. on a full disk."""
    session, state, step = store.recover(name)
    record = json.dumps(sealed(asdict(session) | {"step": step, "arrays": _hash_of(state)}), sort_keys=True)
    write_tensors(path, state, {"vlamem_session": record})
    return session


def import_session(store: SessionStore, path: Path, name: str | None = None) -> StoredSession:
    """Puts an exported session into a store, under its own name or another; its token stays.

    Raises StateError when the file is none, belongs to another owner, or the name is taken.
    """
    try:
        state, metadata = read_tensors(path)
    except TensorsError as error:
        raise StateError(f"{path} is not a safetensors file ({error}): export the session again") from error
    text = metadata.get("vlamem_session")
    if text is None:
        raise StateError(f"{path} is not an exported session: write one with 'vlamem state export'")
    session, step = _session_of(text, state, path)
    session.owner.check(store.owner, str(path))
    if step >= 0:
        _check_state(state, session.owner, path)
    session = replace(session, name=check_name(name or session.name), saved=time.time())
    if store.has(session.name):
        raise StateError(f"session '{session.name}' exists: import it under another --name, or remove that one")
    try:
        write_record(store.folder / session.name, session)
        sync_folder(store.folder)
        if step >= 0:
            store.persist(session, step, state)
        store.release(session.name)
    except BaseException:
        store.remove(session.name)  # no half of it stays
        raise
    return session


def _hash_of(state: Mapping[str, np.ndarray[Any, Any]]) -> str:
    found = hashlib.sha256(layout_of(state).encode())
    for name in sorted(state):
        found.update(np.ascontiguousarray(state[name]).tobytes())
    return found.hexdigest()


def _session_of(text: str, state: Mapping[str, np.ndarray[Any, Any]], path: Path) -> tuple[StoredSession, int]:
    try:
        body = unsealed(json.loads(text))
        step = body.pop("step")
        if body.pop("arrays", None) not in (None, _hash_of(state)):  # None: of version 0.1
            raise ValueError("its arrays are not those that were exported")
        session = StoredSession(**(body | {"owner": Owner(**body["owner"])}))
        sound = type(step) is int and -1 <= step <= MOST_EPISODES and 0 <= session.episode <= MOST_EPISODES
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError(f"{path} holds a damaged session ({error}): export it again") from error
    if not sound:
        raise StateError(f"{path} holds step {step!r} of episode {session.episode!r}, which no session has")
    return session, step


def _check_state(state: dict[str, np.ndarray[Any, Any]], owner: Owner, path: Path) -> None:
    if layout_of(state) != owner.layout:
        raise StateError(
            f"{path} holds a memory of {layout_of(state)}, its session says {owner.layout}: export it again"
        )
    for name, array in state.items():
        if not np.isfinite(array).all():
            raise StateError(f"'{name}' of {path} is not finite: a memory with it would plan nothing that can be sent")
