"""Files that are written whole or not at all, and stay so after a loss of power."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Replaces `path` by `content` (text as UTF-8): a reader finds the old file or the new one, also after power loss.

    Folders that are missing are made; `mode` are the file's permissions. Writers of one path wait for each other. A
    writer that was killed leaves a draft, which the next one uses again. Raises OSError, e.g. on a full disk, with the
    old file as it was and nothing else left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    make_folder(path.parent)
    with replacing(path) as draft, draft.open("r+b") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty draft beside `path`, for this writer alone, which takes its place when the block ends without an error.

    The draft is removed on an error. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.tmp")
    descriptor = _locked(draft)
    try:
        os.ftruncate(descriptor, 0)
        yield draft
        os.fsync(descriptor)  # else the new name may stand for an empty file after power loss
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    finally:
        os.close(descriptor)  # releases the lock
    sync_folder(path.parent)


def _locked(draft: Path) -> int:
    """A descriptor of the draft that no other writer holds."""
    while True:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(draft).st_ino == os.fstat(descriptor).st_ino:
                    return descriptor  # else the writer before renamed or removed the file that was waited for
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it that are missing; their names are on the medium when this returns.

    Else what is written into it, and synced, may be gone after power loss with the folder. Raises OSError.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder (new, renamed and removed files) are on the medium. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
