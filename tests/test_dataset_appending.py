"""policies/lerobot/dataset_appending.py: an episode is in the dataset whole, or not at all."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")
from vlamem.core.locks import InUseError
from vlamem.policies.lerobot.dataset import DatasetReader
from vlamem.policies.lerobot.dataset_appending import DatasetAppender
from vlamem.policies.lerobot.dataset_files import DatasetError

FEATURES: dict[str, dict[str, Any]] = {
    "observation.images.front": {"dtype": "video", "shape": (64, 80, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["pan", "lift"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["pan", "lift"]},
}


class Killed(BaseException):
    """As a process that is gone: nothing is tidied up."""


def frame(episode: int, step: int) -> dict[str, Any]:
    return {
        "observation.images.front": np.full((64, 80, 3), 20 * episode + step, np.uint8),
        "observation.state": np.float32([episode, step]), "action": np.float32([step, episode]), "task": "touch it",
    }  # fmt: skip


def opened(root: Path, **changed: Any) -> DatasetAppender:
    appender = DatasetAppender(root, streaming=True)
    appender.begin(FEATURES | changed.pop("features", {}), **{"fps": 20, "robot_type": "two"} | changed)
    return appender


def add(appender: DatasetAppender, episode: int, frames: int = 4) -> None:
    for step in range(frames):
        appender.add(frame(episode, step))
    appender.save()


def killed(appender: DatasetAppender) -> None:
    """Its process is gone: the operating system lets go of its lock."""
    appender._lock.release()


def found(root: Path) -> list[tuple[float, int, int]]:
    """Episode as its state says it, frames, and episode as the first picture says it, as our reader has them."""
    return [
        (float(e.observation.proprioception[0, 0]), len(e.actions), round(e.observation.images["front"][0].mean() / 20))
        for e in DatasetReader(root)
    ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three episodes, the first two added by one process and together."""
    root = tmp_path_factory.mktemp("recorded") / "data"
    appender = opened(root)
    add(appender, 0)
    add(appender, 1, 6)
    appender.commit({"place": 2})
    appender.close()
    appender = opened(root)
    add(appender, 2)
    appender.commit()
    appender.close()
    return root


@pytest.fixture
def three(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "data"))


