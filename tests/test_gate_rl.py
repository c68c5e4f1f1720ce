"""sim/gate_rl.py: a gate tuned on success in a small suite, with kills in between."""

import json
from pathlib import Path

import jax
import numpy as np
import point_mass
import pytest
from test_rollout_memory import HEAD, Wide

from vlamem.memory.designs.aura import AuraConfig
from vlamem.memory.designs.aura.step import AuraMemory
from vlamem.memory.protocol import named_arrays
from vlamem.memory.train.policy_gradient import RlOptions, Step
from vlamem.memory.weights import Header, TrainedFor, WeightsError, identity, load_weights, save_weights
from vlamem.sim.record.gate_rl import tune_in_suite
from vlamem.sim.suites.protocol import SuiteError

HOW = RlOptions(updates=3, groups=2, group=3, learning_rate=0.05, write_price=1.0, temperature=1.0)


class KilledError(Exception):
    pass


def gate_in(folder: Path, seed: int = 0, trained_for: TrainedFor | None = None) -> Path:
    """An untrained gate of the wide point-mass policy, which its file says has figures."""
    config = AuraConfig(16, HEAD)
    arrays = named_arrays(AuraMemory(config).init_params(jax.random.key(seed)))
    header = Header.of(AuraMemory(config), trained_for or identity(Wide().spec, None), "test", {"held_out_right": 0.9})
    save_weights(folder / f"{seed}.safetensors", header, arrays)
    return folder / f"{seed}.safetensors"


def tune(gate: Path, out: Path, seen: list[Step], tasks: tuple[str, ...] = ("near",), die_after: int = 99) -> Path:
    def progress(step: Step) -> None:
        seen.append(step)
        if len(seen) == die_after:
            raise KilledError

    words = ("test_rollout_memory:wide", gate, tasks, HOW, out, "vlamem train-gate")
    return tune_in_suite(*words, execute=4, suite="point_mass:SUITE", progress=progress)[0]


def test_a_killed_tuning_goes_on_to_the_gate_that_an_undisturbed_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, played = gate_in(tmp_path), []
    reset = point_mass.PointMass.reset
    monkeypatch.setattr(
        point_mass.PointMass, "reset", lambda self, **given: (played.append(given["options"]), reset(self, **given))[1]
    )
    whole: list[Step] = []
    path = tune(gate, tmp_path / "whole", whole)
    assert len(played) == 3 * 2 * 3
    assert {o["split"] for o in played} == {"train"}
    assert [o["episode"] for o in played[:4]] == [200_000] * 3 + [200_001]
    assert sum(step.telling for step in whole) > 0
    played.clear()
    with pytest.raises(KilledError):
        tune(gate, tmp_path / "killed", [], die_after=2)
    assert not (tmp_path / "killed" / "gate.safetensors").exists()
    assert len(played) == 2 * 2 * 3
    again: list[Step] = []
    resumed = tune(gate, tmp_path / "killed", again)
    assert len(played) == 3 * 2 * 3
    assert again == whole
    curves = json.loads((tmp_path / "killed" / "curves.json").read_text())
    assert curves == [{"update": i, **step._asdict()} for i, step in enumerate(whole, 1)]
    assert (tmp_path / "killed" / "curves.png").exists()
    header, arrays = load_weights(resumed)
    assert header.metrics == {"rl_success": whole[-1].success, "rl_writes_per_tick": whole[-1].rate}
    before, undisturbed = load_weights(gate)[1], load_weights(path)[1]
    for name, array in arrays.items():
        np.testing.assert_allclose(array, undisturbed[name], rtol=1e-5, atol=1e-6, err_msg=name)
        if not name.startswith("gate."):
            np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert any(not np.array_equal(arrays[n], before[n]) for n in arrays if n.startswith("gate."))


def test_a_folder_of_another_gate_and_what_cannot_be_tuned_are_refused(tmp_path: Path) -> None:
    gate = gate_in(tmp_path)
    with pytest.raises(KilledError):
        tune(gate, tmp_path / "run", [], die_after=1)
    with pytest.raises(ValueError, match="holds another training"):
        tune(gate_in(tmp_path, 1), tmp_path / "run", [])
    with pytest.raises(ValueError, match="holds another training"):
        tune(gate, tmp_path / "run", [], ("far",))
    with pytest.raises(SuiteError, match="near"):
        tune(gate, tmp_path / "other", [], ("neer",))
    with pytest.raises(WeightsError, match="was trained for policy"):
        tune(gate_in(tmp_path, 2, TrainedFor("points", "other", "none")), tmp_path / "other", [])
