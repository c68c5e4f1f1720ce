"""A medium whose power is cut: of a folder only what was synced has to be there afterwards.

Files keep what they had at their last fsync, folders the names that they had at theirs. What was not synced may be
there all the same, names without their contents too: each cut leaves three folders that a reader has to cope with.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

Left = Literal["synced", "names", "all"]
LEFT: tuple[Left, ...] = ("synced", "names", "all")
"""What a cut leaves: what was synced; the newest names with synced contents; everything."""
_CALLS = ("fsync", "fdatasync", "replace", "rename", "link", "unlink")


class PowerCutError(BaseException):
    """The power is gone: nothing catches it."""


class Medium:
    """Follows what of a folder is on the medium, and cuts the power before call `cut` of those that matter."""

    def __init__(self, folder: Path, cut: int) -> None:
        self.folder, self._left = folder, cut
        self.on = True
        self._names: dict[int, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        for place, _, files in os.walk(folder):
            self._sync_folder(Path(place))
            for name in files:
                self._sync_file(Path(place) / name)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in _CALLS:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            if not self.on:
                return call(*args, **options)
            if self._left == 0:
                self.on = False
                raise PowerCutError
            self._left -= 1
            if name not in ("fsync", "fdatasync"):
                return call(*args, **options)
            place = Path(os.readlink(f"/proc/self/fd/{args[0]}"))
            return self._sync_folder(place) if place.is_dir() else self._sync_file(place)

        return watched

    def _sync_folder(self, place: Path) -> None:
        self._names[place.stat().st_ino] = {entry.name: entry.inode() for entry in os.scandir(place)}

    def _sync_file(self, place: Path) -> None:
        self._contents[place.stat().st_ino] = place.read_bytes()

    def leave(self, where: Path, left: Left) -> None:
        """Makes the folder that is found after the cut."""
        if left == "all":
            shutil.copytree(self.folder, where)
            return
        self._leave(self.folder, self.folder.stat().st_ino, where, left)

    def _leave(self, now: Path, inode: int, where: Path, left: Left) -> None:
        where.mkdir(parents=True)
        newest = {entry.name: entry.inode() for entry in os.scandir(now)} if now.is_dir() else {}
        for name, number in (newest if left == "names" else self._names.get(inode, {})).items():
            if number in self._names or (now / name).is_dir():
                self._leave(now / name, number, where / name, left)
            else:
                (where / name).write_bytes(self._contents.get(number, b""))


def cuts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], object],
    work: Callable[[Path, list[Any], Medium], object],
    every: int = 1,
) -> Iterator[tuple[Path, list[Any]]]:
    """Every folder that a cut may leave at one in `every` moments of `work`, with what was acknowledged until then.

    `work` adds to its list what it may tell a user, and ends its threads and files whatever is raised.
    """
    for cut in range(0, 1000, every):
        folder = tmp_path / f"cut-{cut}" / "at-work"
        folder.mkdir(parents=True)
        prepare(folder)
        done: list[Any] = []
        medium = Medium(folder, cut)
        whole = False
        with monkeypatch.context() as patched:
            medium.install(patched)
            try:
                work(folder, done, medium)
                whole = True
            except PowerCutError:
                pass
            medium.on = False
        for left in LEFT:
            found = folder.with_name(left)
            medium.leave(found, left)
            yield found, list(done)
        if whole:
            assert cut > 2, "nothing was synced"
            return
    raise AssertionError("the work does not end")
