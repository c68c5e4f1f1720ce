"""Played episodes that become a LeRobotDataset, some at a time; a killed recording loses those it was at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlamem.policies.lerobot.dataset_appending import DatasetAppender

__all__ = ["PlayedEpisode", "append_episodes"]

_PART_EPISODES = 20


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode as it is recorded.

    Attributes:
        features: LeRobot's table of what a frame holds.
        fps: control steps a second.
        robot_type: of the dataset.
        frames: one a control step, with `task`, its sentence; none where the episode is left out.
        success: whether it succeeded.
    """

    features: Mapping[str, Mapping[str, Any]]
    fps: int
    robot_type: str
    frames: Sequence[Mapping[str, Any]]
    success: bool


def append_episodes(
    todo: Sequence[tuple[str, int]],
    root: Path,
    by: str,
    play: Callable[[str, int], PlayedEpisode],
    progress: Callable[[int, int], None],
) -> None:
    """Plays each (task, episode) and adds it to the dataset in `root`, resumable.

    `by` says who acts: a recording that was begun by another is not gone on with. `progress` gets how many episodes
    have succeeded and how many have not. Raises FileExistsError when these or other episodes are there already,
    RuntimeError when none is to be kept.
    """
    appender = DatasetAppender(root)
    try:
        place = {"by": by, "counts": [0, 0]} | (appender.note or {"done": 0, "of": len(todo)})
        if (
            place["done"] >= len(todo) or place["of"] != len(todo) or place["by"] != by
            or (appender.episodes and not place["done"])
        ):  # fmt: skip
            raise FileExistsError(f"{root} exists already: record into another directory, or delete it first")
        counts = list(place["counts"])
        if place["done"]:
            progress(*counts)
        for first in range(place["done"], len(todo), _PART_EPISODES):
            part = todo[first : first + _PART_EPISODES]
            kept = [_add(play(task, episode), appender, counts, progress) for task, episode in part]
            if any(kept):
                appender.commit({"done": first + len(part), "of": len(todo), "by": by, "counts": counts})
        if not appender.episodes:
            raise RuntimeError(
                f"no demonstration of {todo[0][0]} and the following episodes succeeded: nothing to write"
            )
    finally:
        appender.close()


def _add(
    played: PlayedEpisode, appender: DatasetAppender, counts: list[int], progress: Callable[[int, int], None]
) -> bool:
    """Adds an episode, unless it is left out; whether it was added."""
    if played.frames:
        appender.begin(played.features, played.fps, played.robot_type)
        for frame in played.frames:
            appender.add(frame)
        appender.save()
    counts[not played.success] += 1
    progress(*counts)
    return bool(played.frames)
