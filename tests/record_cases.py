"""The recording process as a thread of this one: lerobot is imported once."""

import os
import threading
from typing import Any

import pytest

from vlamem.deploy.robot.record import writer_process


class Thread(threading.Thread):
    """Stands for the process, as `subprocess.Popen` makes it."""

    pid = 0

    def __init__(self, words: list[str], pass_fds: list[int], **_: Any) -> None:
        number, *others = words[3:]
        assert pass_fds == [int(number)]
        super().__init__(target=writer_process.main, args=([str(os.dup(int(number))), *others],))
        self.start()

    def wait(self) -> None:
        self.join()

    def kill(self) -> None: ...


def writing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorders of this test write in this process."""
    import lerobot.datasets.lerobot_dataset  # noqa: F401  # reads the environment, which is changed below

    for name in ("HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "SVT_LOG", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")  # put back after the test
    monkeypatch.setattr("vlamem.deploy.robot.record.recorder.subprocess.Popen", Thread)
    monkeypatch.setattr(writer_process.os, "nice", lambda _: 0)
