"""Logs of JSON values, one a line: lines are added whole or not at all, and read back one by one."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vlamem.core.files import make_folder, sync_folder

_BLOCK = 65536


class LineError(ValueError):
    """A line of a log that is not what was expected; the message names file and line."""


class JsonLog:
    """Adds lines to a file that has one writer at a time.

    A last line that a crash cut short is removed when the file is opened: it was never acknowledged.

    Args:
        path: made when missing, with its folder.
        encode: a value as one line of text.
        sync: whether `append` returns only when its lines are on the medium.

    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: Path, encode: Callable[[Any], str] = json.dumps, sync: bool = True) -> None:
        self._path, self._encode, self._sync = path, encode, sync
        make_folder(path.parent)
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)  # a terminal or a pipe cannot be cut
        self._cut: int | None = None  # size to which a line that failed has to be cut, where that failed too
        try:
            if self._regular:
                whole, size = _end_of_last_line(self._file), os.fstat(self._file).st_size
                if whole != size:
                    os.ftruncate(self._file, whole)
                if new and sync:
                    sync_folder(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, *values: Any) -> None:
        """Adds a line for each value. Raises OSError, e.g. on a full disk, with the file as it was before."""
        data = "".join(self._encode(value) + "\n" for value in values).encode()
        if self._cut is not None:
            os.ftruncate(self._file, self._cut)
            self._cut = None
        before = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            if self._sync:
                os.fsync(self._file)
        except OSError:
            if self._regular:
                self._cut = before
                os.ftruncate(self._file, before)
                self._cut = None
            raise

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def __enter__(self) -> "JsonLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_lines[T](
    path: Path,
    parse: Callable[[Any], T],
    what: str,
    damaged: Callable[[bytes, LineError], None] | None = None,
    decode: Callable[[bytes], Any] = json.loads,
) -> Iterator[T]:
    """What `parse` makes of the value in each whole line, in order; nothing when there is no such file.

    A last line that was cut short is left out. A line that is not JSON, or for which `parse` raises ValueError,
    KeyError or TypeError, is given to `damaged` and left out; without that LineError is raised, which calls the line no
    `what`. `decode` makes a line's value of it.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = parse(decode(line))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                found = LineError(f"{path}, line {number} is no {what} ({error})")
                if damaged is None:
                    raise found from error
                damaged(line, found)
                continue
            yield value


def _end_of_last_line(file: int) -> int:
    """Size up to and with the last line break [bytes]."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
