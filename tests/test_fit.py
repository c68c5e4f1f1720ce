"""memory/train: batches, fit, gate and on_device, on recordings made without a simulator."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import recorded_features as rec

from vlamem.core.seeding import stream
from vlamem.memory.designs import make_design
from vlamem.memory.designs.aura import AuraConfig, AuraMemory, AuraTick
from vlamem.memory.train.batches import TargetOptions, TrainingSet
from vlamem.memory.train.checkpoint import Checkpoint
from vlamem.memory.train.compiled import masked
from vlamem.memory.train.features import EpisodeTicks, FeatureWriter, open_features
from vlamem.memory.train.fit import Patience, TrainingOptions, head_parts, held_out_score, train_memory
from vlamem.memory.train.gate import (
    GateOptions,
    data_for,
    head_for,
    held_out_score_of,
    memory_for,
    train_gate,
    tune_on_robot,
)
from vlamem.memory.train.loop import TrainConfig
from vlamem.memory.train.on_device import TuneOptions, tune_gate
from vlamem.memory.weights import load_weights

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty episodes of a memory task and of a skill."""
    return rec.record(tmp_path_factory.mktemp("features"))


def options(recording: Path) -> GateOptions:
    return GateOptions((recording,), updates=300, ticks=48, rows=8, hidden=32, write_cost=0.05, seed=1)


def tick_of(path: Path, gate: str = "learned") -> AuraTick:
    """The robot's tick of a weights file, under its own gate or another."""
    header, arrays = load_weights(path, rec.POLICY)
    return AuraTick(replace(AuraConfig.from_config(header.config), gate=gate), arrays)


def columns_of(ticks: EpisodeTicks) -> list[np.ndarray]:
    return [ticks.z, ticks.chunk, ticks.goal, ticks.asked]


