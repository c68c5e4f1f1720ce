"""One stored session as a safetensors file, to carry its memory to another machine."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vlamem.core.files import sync_folder
from vlamem.core.tensors import write_tensors
from vlamem.deploy.server.session_record import Owner, StateError, StoredSession, check_name, write_record
from vlamem.deploy.server.session_store import SessionStore


def export_session(store: SessionStore, name: str, path: Path) -> StoredSession:
    """Writes a stored session to one safetensors file. Raises OSError, e.g. on a full disk."""
    session, state, step = store.recover(name)
    record = json.dumps(asdict(session) | {"step": step}, sort_keys=True)
    write_tensors(path, state, {"vlamem_session": record})
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
    write_record(store.folder / session.name, session)
    sync_folder(store.folder)
    if step >= 0:
        store.persist(session, step, state)
    store.release(session.name)
    return session
