import json

import numpy as np
import pytest
from aura_cases import arrays, learned
from safetensors.numpy import save_file

from vlamem.memory.weights import Header, TrainedFor, WeightsError, load_weights, save_weights

POLICY = TrainedFor("smolvla_base", "f00d", "beef")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "gate.safetensors"
    save_weights(path, Header.of(learned()[0], POLICY, "vlamem train-gate", {"rate": 0.1}), arrays())
    return path


def test_weights_come_back_as_they_were_saved(saved):
    header, loaded = load_weights(saved, POLICY, 32)
    assert header == Header.of(learned()[0], POLICY, "vlamem train-gate", {"rate": 0.1})
    assert loaded.keys() == arrays().keys()
    for name, array in arrays().items():
        assert loaded[name].shape == np.shape(array)
        np.testing.assert_array_equal(loaded[name], array)
    assert any(array.shape == () for array in loaded.values())


def test_a_disk_that_fills_leaves_the_weights_that_were_there(saved, monkeypatch):
    before = saved.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved, load_weights(saved)[0], arrays())
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("used_with", "both"),
    [
        (TrainedFor("pi0", "cafe", "beef"), r"smolvla_base.*f00d.*pi0.*cafe"),
        (TrainedFor("smolvla_base", "f00d", "dead"), r"normaliser beef.*normaliser dead"),
    ],
)
def test_weights_of_another_policy_are_an_error_that_names_both(saved, used_with, both):
    with pytest.raises(WeightsError, match=both):
        load_weights(saved, used_with)


def test_weights_for_another_feature_size_are_an_error_that_names_both(saved):
    with pytest.raises(WeightsError, match=r"feature size 512 does not match this gate \(32\).*smolvla_base"):
        load_weights(saved, feature_size=512)


def test_broken_foreign_and_newer_files_are_errors(tmp_path, saved):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(saved.read_bytes()[:100])
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_weights(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": np.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match="no vlamem header"):
        load_weights(foreign)
    newer = tmp_path / "newer.safetensors"
    save_file({"x": np.zeros(1)}, newer, {"vlamem": json.dumps({"format": 99})})
    with pytest.raises(WeightsError, match="another version"):
        load_weights(newer)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"parameter Wk is not finite"):
        save_weights(tmp_path / "x.safetensors", Header.of(learned()[0], POLICY, "", {}), {"Wk": np.array([np.nan])})
