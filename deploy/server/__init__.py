"""A policy with memory behind a websocket: sessions, batches, labels, traces, and what survives a restart.

`build_server` makes a server from files, `respawn` starts one again when it dies. Names are imported when first used:
the parent that forks servers must not start threads, and reading a stored session needs no server.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.deploy.server.assembly import build_server, load_memory_policy, preload
    from vlamem.deploy.server.batcher import ServedPolicy
    from vlamem.deploy.server.labels import Label, LabelError, LabelQueue
    from vlamem.deploy.server.options import ServeOptions
    from vlamem.deploy.server.policy_server import PolicyServer
    from vlamem.deploy.server.session_export import export_session, import_session
    from vlamem.deploy.server.session_record import Owner, StateError, StoredSession, read_record, template_of
    from vlamem.deploy.server.session_store import SessionStore
    from vlamem.deploy.server.sessions import SessionLimits
    from vlamem.deploy.server.supervisor import Child, respawn
    from vlamem.deploy.server.traces import TraceStore

_MODULES = {
    "Child": "supervisor",
    "Label": "labels",
    "LabelError": "labels",
    "LabelQueue": "labels",
    "Owner": "session_record",
    "PolicyServer": "policy_server",
    "ServeOptions": "options",
    "ServedPolicy": "batcher",
    "SessionLimits": "sessions",
    "SessionStore": "session_store",
    "StateError": "session_record",
    "StoredSession": "session_record",
    "TraceStore": "traces",
    "build_server": "assembly",
    "export_session": "session_export",
    "import_session": "session_export",
    "load_memory_policy": "assembly",
    "preload": "assembly",
    "read_record": "session_record",
    "respawn": "supervisor",
    "template_of": "session_record",
}

__all__ = [
    "Child", "Label", "LabelError", "LabelQueue", "Owner", "PolicyServer", "ServeOptions", "ServedPolicy",
    "SessionLimits", "SessionStore", "StateError", "StoredSession", "TraceStore", "build_server",
    "export_session", "import_session", "load_memory_policy", "preload", "read_record", "respawn", "template_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
