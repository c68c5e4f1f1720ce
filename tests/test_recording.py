"""sim/recording.py"""

from pathlib import Path

import av
import numpy as np
import pytest
from disk_cases import fill_the_disk

from vlamem.sim.results.episodes import DiskFullError, EpisodeLog, EpisodeRecord, RecordError, side_by_side, write_video


def record(episode: int) -> EpisodeRecord:
    return EpisodeRecord("none", "touch", "test", episode, 0, "success", f"test/{episode}", "touch the réd cube", 12)


def test_episodes_come_back_as_they_were_written(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    assert log.read() == []
    for episode in range(3):
        log.append(record(episode))
    assert log.read() == [record(0), record(1), record(2)]


@pytest.mark.parametrize("torn", [b"{", b'{"arm": "none", "task', b"x" * 70_000])
def test_a_line_torn_by_a_kill_is_dropped_and_overwritten(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path)
    log.append(record(0))
    with path.open("ab") as file:
        file.write(torn)
    assert log.read() == [record(0)]
    log.append(record(1))
    assert log.read() == [record(0), record(1)]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path)
    log.append(record(0))
    path.write_bytes(path.read_bytes() + b'{"task": 1}\n')
    log.append(record(1))
    with pytest.raises(RecordError, match="line 2"):
        log.read()


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path)
    log.append(record(0))
    before = path.read_bytes()
    fill_the_disk(monkeypatch, after=0, keeps=20)
    with pytest.raises(DiskFullError, match="make room"):
        log.append(record(1))
    assert path.read_bytes() == before


def test_video_has_the_frames_size_rate_and_title(tmp_path: Path) -> None:
    colours = [np.full((32, 64, 3), (8 * i, 0, 255 - 8 * i), np.uint8) for i in range(20)]
    path = tmp_path / "videos" / "touch.mp4"
    write_video(path, colours, 20.0, "touch 0")
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert stream.average_rate == 20
        assert video.metadata["title"] == "touch 0"
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 20
    assert frames[0].shape == (32, 64, 3)
    assert np.abs(frames[19].mean(axis=(0, 1)) - (152, 0, 103)).max() < 8
    assert [p.name for p in path.parent.iterdir()] == ["touch.mp4"]


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def frames():  # type: ignore[no-untyped-def]
        yield np.zeros((32, 32, 3), np.uint8)
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFullError):
        write_video(tmp_path / "touch.mp4", frames(), 20.0, "touch")
    assert not list(tmp_path.iterdir())


def test_cameras_stand_side_by_side_enlarged_and_even() -> None:
    image = side_by_side([np.zeros((5, 5, 3), np.uint8), np.full((5, 5, 3), 9, np.uint8)], height=15)
    assert image.shape == (14, 30, 3)
    assert image[0, 14, 0] == 0
    assert image[0, 15, 0] == 9
