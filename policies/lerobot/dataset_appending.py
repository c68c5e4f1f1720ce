"""Whole episodes added to a LeRobotDataset (format v3), by lerobot's own writer.

Episodes are written beside the dataset, in the folder `.NAME.recording`, and become part of it together:

    .NAME.recording/written    being written; a kill loses it
    .NAME.recording/whole      whole and on the medium: moved into the dataset, by the next process after a kill
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlamem.core.files import sync_folder, write_atomically
from vlamem.core.json_files import read_json_map
from vlamem.core.locks import exclusive_lock
from vlamem.policies.lerobot.dataset_files import INFO, DatasetError, is_dataset, read_info

Features = Mapping[str, Mapping[str, Any]]
"""A table of features as `LeRobotDataset.create` takes it."""
_NOTE = Path("meta") / "recording.json"
_LAST = (Path("meta") / "tasks.parquet", Path("meta") / "stats.json", _NOTE, INFO)
"""Files of a dataset that each episode changes, in the order in which they are replaced: what counts them is last."""
_EPISODES = Path("meta") / "episodes"
_QUEUE = 128
"""Pictures of a camera that may wait for the encoder while an episode is recorded."""


class DatasetAppender:
    """Adds episodes to the dataset in a folder, which is made with the first.

    `add` frames, `save` each episode, `commit` those that were saved: after a kill either all of these are in the
    dataset or none is. One process at a time adds to a dataset.

    Args:
        root: the dataset's folder.
        streaming: whether pictures are encoded while they come, for a recording in real time; otherwise at `save`.

    Raises InUseError when another process adds to it, DatasetError for a folder that is no dataset of format v3.
    """

    def __init__(self, root: Path, streaming: bool = False) -> None:
        self.root, self._streaming = root.absolute(), streaming
        root = self.root
        self._lock = exclusive_lock(
            root.with_name(f".{root.name}.lock"), str(root), "end that process first, or give another folder"
        )
        self._aside = root.with_name(f".{root.name}.recording")
        self._written, self._whole = self._aside / "written", self._aside / "whole"
        self._features: Features | None = None
        self._fps, self._robot_type = 0, ""
        self._dataset: Any = None
        try:
            if self._whole.exists():
                self._move_in()
            shutil.rmtree(self._written, ignore_errors=True)
            if root.exists() and any(root.iterdir()) and not is_dataset(root):
                raise DatasetError(f"{root} is no LeRobotDataset and not empty: give another folder")
            self.info: dict[str, Any] = read_info(root) if is_dataset(root) else {}
            version = str(self.info.get("codebase_version", "v3"))
            if not version.startswith("v3"):
                raise DatasetError(f"{root} has format {version}, expected v3: record into another folder")
        except BaseException:
            self._lock.release()
            raise

    @property
    def episodes(self) -> int:
        """Episodes in the dataset."""
        return int(self.info.get("total_episodes", 0))

    @property
    def note(self) -> dict[str, Any]:
        """What the last `commit` noted; empty before the first."""
        path = self.root / _NOTE
        try:
            return read_json_map(path) if path.is_file() else {}
        except ValueError as error:
            raise DatasetError(f"{path} is not what was noted ({error}): record into another folder") from error

    def begin(self, features: Features, fps: int, robot_type: str) -> None:
        """Says what the frames are. Raises DatasetError when the dataset at hand has others, naming the first."""
        if self.info:
            for name, mine, theirs in (
                ("fps", fps, self.info.get("fps")), ("robot_type", robot_type, self.info.get("robot_type"))
            ):  # fmt: skip
                if mine != theirs:
                    raise DatasetError(f"{name} of {self.root} is {theirs!r}, this is {mine!r}: give another folder")
            self._check(features)
        self._features, self._fps, self._robot_type = features, fps, robot_type

    def _check(self, features: Features) -> None:
        counted = ("timestamp", "frame_index", "episode_index", "index", "task_index")
        theirs = {name: _form(feature) for name, feature in self.info["features"].items() if name not in counted}
        mine = {name: _form(feature) for name, feature in features.items()}
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                raise DatasetError(
                    f"'{name}' of {self.root} is {theirs.get(name, 'missing')}, this recording has "
                    f"{mine.get(name, 'none')}: give another folder"
                )

    def add(self, frame: Mapping[str, Any]) -> None:
        """A frame of the episode at hand: a value for each feature, and `task`. Raises ValueError for another shape."""
        if self._dataset is None:
            self._dataset = self._open()
        self._dataset.add_frame(dict(frame))

    def save(self) -> None:
        """The episode at hand is over. Raises OSError."""
        self._dataset.save_episode()

    def commit(self, note: Mapping[str, Any] | None = None) -> None:
        """What was saved becomes part of the dataset, with a note for who goes on.

        Raises DatasetError for a video that lacks pictures, OSError on a full disk; nothing is part of it then.
        """
        before = int(self.info.get("total_frames", 0))
        self._dataset.finalize()
        self._dataset = None
        frames = read_info(self._written)["total_frames"] - before
        self._check_videos(frames)
        if note is not None:
            write_atomically(self._written / _NOTE, json.dumps(note))
        for path in _files(self.root / _EPISODES):  # copied for lerobot to count on from
            (self._written / path.relative_to(self.root)).unlink()
        _sync(self._written)
        self._written.rename(self._whole)
        sync_folder(self._aside)
        self._move_in()
        self.info = read_info(self.root)

    def abandon(self) -> None:
        """Drops what was added since the last commit."""
        dataset, self._dataset = self._dataset, None
        if dataset is not None:
            with contextlib.suppress(Exception):  # of a disk that is full
                dataset.clear_episode_buffer()
            with contextlib.suppress(Exception):
                dataset.finalize()
        shutil.rmtree(self._written, ignore_errors=True)

    def close(self) -> None:
        """Drops what was not committed, and lets the next process have the dataset."""
        self.abandon()
        if not self._whole.exists():
            shutil.rmtree(self._aside, ignore_errors=True)
        self._lock.release()

    def _open(self) -> Any:
        """lerobot's dataset of the episodes that are written: it knows those before from their description alone."""
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        if self._features is None:
            raise ValueError("no frame can be added before 'begin' has said what frames are")
        if self._whole.exists():  # the commit before could not move all of it
            self._move_in()
            self.info = read_info(self.root)
        # nothing is decoded here: to look for the usual decoder takes seconds, and may print much
        how = {"streaming_encoding": self._streaming, "encoder_queue_maxsize": _QUEUE, "video_backend": "pyav"}
        self._aside.mkdir(parents=True, exist_ok=True)
        if self.info:
            shutil.copytree(self.root / "meta", self._written / "meta")
            return LeRobotDataset.resume(self.root.name, self._written, **how)
        table = {name: dict(feature) for name, feature in self._features.items()}
        return LeRobotDataset.create(
            self.root.name, self._fps, table, self._written, robot_type=self._robot_type, **how
        )

    def _check_videos(self, frames: int) -> None:
        """The encoder drops pictures that it has no time for: an episode without them is not what happened."""
        import av

        for key in (name for name, feature in (self._features or {}).items() if feature["dtype"] == "video"):
            found = 0
            for path in (self._written / "videos" / key).glob("*/*.mp4"):
                with av.open(str(path)) as video:
                    found += video.streams.video[0].frames
            if found != frames:
                raise DatasetError(f"the encoder had no time for {frames - found} of {frames} pictures of '{key}'")

    def _move_in(self) -> None:
        """Moves what is whole into the dataset; what a kill left undone is done by the next call."""
        found = {path.relative_to(self._whole) for path in _files(self._whole)}
        for path in sorted(found - set(_LAST)) + [path for path in _LAST if path in found]:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._whole / path, self.root / path)
        for folder in {(self.root / path).parent for path in found}:
            sync_folder(folder)
        shutil.rmtree(self._whole)


def _form(feature: Mapping[str, Any]) -> str:
    names = feature.get("names")
    return f"{feature['dtype']} {list(feature['shape'])}" + (f" of {list(names)}" if names else "")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _sync(folder: Path) -> None:
    for path in _files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
