"""A disk that is full."""

import os

import pytest


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, after: int, keeps: int) -> None:
    """Lets `after` more JSON lines through; of the next one `keeps` bytes are written, then the disk is full."""
    write, room = os.write, [after]

    def filling(file: int, data: bytes) -> int:
        if not data.startswith(b"{"):
            return write(file, data)
        if room[0] == 0:
            write(file, data[:keeps])
            raise OSError(28, "No space left on device")
        room[0] -= 1
        return write(file, data)

    monkeypatch.setattr(os, "write", filling)
