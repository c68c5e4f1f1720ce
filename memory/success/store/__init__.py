"""Stores of success memories: one interface, a scheme for each database, snapshots to carry between them."""

from vlamem.memory.success.store.errors import (
    StoreBusyError,
    StoreChangedError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
)
from vlamem.memory.success.store.interface import SuccessStore, UndoingStore
from vlamem.memory.success.store.schemes import SALVAGERS, SCHEMES, open_store, split_address
from vlamem.memory.success.store.snapshot import export, import_snapshot, read_snapshot

__all__ = [
    "SALVAGERS",
    "SCHEMES",
    "StoreBusyError",
    "StoreChangedError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "SuccessStore",
    "UndoingStore",
    "export",
    "import_snapshot",
    "open_store",
    "read_snapshot",
    "split_address",
]
