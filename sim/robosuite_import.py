"""robosuite, imported on a machine as it is: it opens a log of all users in /tmp and refuses GPU numbers of EGL."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

THEIRS = "/tmp/robosuite.log"  # noqa: S108  # where robosuite writes it
_EGL_DEVICE = "MUJOCO_EGL_DEVICE_ID"


def own_log() -> Path:
    """The log of this user, in the folder for temporary files; nothing is kept where that takes no files."""
    folder = Path(tempfile.gettempdir())
    user = getattr(os, "getuid", os.getpid)()
    path = folder / f"robosuite-{user}.log"
    return path if os.access(path if path.exists() else folder, os.W_OK) else Path(os.devnull)


class _OwnLog(logging.FileHandler):
    """A file handler that keeps this user's log where robosuite means the one of all."""

    def __init__(self, filename: Any, *args: Any, **options: Any) -> None:
        super().__init__(own_log() if str(filename) == THEIRS else filename, *args, **options)


@contextmanager
def importing_robosuite() -> Iterator[None]:
    """Inside it robosuite can be imported whoever made its log, and whichever GPU MuJoCo is to render on.

    robosuite compares MUJOCO_EGL_DEVICE_ID with CUDA_VISIBLE_DEVICES when it is imported, which number devices
    differently, and nothing is rendered through it: MuJoCo reads the variable itself.
    """
    kept, handler = os.environ.pop(_EGL_DEVICE, None), logging.FileHandler
    logging.FileHandler = _OwnLog  # type: ignore[misc]  # robosuite has no option for it
    try:
        yield
    finally:
        logging.FileHandler = handler  # type: ignore[misc]  # likewise
        if kept is not None:
            os.environ[_EGL_DEVICE] = kept
