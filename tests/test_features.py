"""policies/features.py"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recorded_features as rec

from vlamem.policies.features import Features, FeaturesError, FeatureWriter, open_features


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


def test_features_of_another_policy_are_refused_and_both_are_named(tmp_path: Path) -> None:
    rec.record(tmp_path, 1)
    other = replace(rec.POLICY, fingerprint="abc-9999")
    with pytest.raises(FeaturesError, match=r"abc-0123.*abc-9999"):
        Features(tmp_path, other)
    with pytest.raises(FeaturesError, match=r"abc-0123.*abc-9999"):
        FeatureWriter(tmp_path, rec.meta(other), rec.contexts())


def test_recordings_of_two_policies_are_not_mixed(tmp_path: Path) -> None:
    rec.record(tmp_path / "a", 1)
    other = FeatureWriter(tmp_path / "b", rec.meta(replace(rec.POLICY, fingerprint="other")), rec.contexts())
    other.add("remember", 0, "expert", rec.episode(0, "remember"), True)
    other.close()
    with pytest.raises(FeaturesError, match="record again"):
        open_features([tmp_path])
    assert len(open_features([tmp_path / "a"])) == 1


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


def test_columns_of_another_size_are_refused(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, rec.meta(), rec.contexts())
    ticks = rec.episode(0, "remember")
    with pytest.raises(ValueError, match="column z is"):
        writer.add("remember", 0, "expert", replace(ticks, z=ticks.z[:, :3]), True)
    writer.close()
