"""The frames format: round trip, resume after a kill, several directories, and bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlamem.policies.tiny.frames import Frames, FramesError, FramesMeta, FramesWriter, Goal, read_meta

META = FramesMeta(
    tasks=("touch", "push"),
    goals=(Goal("touch", ("touch the red cube",), ("tap the red cube",)), Goal("push", ("push it",), oracle=True)),
    categories=(("lamp", 3),),
    values=("red_x", "red_y"),
    colours=("red", "green"),
    shapes=("cube", "bowl"),
    references=((0, 0, ("the red cube",)),),
    image_size=8,
    horizon=4,
    command="vlamem collect",
)


def episode(meta: FramesMeta, task: int, number: int, rows: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([task, number])
    arrays = {}
    for name, (kind, shape) in meta.columns().items():
        high = 255 if kind == np.uint8 else 2
        arrays[name] = rng.integers(0, high, (rows, *shape)).astype(kind)
    arrays["task"][:] = task
    arrays["episode"][:] = number
    arrays["tick"] = np.arange(rows, dtype=np.int32)
    arrays["goal"][:] = (0, -1)
    return arrays


def write(path: Path, meta: FramesMeta, numbers: range, shard_size: int = 10, task: int = 0) -> None:
    with FramesWriter(path, meta, shard_size) as writer:
        for n in numbers:
            if (task, n) not in writer.episodes_done():
                writer.add_episode(episode(meta, task, n))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, META, range(5))
    frames = Frames(tmp_path)
    assert len(frames) == 25
    assert frames.meta == META == read_meta(tmp_path)
    expected = [episode(META, 0, n) for n in range(5)]
    for name, array in frames.columns.items():
        np.testing.assert_array_equal(array, np.concatenate([e[name] for e in expected]))
    rows = np.array([24, 3, 3, 11])
    images = np.concatenate([e["wrist"] for e in expected])
    np.testing.assert_array_equal(frames.images("wrist", rows), images[rows])


def test_a_killed_writer_resumes_without_loss_or_repetition(tmp_path: Path) -> None:
    write(tmp_path / "whole", META, range(7))
    killed = FramesWriter(tmp_path / "killed", META, shard_size=10)
    for n in range(5):
        killed.add_episode(episode(META, 0, n))  # the fifth episode is only in memory when the writer dies
    half_written = tmp_path / "killed" / "shard-00002"
    half_written.mkdir()
    (half_written / "task.npy").write_bytes(b"half")
    assert len(Frames(tmp_path / "killed")) == 20
    resumed = FramesWriter(tmp_path / "killed", META, shard_size=10)
    assert resumed.episodes_done() == {(0, 0), (0, 1), (0, 2), (0, 3)}
    write(tmp_path / "killed", META, range(7))
    whole, again = Frames(tmp_path / "whole"), Frames(tmp_path / "killed")
    for name, array in whole.columns.items():
        np.testing.assert_array_equal(again.columns[name], array)
    rows = np.arange(len(whole))
    np.testing.assert_array_equal(whole.images("agentview", rows), again.images("agentview", rows))


def test_directories_with_other_tasks_and_labels_merge_by_name(tmp_path: Path) -> None:
    other = replace(
        META,
        tasks=("push", "press"),
        goals=(Goal("press", ("press it",)), META.goals[0]),
        categories=(("light", 2), ("lamp", 3)),
        values=("blue_x",),
    )
    write(tmp_path / "a", META, range(2), task=1)
    write(tmp_path / "b", other, range(2), task=1)
    frames = Frames([tmp_path / "a", tmp_path / "b"])
    assert frames.meta.tasks == ("touch", "push", "press")
    assert frames.meta.categories == (("lamp", 3), ("light", 2))
    assert frames.columns["task"].tolist() == [1] * 10 + [2] * 10
    assert frames.meta.goals[frames.columns["goal"][10, 0]].task == "press"
    assert (frames.columns["goal"][:, 1] == -1).all()
    assert (frames.columns["categories"][:10, 1] == -1).all()
    np.testing.assert_array_equal(frames.columns["categories"][10:15, 0], episode(other, 1, 0)["categories"][:, 1])
    assert np.isnan(frames.columns["values"][10:, :2]).all()
    assert np.isnan(frames.columns["values"][:10, 2]).all()


def test_colours_and_shapes_of_several_directories_are_merged_by_name(tmp_path: Path) -> None:
    other = replace(
        META,
        colours=("blue", "red"),
        shapes=("bowl", "pad"),
        references=((1, 0, ("the red bowl",)), (-1, 1, ("the pad",))),
    )
    write(tmp_path / "a", META, range(1))
    recorded = episode(other, 0, 0)
    recorded["objects"][:, 3:] = -1.0
    with FramesWriter(tmp_path / "b", other) as writer:
        writer.add_episode(recorded)
    frames = Frames([tmp_path / "a", tmp_path / "b"])
    assert frames.meta.colours == ("red", "green", "blue")
    assert frames.meta.shapes == ("cube", "bowl", "pad")
    assert frames.meta.references == (*META.references, (0, 1, ("the red bowl",)), (-1, 2, ("the pad",)))
    before, after = recorded["objects"], frames.columns["objects"][5:]
    for i, name in enumerate(other.colours):
        np.testing.assert_array_equal(after[..., 0] == frames.meta.colours.index(name), before[..., 0] == i)
    for i, name in enumerate(other.shapes):
        np.testing.assert_array_equal(after[:, :3, 1] == frames.meta.shapes.index(name), before[:, :3, 1] == i)
    assert (after[:, 3:, 0] == -1).all()
    np.testing.assert_array_equal(after[..., 2:], before[..., 2:])


def test_a_plain_dict_serves_as_meta(tmp_path: Path) -> None:
    FramesWriter(tmp_path, json.loads(json.dumps(META.to_json())), 10)
    assert read_meta(tmp_path) == META


def test_bad_input_is_refused_with_the_column_or_key_named(tmp_path: Path) -> None:
    writer = FramesWriter(tmp_path, META, 10)
    good = episode(META, 0, 0)
    with pytest.raises(FramesError, match="column 'chunk' is float64"):
        writer.add_episode(good | {"chunk": good["chunk"].astype(np.float64)})
    with pytest.raises(FramesError, match="column 'target' is missing"):
        writer.add_episode({k: v for k, v in good.items() if k != "target"})
    with pytest.raises(FramesError, match="unknown column 'depth'"):
        writer.add_episode(good | {"depth": good["tick"]})
    with pytest.raises(FramesError, match="another 'values'"):
        FramesWriter(tmp_path, replace(META, values=("x",)), 10)
    FramesWriter(tmp_path, replace(META, command="again"), 10)
    with pytest.raises(FramesError, match="unknown key 'colour'"):
        FramesMeta.from_json({**META.to_json(), "colour": ["red"]})
    with pytest.raises(FramesError, match="frames format 9"):
        FramesMeta.from_json({**META.to_json(), "format_version": 9})
    with pytest.raises(FramesError, match="no complete shard"):
        Frames(tmp_path)
    with pytest.raises(FramesError, match="does not exist"):
        Frames(tmp_path / "nowhere")


def test_directories_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", META, range(1))
    write(tmp_path / "b", replace(META, spec="joint"), range(1))
    write(tmp_path / "c", replace(META, categories=(("lamp", 6),)), range(1))
    with pytest.raises(FramesError, match="has spec 'joint'"):
        Frames([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(FramesError, match="'lamp' has 6 classes"):
        Frames([tmp_path / "a", tmp_path / "c"])
    frames = Frames(tmp_path / "a")
    with pytest.raises(FramesError, match="no camera 'front'"):
        frames.images("front", np.array([0]))
    (tmp_path / "a" / "shard-00000" / "goal.npy").write_bytes(b"nothing")
    with pytest.raises(FramesError, match=r"goal\.npy cannot be read"):
        Frames(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")


def test_a_changed_picture_is_named_at_its_first_use_and_a_changed_number_at_opening(tmp_path: Path) -> None:
    write(tmp_path, META, range(4))
    pictures = tmp_path / "shard-00001" / "wrist.npy"
    raw = bytearray(pictures.read_bytes())
    raw[300] ^= 4
    pictures.write_bytes(raw)
    frames = Frames(tmp_path)
    frames.images("wrist", np.arange(10))
    with pytest.raises(FramesError, match=r"shard-00001.wrist\.npy is not what was written.*delete .* record again"):
        frames.images("wrist", np.arange(10, 20))
    numbers = tmp_path / "shard-00000" / "chunk.npy"
    raw = bytearray(numbers.read_bytes())
    raw[-40] ^= 1
    numbers.write_bytes(raw)
    with pytest.raises(FramesError, match=r"chunk\.npy is not what was written"):
        Frames(tmp_path)
