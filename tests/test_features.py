"""policies/features.py"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import recorded_features as rec

from vlamem.memory.train.features import (
    EpisodeTicks,
    Features,
    FeaturesError,
    FeatureWriter,
    open_features,
    recorded_below,
)


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    features = Features(rec.record(tmp_path, 3), rec.POLICY)
    assert [(e.task, e.episode) for e in features.episodes[:2]] == [("remember", 0), ("skill", 0)]
    for line in features.episodes:
        read, made = features.ticks(line), rec.episode(line.episode, line.task)
        np.testing.assert_allclose(read.z, made.z, rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(read.goal, made.goal)
        np.testing.assert_array_equal(read.asked, made.asked)
    np.testing.assert_array_equal(features.contexts, rec.contexts())
    assert isinstance(read.z, np.memmap)


def test_a_recording_that_was_killed_is_usable_up_to_its_last_whole_episode_and_goes_on(tmp_path: Path) -> None:
    rec.record(tmp_path, 2)
    with (tmp_path / "z").open("ab") as file:
        file.write(b"half an episode")
    with (tmp_path / "episodes.jsonl").open("ab") as file:
        file.write(b'{"task": "remember", "epi')
    assert len(Features(tmp_path).episodes) == 4
    writer = FeatureWriter(tmp_path, rec.meta(), rec.contexts())
    assert len(writer.episodes) == 4
    writer.add("remember", 7, "told", rec.episode(7, "remember"), False)
    writer.close()
    features = Features(tmp_path)
    assert [e.episode for e in features.episodes] == [0, 0, 1, 1, 7]
    np.testing.assert_allclose(features.ticks(features.episodes[-1]).z, rec.episode(7, "remember").z, atol=1e-2)


NAMES = ("z", "chunk", "goal", "asked")


def cut(folder: Path, name: str, ticks: float) -> None:
    """Cuts a column of episodes of 20 ticks."""
    os.truncate(folder / name, int(rec.meta().tick_bytes[name] * ticks))


def added(folder: Path, numbers: range) -> FeatureWriter:
    writer = FeatureWriter(folder, rec.meta(), rec.contexts())
    for number in numbers:
        writer.add("remember", number, "expert", rec.episode(number, "remember"), True)
    return writer


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_with_a_cut_column_is_usable_up_to_its_last_whole_episode(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    added(tmp_path, range(5)).close()
    cut(tmp_path, name, 65.5)
    before = {file: (tmp_path / file).read_bytes() for file in (*NAMES, "episodes.jsonl")}
    features = Features(tmp_path)
    assert [e.episode for e in features.episodes] == [0, 1, 2]
    np.testing.assert_array_equal(features.ticks(features.episodes[2]).goal, rec.episode(2, "remember").goal)
    np.testing.assert_allclose(features.ticks(features.episodes[2]).z, rec.episode(2, "remember").z, atol=1e-2)
    assert f"{name} is shorter than its index: 2 of 5 episodes are not whole, they are left out" in caplog.text
    assert [e.episode for e in recorded_below(tmp_path, rec.meta())] == [0, 1, 2]
    assert {file: (tmp_path / file).read_bytes() for file in before} == before


@pytest.mark.parametrize("name", NAMES)
def test_a_writer_drops_what_is_cut_and_goes_on_to_the_files_of_an_uncut_recording(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    added(tmp_path / "whole", range(5)).close()
    added(tmp_path / "cut", range(5)).close()
    cut(tmp_path / "cut", name, 65.5)
    writer = added(tmp_path / "cut", range(0))
    assert [e.episode for e in writer.episodes] == [0, 1, 2]
    assert "2 of 5 episodes are not whole, they are recorded again" in caplog.text
    sizes = {file: (tmp_path / "cut" / file).stat().st_size for file in NAMES}
    assert sizes == {file: 60 * rec.meta().tick_bytes[file] for file in NAMES}
    writer.close()
    added(tmp_path / "cut", range(3, 5)).close()
    for file in (*NAMES, "episodes.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_recording_of_which_nothing_is_whole_is_refused_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("worker-0", "worker-1"):
        added(tmp_path / part, range(3)).close()
    cut(tmp_path / "worker-0", "chunk", 19.5)
    with pytest.raises(FeaturesError, match="chunk is shorter than the first of its 3 recorded episodes: record again"):
        open_features([tmp_path / "worker-0"])
    with caplog.at_level(logging.WARNING):
        assert len(open_features([tmp_path])) == 1  # the other part's
    assert "3 of 3 episodes are not whole, they are left out" in caplog.text
    added(tmp_path / "worker-0", range(3)).close()
    assert [len(features.episodes) for features in open_features([tmp_path])] == [3, 3]


def test_a_folder_takes_one_writer_at_a_time(tmp_path: Path) -> None:
    first = FeatureWriter(tmp_path, rec.meta(), rec.contexts())
    with pytest.raises(FeaturesError, match="another process records into"):
        FeatureWriter(tmp_path, rec.meta(), rec.contexts())
    first.add("remember", 0, "expert", rec.episode(0, "remember"), True)
    first.close()
    FeatureWriter(tmp_path, rec.meta(), rec.contexts()).close()
    assert [e.episode for e in Features(tmp_path).episodes] == [0]


def test_features_of_another_policy_are_refused_and_both_are_named(tmp_path: Path) -> None:
    rec.record(tmp_path, 1)
    other = replace(rec.POLICY, fingerprint="abc-9999")
    with pytest.raises(FeaturesError, match=r"abc-0123.*abc-9999"):
        Features(tmp_path, other)
    with pytest.raises(FeaturesError, match=r"abc-0123.*abc-9999"):
        FeatureWriter(tmp_path, rec.meta(other), rec.contexts())


def test_a_recording_of_another_memory_is_not_continued(tmp_path: Path) -> None:
    FeatureWriter(tmp_path, replace(rec.meta(), memory="aura:01"), rec.contexts()).close()
    with pytest.raises(FeaturesError, match=r"another memory \('aura:01', not 'aura:02'\): record into another folder"):
        FeatureWriter(tmp_path, replace(rec.meta(), memory="aura:02"), rec.contexts())
    path = tmp_path / "meta.json"
    body = json.loads(path.read_text())
    del body["memory"]  # as before recordings described it
    path.write_text(json.dumps(body))
    writer = FeatureWriter(tmp_path, replace(rec.meta(), memory="aura:02"), rec.contexts())
    writer.add("remember", 0, "expert", rec.episode(0, "remember"), True)
    writer.close()
    features = Features(tmp_path)
    described = [asdict(features.meta), *map(asdict, features.episodes)]
    assert described[0].pop("memory") == ""  # an older recording keeps its digest, which trained controls name
    assert features.digest == hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def test_recordings_of_two_policies_are_not_mixed(tmp_path: Path) -> None:
    rec.record(tmp_path / "a", 1)
    other = FeatureWriter(tmp_path / "b", rec.meta(replace(rec.POLICY, fingerprint="other")), rec.contexts())
    other.add("remember", 0, "expert", rec.episode(0, "remember"), True)
    other.close()
    with pytest.raises(FeaturesError, match="record again"):
        open_features([tmp_path])
    assert len(open_features([tmp_path / "a"])) == 1


def test_recordings_with_several_memories_are_used_together_but_not_those_of_other_goals(tmp_path: Path) -> None:
    for name, changed in (("a", {}), ("b", {"memory": "aura:01"}), ("c", {"suite": "another"})):
        writer = FeatureWriter(tmp_path / name, replace(rec.meta(), **changed), rec.contexts())
        writer.add("remember", 0, "expert", rec.episode(0, "remember"), True)
        writer.close()
    assert len(open_features([tmp_path / "a", tmp_path / "b"])) == 2
    with pytest.raises(FeaturesError, match=r"another suite .* leave one of the two out"):
        open_features([tmp_path / "a", tmp_path / "c"])


@pytest.mark.parametrize("broken", ["nothing", "no meta", "short column", "no episode"])
def test_a_folder_that_is_no_recording_is_refused(tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "f"
    if broken == "no meta":
        folder.mkdir()
        (folder / "meta.json").write_text("{}")
    elif broken == "short column":
        rec.record(folder, 2)
        (folder / "z").write_bytes(b"")
    elif broken == "no episode":
        FeatureWriter(folder, rec.meta(), rec.contexts()).close()
    with pytest.raises(FeaturesError, match=r"no recording|shorter|no whole episode|holds no features"):
        open_features([folder])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_features_that_are_not_finite_on_disk_are_refused_and_the_recording_goes_on(
    tmp_path: Path, value: float
) -> None:
    writer = FeatureWriter(tmp_path, rec.meta(), rec.contexts())
    ticks = rec.episode(0, "remember")
    bad = ticks.chunk.copy()
    bad[3] = value
    for broken in (replace(ticks, chunk=bad), replace(ticks, chunk=bad[:, :1]), EpisodeTicks(*([ticks.z[:0]] * 4))):
        with pytest.raises(
            ValueError, match=r"column chunk of episode 0 of 'remember' has NaN|column . is|column chunk is"
        ):
            writer.add("remember", 0, "expert", broken, True)
    writer.add("remember", 1, "expert", rec.episode(1, "remember"), True)
    writer.close()
    features = Features(tmp_path)
    np.testing.assert_allclose(features.ticks(features.episodes[0]).z, rec.episode(1, "remember").z, atol=1e-2)


@pytest.mark.parametrize(
    ("file", "content"),
    [("episodes.jsonl", b'{"task": 3\n'), ("episodes.jsonl", b'{"name": 3}\n'), ("contexts.npy", b"half"), ("z", None)],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    rec.record(tmp_path, 2)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(FeaturesError, match=f"{file} .*record again"):
        Features(tmp_path)


def test_columns_of_another_size_are_refused(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, rec.meta(), rec.contexts())
    ticks = rec.episode(0, "remember")
    with pytest.raises(ValueError, match="column z is"):
        writer.add("remember", 0, "expert", replace(ticks, z=ticks.z[:, :3]), True)
    writer.close()
