"""A disk that is full."""

import os

import pytest


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, after: int, keeps: int) -> None:
    """Lets `after` more writes of a log through; of the next one `keeps` bytes are written, then the disk is full."""
    write, room = os.pwrite, [after]

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        if room[0] == 0:
            write(handle, data[:keeps], offset)
            raise OSError(28, "No space left on device")
        room[0] -= 1
        return write(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
