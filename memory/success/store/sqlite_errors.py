"""What SQLite raises, as errors of a store that name the file and the mend."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlamem.memory.success.store.errors import SALVAGE, StoreBusyError, StoreDamagedError, StoreFullError


@contextmanager
def named_errors(path: Path, wait_s: float) -> Iterator[None]:
    """Turns what SQLite raises about the database in `path` into errors that name the file and the mend.

    `wait_s` is how long a writer waits for another. Raises StoreBusyError, StoreFullError, StoreDamagedError, OSError
    where the medium fails, and anything else as it is.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        message, code = str(error), getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise StoreBusyError(
                errno.EBUSY,
                f"another process has been writing for more than {wait_s:g} s; nothing was stored, try again",
                str(path),
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise StoreFullError(
                errno.ENOSPC, "the disk is full; nothing was stored, make room and store again", str(path)
            ) from error
        changed = message.startswith(("Could not decode", "no such column", "no such table", "unsupported file"))
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or changed:
            raise StoreDamagedError(f"{path} is damaged ({message}): {SALVAGE}") from error
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise OSError(errno.EIO, f"{message}; nothing was stored", str(path)) from error
        raise
    except UnicodeDecodeError as error:  # of a text that the medium has changed
        raise StoreDamagedError(f"{path} is damaged ({error}): {SALVAGE}") from error
