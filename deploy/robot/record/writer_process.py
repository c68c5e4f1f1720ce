"""The process that writes what a robot did into a LeRobotDataset, so that no control step waits for encoder or disk.

Started by `Recorder` as `python -m vlamem.deploy.robot.record.writer_process`. It ends when its controller is gone; the
episode that was not over then is lost, those before it are in the dataset.
"""

import contextlib
import importlib
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlamem.deploy.robot.record.columns import IMAGES, features_of, label_of, rate_of
from vlamem.deploy.robot.record.stream import receive, send
from vlamem.deploy.robot.robot_file import RobotFile, load_robot_file
from vlamem.policies.lerobot.dataset_appending import DatasetAppender
from vlamem.policies.lerobot.dataset_files import DatasetError

_NICE = 10
"""The control loop comes first."""


class EpisodeWriter:
    """Adds the episodes of one robot to a dataset.

    An episode that cannot be written is dropped, and the next one tried. The newest frame is kept back: the label is
    known when the episode is over, and is part of the last frame.

    Args:
        appender: of the dataset.
        robot_file: what frames and actions mean.
        tell: gets a message for the controller: that an episode is stored, or lost and why.

    Raises DatasetError when the dataset is another robot's.
    """

    def __init__(
        self, appender: DatasetAppender, robot_file: RobotFile, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self._appender, self._file, self._tell = appender, robot_file, tell
        self._held: dict[str, Any] | None = None
        self._lost: int | None = None
        if appender.info:
            known, none = appender.info["features"], {"shape": (0, 0, 3)}
            self._begin({c: known.get(f"{IMAGES}{c}", none)["shape"] for c in robot_file.cameras})

    def _begin(self, shapes: Mapping[str, Sequence[int]]) -> None:
        sizes = {camera: shape[:2] for camera, shape in shapes.items()}
        self._appender.begin(features_of(self._file, sizes), rate_of(self._file), self._file.name)

    def take(self, message: dict[str, Any]) -> None:
        """A message of the controller about an episode: a frame of it, that it is to be stored, or dropped."""
        episode = message["episode"]
        if episode == self._lost:
            return
        try:
            if "frame" in message:
                self._frame(message["frame"])
            elif "store" in message:
                self._store(episode, message["store"])
            else:
                self._drop(episode)
        except Exception as error:  # whatever a disk, an encoder or lerobot raises, the next episode is tried
            self._drop(episode)
            why = str(error).splitlines()[0][:300] if str(error) else ""
            self._tell({"episode": episode, "lost": f"{type(error).__name__}: {why}"})

    def _frame(self, frame: dict[str, Any]) -> None:
        if self._held is None:
            self._begin({camera: frame[f"{IMAGES}{camera}"].shape for camera in self._file.cameras})
        else:
            self._appender.add(self._held | label_of(None))
        self._held = frame

    def _store(self, episode: int, success: bool | None) -> None:
        if self._held is None:
            raise ValueError("no command was sent in it")
        self._appender.add(self._held | label_of(success))
        self._held = None
        self._appender.save()
        self._appender.commit()
        self._tell({"episode": episode, "stored": self._appender.episodes})

    def _drop(self, episode: int) -> None:
        self._held, self._lost = None, episode
        self._appender.abandon()


def main(arguments: list[str]) -> int:
    """Arguments: descriptor of the connection to the controller, folder of the dataset, robot file."""
    number, root, name = arguments
    os.nice(_NICE)
    with socket.socket(fileno=int(number)) as controller, tempfile.TemporaryDirectory(prefix="vlamem-record-") as cache:
        os.environ |= {
            "HF_DATASETS_CACHE": cache,  # else a copy of the dataset's description stays with each episode
            "HF_HUB_OFFLINE": "1",
            "SVT_LOG": "1",  # the encoder's: errors alone
            "TQDM_DISABLE": "1",
        }
        return _write(controller, Path(root), name)


def _write(controller: socket.socket, root: Path, name: str) -> int:
    def tell(body: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has gone: what it sent before is written all the same
            send(controller, body)

    try:
        importlib.import_module("lerobot.datasets.lerobot_dataset")  # takes seconds: before the robot moves
        appender = DatasetAppender(root, streaming=True)
    except Exception as error:  # the controller says it
        tell({"refused": f"{error}"[:2000] or type(error).__name__})
        return 1
    try:
        writer = EpisodeWriter(appender, load_robot_file(name), tell)
        tell({"ready": appender.episodes})
        while (message := receive(controller)) is not None:
            writer.take(message)
    except DatasetError as error:
        tell({"refused": str(error)})
        return 1
    finally:
        appender.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
