"""NumPy files with a checksum behind the array: `numpy.load` reads them, and what a medium has changed is noticed."""

import os
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np

from vlamem.core.files import make_folder, replacing

Array = np.ndarray[Any, Any]
_MARK = b"\ncrc32 "
_TRAILER = len(_MARK) + 8
_BLOCK = 1 << 20
_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, TokenError, OverflowError, MemoryError, TypeError)
"""What NumPy raises for a file without a checksum whose header is damaged."""


class ArrayFileError(ValueError):
    """A file whose array cannot be read or is not what was written; the message names it."""


def save_array(path: Path, array: Array) -> None:
    """Replaces `path` by an array and its checksum: a reader finds the old file or the new one, also after power loss.

    Folders that are missing are made. Raises OSError, ValueError for an array of Python objects.
    """
    make_folder(path.parent)
    with replacing(path) as draft, draft.open("r+b") as file:
        write_array(file, array)


def write_array(file: BinaryIO, array: Array) -> None:
    """Writes an array and its checksum where a file stands. Raises as `save_array`."""
    summed = _Summed(file)
    np.save(summed, array, allow_pickle=False)  # of a file it calls `write` alone
    file.write(_MARK + f"{summed.crc:08x}".encode())


def load_array(path: Path, mapped: bool = False, checked: bool = True) -> Array:
    """The array in a file, `mapped` into memory or read; one without a checksum, of an older version, as it is.

    Not `checked` is for a large file, which is loaded `checked` once before it is used. Raises ArrayFileError for what
    is no array, or another than was written.
    """
    try:
        if checked:
            _check(path)
        found: Array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except ArrayFileError:
        raise
    except _UNREADABLE as error:
        raise ArrayFileError(f"{path} cannot be read ({error})") from error
    return found


def _check(path: Path) -> None:
    """Raises ArrayFileError when the checksum of a file is another than that of what is before it, OSError."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - _TRAILER
        if left < 0:
            return
        file.seek(left)
        trailer = file.read(_TRAILER)
        if not trailer.startswith(_MARK):
            return
        file.seek(0)
        crc = 0
        while left and (block := file.read(min(_BLOCK, left))):
            crc, left = zlib.crc32(block, crc), left - len(block)
    if f"{crc:08x}".encode() != trailer[len(_MARK) :]:
        raise ArrayFileError(f"{path} is not what was written: the medium has changed it")


class _Summed:
    """A file that is written to, and the CRC-32 of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.crc = file, 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self._file.write(data)
