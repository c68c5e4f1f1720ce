"""What can go wrong with a store; the message names the store and the mend."""

SALVAGE = "save what can be read with 'vlamem memory verify --salvage NEW_FILE'"


class StoreError(ValueError):
    """A database that cannot be used as a success memory; the message names the file and the mend."""


class StoreDamagedError(StoreError):
    """A database of which a part cannot be read, or is not what was written."""


class StoreBusyError(OSError):
    """Another process has been writing for longer than `wait_s`. Nothing was stored."""


class StoreFullError(OSError):
    """The disk is full. Nothing was stored, and what was there before is whole."""


class StoreChangedError(RuntimeError):
    """Another process has changed the store since it was read. Nothing was stored: read it again and decide anew."""
