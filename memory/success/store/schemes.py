"""Which store an address means: `sqlite:PATH`, or a path alone; another database is one file here and one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlamem.core.registry import Registry
from vlamem.memory.success.store.interface import SuccessStore

if TYPE_CHECKING:
    from vlamem.memory.success.store.salvage import Salvaged

_DEFAULT = "sqlite"
SCHEMES: Registry[Callable[[str, float, bool], SuccessStore]] = Registry(
    "store scheme",
    {
        "sqlite": "vlamem.memory.success.store.sqlite:SqliteStore",
    },
)
"""Classes of stores, made with (location, wait_s, read_only)."""
SALVAGERS: Registry[Callable[[str, Path], "Salvaged"]] = Registry(
    "salvage from a store of scheme",
    {
        "sqlite": "vlamem.memory.success.store.salvage:salvage",
    },
)
"""Functions (location, new SQLite file) -> Salvaged, for databases that can be read in part."""


def split_address(address: str | Path) -> tuple[str, str]:
    """Scheme and location of an address; a path may hold colons. Raises ValueError for `unknown://...`."""
    text = str(address)
    scheme, colon, location = text.partition(":")
    if colon and scheme in SCHEMES:
        return scheme, location
    if re.match(r"[a-z][a-z0-9+.-]*:/", text):  # pathlib makes one slash of two
        SCHEMES.get(scheme)
    return _DEFAULT, text


def open_store(address: str | Path, wait_s: float = 10.0, read_only: bool = False) -> SuccessStore:
    """Opens a store, made when missing unless `read_only`.

    Args:
        address: `sqlite:PATH` or a path.
        wait_s: how long a write waits for another process [s].
        read_only: nothing is written, not even a migration.

    Raises ValueError for an unknown scheme, and what the store raises at opening: StoreError for what is no success
    memory or comes from a newer version, StoreDamagedError for what cannot be read.
    """
    scheme, location = split_address(address)
    return SCHEMES.get(scheme)(location, wait_s, read_only)