def test_episodes_of_several_runs_are_one_dataset_for_lerobot_and_for_our_reader(three: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    assert found(three) == [(0, 4, 0), (1, 6, 1), (2, 4, 2)]
    theirs = LeRobotDataset("data", root=three, video_backend="pyav")
    assert (theirs.num_episodes, len(theirs), theirs.meta.robot_type) == (3, 14, "two")
    last = theirs[13]
    assert (int(last["index"]), int(last["episode_index"]), int(last["frame_index"])) == (13, 2, 3)
    assert last["observation.state"].tolist() == [2, 3]
    assert float(last["observation.images.front"].mean()) * 255 == pytest.approx(43, abs=1)
    assert theirs.meta.stats["action"]["max"].tolist() == [5, 2]


def test_nothing_is_left_beside_a_dataset_that_is_closed(recorded: Path) -> None:
    assert sorted(p.name for p in recorded.parent.iterdir()) == [".data.lock", "data"]


def test_a_kill_while_an_episode_is_added_leaves_it_whole_or_absent(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, rename = os.replace, Path.rename
    left = [0]

    def one_more() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    monkeypatch.setattr(os, "replace", lambda a, b: (one_more(), replace(a, b)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (one_more(), rename(self, to))[1])
    episodes = 3
    # moved are the episode as a whole, then its rows, description, picture, tasks, statistics, note, count
    for kills in (0, 1, 3, 7):
        appender = opened(three)
        add(appender, episodes)
        left[0] = kills
        with pytest.raises(Killed):
            appender.commit()
        killed(appender)
        left[0] = 99
        again = opened(three)
        episodes += kills > 0  # from the first move on it is
        assert again.episodes == episodes == len(DatasetReader(three))
        again.close()
    assert found(three)[3:] == [(n, 4, n) for n in (3, 4, 5)]


def test_what_was_not_committed_is_gone(three: Path) -> None:
    appender = opened(three)
    add(appender, 7)
    appender.add(frame(8, 0))
    killed(appender)
    again = opened(three)
    assert again.episodes == 3
    again.add(frame(9, 0))
    again.abandon()
    add(again, 3)
    again.commit()
    assert again.episodes == 4
    again.close()
    assert found(three) == [(0, 4, 0), (1, 6, 1), (2, 4, 2), (3, 4, 3)]


def test_an_episode_of_which_a_picture_is_missing_is_refused(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lerobot.datasets.video_utils import StreamingVideoEncoder

    appender = opened(three)
    for step in range(4):
        if step == 2:
            monkeypatch.setattr(StreamingVideoEncoder, "feed_frame", lambda *_: None)  # as when its queue is full
        appender.add(frame(3, step))
        monkeypatch.undo()
    appender.save()
    with pytest.raises(DatasetError, match=r"no time for 1 of 4 pictures of 'observation\.images\.front'"):
        appender.commit()
    appender.close()
    assert opened(three).episodes == 3


def test_the_note_of_the_last_commit_is_there_for_who_goes_on(tmp_path: Path) -> None:
    appender = opened(tmp_path / "data")
    assert appender.note == {}
    for place in (1, 2):
        add(appender, place)
        appender.commit({"place": place})
    appender.close()
    assert opened(tmp_path / "data").note == {"place": 2}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"fps": 30}, "fps of .* is 20, this is 30: give another folder"),
        ({"robot_type": "three"}, "robot_type of .* is 'two', this is 'three'"),
        ({"features": {"action": FEATURES["action"] | {"shape": (3,)}}}, r"'action' of .* is float32 \[2\] of"),
        ({"features": {"force": FEATURES["action"]}}, "'force' of .* is missing, this recording has float32"),
    ],
)  # fmt: skip
def test_another_robots_dataset_is_refused_and_the_difference_named(
    changed: dict[str, Any], complaint: str, three: Path
) -> None:
    with pytest.raises(DatasetError, match=complaint):
        opened(three, **changed)


def test_a_folder_that_is_none_and_a_dataset_in_use_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "letter.txt").write_text("dear")
    with pytest.raises(DatasetError, match="is no LeRobotDataset and not empty: give another folder"):
        DatasetAppender(tmp_path / "notes")
    first = DatasetAppender(tmp_path / "data")
    monkeypatch.setattr("vlamem.core.locks.WAIT_S", 0.0)
    with pytest.raises(InUseError, match="data is in use by another process: end that process first"):
        DatasetAppender(tmp_path / "data")
    first.close()
    DatasetAppender(tmp_path / "data").close()


def test_demonstrations_of_the_tabletop_that_were_stopped_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlamem.sim.suites import dataset_episodes
    from vlamem.sim.suites.tabletop import SUITE, lerobot_dataset

    played: list[int] = []

    def episode(env: Any, number: int, what: Any) -> list[dict[str, Any]] | None:
        played.append(number)
        frames = [
            {
                "observation.images.wrist": np.zeros((64, 64, 3), np.uint8), "action": np.zeros(7, np.float32),
                "observation.state": np.full(8, number, np.float32), "task": "touch it",
                "observation.simulator_state": np.zeros(3, np.float32), "next.success": np.array([True]),
            }
        ]  # fmt: skip
        return 2 * frames if number != 1 else None

    def write(stop_after: int = 99) -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []

        def progress(*counts: int) -> None:
            told.append((counts[0], counts[1]))
            if len(told) == stop_after:
                raise Killed

        lerobot_dataset.write_lerobot({"touch": 5}, tmp_path, 64, progress, ("wrist",))
        return told

    monkeypatch.setattr(SUITE.__class__, "make", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(lerobot_dataset, "_episode", episode)
    monkeypatch.setattr(dataset_episodes, "_PART_EPISODES", 2)
    with pytest.raises(Killed):
        write(stop_after=3)
    assert write() == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert played == [0, 1, 2, 2, 3, 4]
    assert [float(e.observation.proprioception[0, 0]) for e in DatasetReader(tmp_path / "dataset")] == [0, 2, 3, 4]
    with pytest.raises(FileExistsError, match="record into another directory"):
        write()
