"""Files of version 0.1 still load: success memories, their snapshots, and a server's state folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from vlamem.memory.success import ActionPart, Layout, MemoryOptions, Origin, OriginError, SuccessMemory, open_store
from vlamem.memory.success.store import import_snapshot
from vlamem.scripts.main import main

FILES = Path(__file__).parent / "data" / "v01"
LAYOUT = Layout(
    6,
    4,
    (
        ActionPart("translation", 3, "linear"),
        ActionPart("rotation", 3, "axis_angle", 0.5),
        ActionPart("gripper", 1, "vote"),
    ),
    (0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.05),
    3,
)
ORIGIN = Origin("policy-a", "weights-a", "normaliser-a", "panda")
OTHER = Origin("policy-a", "weights-b", "normaliser-a", "panda")
OPTIONS = MemoryOptions(merge_similarity=2.0)


@pytest.fixture
def files(tmp_path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(FILES, tmp_path / "v01"))


def answers_as_before(memory: SuccessMemory) -> None:
    with np.load(FILES / "calibrated_query.npz") as before:
        found = memory.query(before["keys"], before["proprioception"], ["go home"] * 40)
        np.testing.assert_allclose(found.chunk_weight, before["confidence"], atol=1e-6)
        assert found.chunk is not None
        np.testing.assert_allclose(found.chunk, before["chunk"], atol=1e-6)
        other = memory.query(before["keys"], before["proprioception"], ["another job"] * 40)
        np.testing.assert_array_equal(other.chunk_weight, before["other_confidence"])


def test_a_calibrated_memory_opens_whole_and_proposes_what_it_proposed(files):
    with SuccessMemory(files / "calibrated.db", ORIGIN, LAYOUT, OPTIONS) as memory:
        assert memory.verify() == 124
        assert (len(memory), len(memory.failures)) == (120, 4)
        assert memory.successes.column("uses").sum() == 12
        with np.load(FILES / "calibrated_query.npz") as before:
            assert memory.retrieve.threshold == before["threshold"]
            assert memory.metric.weight == before["proprioception_weight"]
        answers_as_before(memory)


def test_a_snapshot_is_imported_with_its_calibration(files, tmp_path):
    store = open_store(tmp_path / "new.db")
    assert import_snapshot(store, files / "calibrated.safetensors").segments == 124
    store.close()
    with SuccessMemory(tmp_path / "new.db", ORIGIN, LAYOUT, OPTIONS) as memory:
        assert memory.verify() == 124
        with np.load(FILES / "calibrated_query.npz") as before:
            assert memory.retrieve.threshold == before["threshold"]


def test_two_origins_stay_apart_and_a_third_is_refused(files):
    for origin, segments in ((ORIGIN, 20), (OTHER, 8)):
        with SuccessMemory(files / "two_origins.db", origin, LAYOUT, OPTIONS) as memory:
            assert len(memory) == segments
    with pytest.raises(OriginError, match="robot is 'panda'"):
        SuccessMemory(files / "two_origins.db", Origin("policy-a", "weights-a", "normaliser-a", "ur5"), LAYOUT)


def test_a_state_folder_is_read_by_the_command_line(files, capsys):
    assert main(["state", "show", str(files / "serve")]) == 0
    assert "arm-1" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["info", "verify", "export"])
def test_a_memory_of_version_0_1_is_looked_at_by_every_verb(verb, files, capsys):
    words = ["--to", str(files / "out.safetensors")] if verb == "export" else []
    assert main(["memory", verb, str(files / "calibrated.db"), *words]) == 0
    assert "4" in capsys.readouterr().out


def test_a_memory_of_version_0_1_that_is_only_read_stays_as_it_is(files):
    before = (files / "calibrated.db").read_bytes()
    store = open_store(files / "calibrated.db", read_only=True)
    (number, _, _), *_ = store.origins()
    assert store.trials(number) == []
    assert store.calibration(number) is not None
    store.close()
    assert (files / "calibrated.db").read_bytes() == before