@pytest.fixture(scope="module")
def gate(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate trained on the recording."""
    path, _ = train_gate(options(recording), tmp_path_factory.mktemp("gate"))
    return path


def test_the_target_of_a_query_is_the_residual_to_the_oracle_instruction(recording: Path) -> None:
    data = TrainingSet(open_features([recording]), TargetOptions())
    rows, resets = data.labelled(48, 4, stream(0, "test"))
    assert resets.any()
    for row in rows:
        for t in np.flatnonzero(row.query):
            oracle = row.feature[t, rec.D :] + row.residual[t]
            np.testing.assert_allclose(oracle, data.canonical[row.goal[t, 1]], atol=1e-5)
        skill = row.goal[:, 0] == row.goal[:, 1]
        assert not row.residual[skill].any()
        assert (row.weight[~skill & (row.query == 0)] == 0).all()


def test_a_stream_is_trained_on_question_by_question_and_goes_on_without_a_reset(tmp_path: Path) -> None:
    writer = FeatureWriter(rec.record(tmp_path, 10, ("skill",)), rec.meta(), rec.contexts())
    parts = [rec.episode(number, "remember") for number in range(3)]
    three = EpisodeTicks(*(np.concatenate(columns) for columns in zip(*map(columns_of, parts), strict=True)))
    writer.add("remember", 0, "expert", three, True)
    writer.close()
    data = TrainingSet(open_features([tmp_path]), TargetOptions(long=0.5, keep=1.0))
    assert data.streams == ("remember",)
    first = data.training["remember"][0][1].first
    assert [(e.first - first, e.ticks) for _, e in data.training["remember"]] == [(0, 20), (20, 20), (40, 20)]
    rows, resets = data.labelled(48, 8, stream(0, "test"))
    assert not resets[:, :4].any()
    assert all(row.query.any() for row in rows[:4])
    assert (resets[:, 4:].sum(axis=0) == 3).all()  # episodes of 20 ticks in a row of 48


def test_held_out_layouts_are_never_trained_on(recording: Path) -> None:
    data = TrainingSet(open_features([recording]), TargetOptions())
    for task in data.tasks:
        trained = {e.episode for _, e in data.training[task]}
        held = {e.episode for _, e in data.held_out[task]}
        assert held
        assert not trained & held


def test_a_trained_memory_proposes_the_answer_after_the_cue_is_gone_and_abstains_before(
    recording: Path, gate: Path
) -> None:
    canonical, row = rec.contexts()[:, 0], tick_of(gate)
    right, before, after, writes = 0, [], [], 0
    for number in range(60, 80):
        ticks, own = rec.episode(number, "remember"), rec.contexts()[0, 1]
        row.reset()
        for t, z in enumerate(ticks.z):
            out = row.tick(np.concatenate([z, own]).astype(np.float32))
            writes += out.wrote
            (after if ticks.asked[t] else before).append(out.confidence) if t != 7 else None
        assert out.context is not None
        nearest = np.linalg.norm(canonical - (own + out.context), axis=1).argmin()
        right += int(nearest == ticks.goal[-1, 1])
    assert right >= 17
    assert np.mean(after) > np.mean(before) + 0.2
    assert 20 <= writes < 200


def test_a_trained_memory_abstains_in_a_skill(gate: Path) -> None:
    row = tick_of(gate)
    ticks = rec.episode(70, "skill")
    own = rec.contexts()[ticks.goal[0, 0], 1]
    confidences = [row.tick(np.concatenate([z, own]).astype(np.float32)).confidence for z in ticks.z]
    assert np.mean(confidences) < 0.4


def test_the_weights_file_says_what_it_was_trained_for_and_how(gate: Path, recording: Path) -> None:
    header, arrays = load_weights(gate, rec.POLICY)
    assert header.command == "vlamem train-gate"
    assert header.metrics["held_out_right"] > 0.7
    shifts = [v for k, v in sorted(header.metrics.items()) if k.startswith("threshold_shift@")]
    assert len(shifts) == 6
    assert header.metrics["threshold_shift@0.005"] >= header.metrics["threshold_shift@0.2"]
    assert (gate.parent / "curves.json").exists()
    assert header.feature_size == rec.D + rec.C
    assert header.config["bound"] is not None
    assert header.config["bound"] > 1
    assert np.abs(arrays["head.z"][: rec.D, :16]).max() == 0


def test_a_killed_training_goes_on_to_the_same_weights(recording: Path, tmp_path: Path) -> None:
    short = replace(options(recording), updates=24)

    class KilledError(Exception):
        pass

    def kill(update: int, last: dict[str, float]) -> None:
        if update == 17:
            raise KilledError

    whole, _ = train_gate(short, tmp_path / "whole")
    from vlamem.memory.train import gate as train_module

    how = replace(short.training(), checkpoint_every=8)
    object.__setattr__(short, "training", lambda: how)
    with pytest.raises(KilledError):
        train_module.train_gate(short, tmp_path / "killed", kill)
    resumed, trained = train_module.train_gate(short, tmp_path / "killed")
    assert trained.updates == 24
    first, second = load_weights(whole)[1], load_weights(resumed)[1]
    for name, array in first.items():
        np.testing.assert_allclose(array, second[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_checkpoint_is_written_when_a_minute_has_passed_and_changes_nothing(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = TrainingSet(open_features([recording]), TargetOptions())
    memory = make_design("gru?hidden=8", data.feature_size, head_for(data, 8))  # of what is quickly compiled
    how = TrainingOptions(TrainConfig(7), 16, 2)
    saved: list[int] = []
    save = Checkpoint.save
    monkeypatch.setattr(
        Checkpoint, "save", lambda self, tree, done, *more: (saved.append(done), save(self, tree, done, *more))
    )
    params = []
    for name, pace in (("still", 0.0), ("slow", 25.0)):
        clock = itertools.count(0.0, pace)
        params.append(
            train_memory(memory, data, replace(how, calibration=2), tmp_path / name, clock=clock.__next__).params
        )
    assert saved == [7, 3, 6, 7]
    for still, slow in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_array_equal(still, slow)


def test_patience_counts_looks_without_a_lower_error_once_the_cost_has_come() -> None:
    patience, waited = Patience(TrainConfig(updates=100, ramp=(0.2, 0.4))), []
    for update, error in ((20, 0.1), (40, 0.5), (50, 0.5), (60, 0.6), (70, 0.4), (80, 0.4)):
        patience.see({"update": update, "held_out_error": error})
        waited.append(patience.waited)
    assert waited == [0, 0, 1, 2, 0, 1]


def test_patience_is_not_lost_over_looks_at_nothing() -> None:
    patience = Patience(TrainConfig(updates=100, ramp=(0.0, 0.0)))
    for update in range(10, 100, 10):
        patience.see({"update": update, "held_out_error": np.nan})
    assert patience.waited == 0


def test_a_gate_that_was_held_to_a_budget_is_given_figures_of_its_own(recording: Path, tmp_path: Path) -> None:
    short = replace(options(recording), updates=2)
    path, free = train_gate(short, tmp_path / "free")
    assert free.score.rate > 0.1
    held = replace(short, budget=0.02)
    path, trained = train_gate(held, tmp_path / "held")
    assert trained.score.rate < 0.06
    assert load_weights(path)[0].metrics["writes_per_tick"] == pytest.approx(trained.score.rate, abs=1e-5)
    assert held_out_score_of(path, held).rate == pytest.approx(trained.score.rate)


def test_every_tick_of_a_held_out_episode_and_none_of_its_padding_counts_for_the_rate(recording: Path) -> None:
    periodic = replace(options(recording), gate="periodic", rate=1 / 20)
    data = data_for(periodic)
    memory = memory_for(periodic, data)
    score = held_out_score(memory, memory.init_params(jax.random.key(0)), data, periodic.training())
    assert score.rate == pytest.approx(1 / 20)  # episodes of 20 ticks


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"budget": 0.0}, "budget is 0.0"),
        ({"budget": 2.0}, "budget is 2.0"),
        ({"budget": 0.1, "gate": "always"}, "leave out --budget"),
        ({"ticks": 0}, "ticks is 0"),
        ({"rows": -1}, "rows is -1"),
        ({"updates": 0}, "updates is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"learning_rate": -0.1}, "learning_rate -0.1"),
        ({"write_cost": float("nan")}, "write_cost nan"),
    ],
)
def test_impossible_options_of_a_training_are_named(recording: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(options(recording), **given)


def test_a_folder_with_another_training_is_refused(recording: Path, gate: Path, tmp_path: Path) -> None:
    done = options(recording)
    with pytest.raises(ValueError, match="holds another training"):
        train_gate(replace(done, seed=2), gate.parent)
    more = rec.record(tmp_path / "more", 12)
    with pytest.raises(ValueError, match="holds another training"):
        train_gate(replace(done, features=(recording, more)), gate.parent)


def test_a_training_can_start_from_a_gate(recording: Path, gate: Path, tmp_path: Path) -> None:
    begun = replace(options(recording), updates=2, learning_rate=1e-3, start_from=gate, hidden=99)
    path, trained = train_gate(begun, tmp_path)
    assert trained.score.right > 0.7  # two updates teach a fresh memory nothing
    header, arrays = load_weights(path, rec.POLICY)
    before = load_weights(gate)[1]
    assert header.head.hidden == 32
    np.testing.assert_allclose(arrays["Wk"], before["Wk"], atol=0.05)
    np.testing.assert_array_equal(arrays["mean"], before["mean"])
    with pytest.raises(ValueError, match="holds another training"):
        train_gate(replace(begun, start_from=path), tmp_path)


def test_what_a_training_cannot_start_from_is_named(recording: Path, gate: Path, tmp_path: Path) -> None:
    begun = replace(options(recording), updates=5, start_from=gate)
    with pytest.raises(ValueError, match="see --targets"):
        train_gate(replace(begun, targets="context"), tmp_path)
    with pytest.raises(ValueError, match="only learned gates"):
        train_gate(replace(begun, gate="always"), tmp_path)


def test_a_tuned_gate_is_given_figures_of_its_own(recording: Path, gate: Path, tmp_path: Path) -> None:
    short = replace(options(recording), updates=4)
    path, _ = tune_on_robot(short, gate, tmp_path)
    assert load_weights(path)[0].metrics.keys() == {"tuning_state_bytes"}
    score = held_out_score_of(path, short, keep=True)
    found = load_weights(path)[0].metrics
    assert found["held_out_right"] == pytest.approx(score.right, abs=1e-5)
    assert found["threshold_shift@0.005"] >= found["threshold_shift@0.2"]
    assert held_out_score_of(gate, short).right == pytest.approx(
        load_weights(gate)[0].metrics["held_out_right"], abs=1e-5
    )


def test_the_head_says_without_seeing_and_moves_with_seeing(recording: Path) -> None:
    data = TrainingSet(open_features([recording]), TargetOptions())
    memory = AuraMemory(AuraConfig(data.feature_size, head_for(data, 16)))
    params = masked(memory.init_params(jax.random.key(0)), head_parts(memory, data))
    z = stream(0, "z").standard_normal((5, data.feature_size)).astype(np.float32)
    other = z.copy()
    other[:, : rec.D] += 1.0
    logits = []
    for features in (z, other):
        hidden = np.maximum(features @ params.head.z, 0)
        logits.append(np.asarray(hidden @ params.head.out))
    size = rec.CHUNK[0] * rec.CHUNK[1]
    np.testing.assert_allclose(logits[0][:, 1 + size :], logits[1][:, 1 + size :], atol=1e-5)
    assert np.abs(logits[0][:, 1 : 1 + size] - logits[1][:, 1 : 1 + size]).max() > 0.1


def test_where_nothing_is_to_be_remembered_the_gate_learns_to_shut_and_the_memory_to_abstain(
    recording: Path, tmp_path: Path
) -> None:
    path, trained = train_gate(replace(options(recording), tasks=("skill",), targets="context", updates=400), tmp_path)
    assert trained.history[0]["held_rate"] > 0.3
    assert np.isnan(trained.score.right)
    assert 0 < trained.score.error < 0.1
    assert trained.score.rate <= 1 / 19  # once an episode
    confidences = []
    for gate in ("learned", "always"):
        row = tick_of(path, gate)
        for number in range(60, 65):
            ticks = rec.episode(number, "skill")
            own = rec.contexts()[ticks.goal[0, 0], 1]
            row.reset()
            outs = [row.tick(np.concatenate([z, own]).astype(np.float32)) for z in ticks.z]
            assert sum(o.wrote for o in outs) <= 2 if gate == "learned" else all(o.wrote for o in outs)
            confidences += [o.confidence for o in outs]
    assert max(confidences) < 0.1


def test_a_gate_is_tuned_within_256_kib_and_nothing_else_moves(recording: Path, gate: Path, tmp_path: Path) -> None:
    short = replace(options(recording), updates=30, write_cost=0.5)
    path, tuned = tune_on_robot(short, gate, tmp_path)
    assert tuned.state_bytes <= 256 * 1024
    assert tuned.working_bytes > 0
    before, after = load_weights(gate)[1], load_weights(path, rec.POLICY)[1]
    moved = {name for name, array in before.items() if not np.allclose(array, after[name], rtol=1e-4, atol=1e-6)}
    assert moved
    assert all(name.startswith("gate.") for name in moved)


def test_a_bound_takes_no_more_memory_of_an_update(recording: Path) -> None:
    data = TrainingSet(open_features([recording]), TargetOptions(answers=False))
    config = AuraConfig(data.feature_size, head_for(data, 16))
    params = AuraMemory(config).init_params(jax.random.key(0))
    free, bounded = (
        tune_gate(AuraMemory(replace(config, bound=bound)), params, data, TuneOptions(2, ticks=64))
        for bound in (None, 2.0)
    )
    assert bounded.working_bytes < 1.5 * free.working_bytes
    assert bounded.state_bytes == free.state_bytes


def test_tuning_refuses_a_gate_without_parameters_and_a_state_that_is_too_large(recording: Path) -> None:
    data = TrainingSet(open_features([recording]), TargetOptions())
    head = head_for(data, 16)
    always = AuraMemory(AuraConfig(data.feature_size, head, gate="always"))
    with pytest.raises(ValueError, match="only a learned one"):
        tune_gate(always, always.init_params(jax.random.key(0)), data, TuneOptions())
    wide = AuraMemory(AuraConfig(data.feature_size, head, gate_hidden=1024))
    with pytest.raises(ValueError, match="more than the 262144"):
        tune_gate(wide, wide.init_params(jax.random.key(0)), data, TuneOptions())
