"""memory/train/budget.py: the rate of writes that is held is that of recorded episodes in use."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import recorded_features as rec

from vlamem.core.seeding import stream
from vlamem.memory.designs.aura import AuraConfig, AuraMemory, AuraTick, HeadConfig
from vlamem.memory.designs.aura.kind import with_threshold_moved
from vlamem.memory.protocol import named_arrays
from vlamem.memory.train.batches import TargetOptions, TrainingSet
from vlamem.memory.train.budget import BUDGETS, shift_for
from vlamem.memory.train.features import FeatureWriter, open_features
from vlamem.memory.train.gate import GateOptions, recalibrate, train_gate
from vlamem.memory.weights import Header, load_weights, save_weights

TICKS = 20
EPISODES = 20


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty episodes of two tasks, every sentence in one wording."""
    folder = tmp_path_factory.mktemp("features")
    writer = FeatureWriter(folder, rec.meta(), np.repeat(rec.contexts()[:, :1], 3, axis=1))
    for number in range(EPISODES):
        for task in ("remember", "skill"):
            writer.add(task, number, "expert", rec.episode(number, task), True)
    writer.close()
    return folder


def writes(path: Path, recording: Path, shift: float) -> int:
    """Writes over every recorded episode, tick by tick as on a robot, with the threshold moved."""
    header, arrays = load_weights(path)
    row, count = AuraTick(AuraConfig.from_config(header.config), with_threshold_moved(arrays, shift)), 0
    for features in open_features([recording]):
        for line in features.episodes:
            ticks = features.ticks(line)
            row.reset()
            own = features.contexts[ticks.goal[:, 0], 0]
            count += sum(row.tick(z).wrote for z in np.concatenate([ticks.z, own], axis=1, dtype=np.float32))
    return count


def untrained(folder: Path) -> Path:
    """A gate that writes at most ticks, whose file says wrong budgets."""
    config = AuraConfig(rec.D + rec.C, HeadConfig(chunk=rec.CHUNK, context=rec.C, hidden=8), bound=3.0)
    arrays = named_arrays(AuraMemory(config).init_params(jax.random.key(0)))
    metrics = {"held_out_right": 0.5, "threshold_shift@0.05": -9.0}
    header = Header.of(AuraMemory(config), rec.POLICY, "as it was trained", metrics)
    save_weights(folder / "start.safetensors", header, arrays)
    return folder / "start.safetensors"


def test_a_budget_holds_over_every_recorded_episode_whatever_was_trained_on(recording: Path, tmp_path: Path) -> None:
    # rows of one task, that end where its cue begins: held on those alone, this gate writes on 35 % of all ticks
    how = GateOptions((recording,), updates=2, ticks=4, rows=4, hidden=8, weights=(("skill", 0.0),), budget=0.02)
    path, trained = train_gate(how, tmp_path)
    whole = 2 * EPISODES * TICKS
    assert writes(path, recording, 0.0) <= 0.02 * whole + 1  # a tie is rounded another way in NumPy
    assert trained.score.rate <= 0.05  # of four episodes
    metrics = load_weights(path)[0].metrics
    for budget in BUDGETS:
        found = writes(path, recording, metrics[f"threshold_shift@{budget:g}"])
        assert found <= budget * whole + 1
        if budget >= 0.1:
            assert found > 0.5 * budget * whole


def test_the_held_out_rate_is_that_of_whole_episodes(recording: Path, tmp_path: Path) -> None:
    how = GateOptions((recording,), gate="periodic", rate=1 / TICKS, updates=1, ticks=4, rows=2, hidden=8)
    assert train_gate(how, tmp_path)[1].score.rate == pytest.approx(1 / TICKS)  # written at each one's last tick


def test_the_budgets_of_a_file_are_measured_anew_and_nothing_else_changes(recording: Path, tmp_path: Path) -> None:
    start = untrained(tmp_path)
    path, shifts = recalibrate(start, GateOptions((recording,)), tmp_path / "anew")
    (was, arrays), (now, copied) = load_weights(start), load_weights(path)
    assert arrays.keys() == copied.keys()
    for name, array in arrays.items():
        assert array.dtype == copied[name].dtype
        assert array.tobytes() == copied[name].tobytes()
    assert now == replace(was, metrics={**was.metrics, **shifts})
    assert shifts.keys() == {f"threshold_shift@{b:g}" for b in BUDGETS}
    assert writes(path, recording, shifts["threshold_shift@0.05"]) <= 0.05 * 2 * EPISODES * TICKS + 1
    again, _ = recalibrate(start, GateOptions((recording,)), tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()


def test_the_threshold_rises_no_further_than_a_budget_asks() -> None:
    rates = {-1: 0.3, 0: 0.2, 1234: 0.1, 70_000: 0.0}  # from this threshold on

    def rate_at(shift: int) -> float:
        return max([(at, rate) for at, rate in rates.items() if at <= shift], default=(0, 1.0))[1]

    assert shift_for(rate_at, 0.2) == 0
    assert shift_for(rate_at, 0.3) == -1
    assert shift_for(rate_at, 0.15) == 1234
    assert shift_for(rate_at, 0.05) == 70_000
    assert shift_for(rate_at, 1.0) < -40_000


def test_recorded_episodes_are_met_once_each_of_every_task_in_turn_whole_and_without_noise(recording: Path) -> None:
    data = TrainingSet(open_features([recording]), TargetOptions(weights=(("remember", 0.0),)))
    rows = data.once(10_000, stream(0, "test"))
    recorded = [data.row(*entry, 0).feature.tobytes() for task in data.tasks for entry in data.recorded[task]]
    assert sorted(row.feature.tobytes() for row in rows) == sorted(recorded)
    few = data.once(90, stream(0, "test"))
    assert len(few) == 5
    assert [bool(row.query.any()) for row in few] == [True, False, True, False, True]
    others = data.once(90, stream(1, "test"))
    assert [r.feature.tobytes() for r in others] != [r.feature.tobytes() for r in few]
