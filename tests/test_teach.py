"""Teaching a memory through a policy's own loss: from demonstrations alone, told apart from copying the hand."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from demonstrated import CHOICE, SquaredLoss, record
from recorded_features import CHUNK, POLICY

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.registry import make_design
from vlamem.memory.protocol import Memory, scan
from vlamem.memory.train.demonstrations import DemonstrationData, choice_weight
from vlamem.memory.train.features import FeaturesError
from vlamem.memory.train.loop import TrainConfig
from vlamem.memory.train.swap import compare
from vlamem.memory.train.taught import TaughtGate, TaughtOptions, teach_gate
from vlamem.memory.train.teach import TeachOptions, _fresh, teach
from vlamem.memory.weights import load_memory, load_weights

HOW = TeachOptions(TrainConfig(updates=400, learning_rate=1e-2, write_cost=0.3, ramp=(0.3, 0.6)), rows=12, moments=3)


def taught(folder: Path, out: Path, updates: int = 400) -> TaughtGate:
    how = replace(HOW, train=replace(HOW.train, updates=updates))
    data = DemonstrationData([folder], used_with=POLICY)
    return teach_gate(data, SquaredLoss(), "instruction", TaughtOptions(how, hidden=32), out)


def small(data: DemonstrationData) -> Memory:
    return make_design("aura", data.feature_size, HeadConfig(context=4, hidden=16))


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TaughtGate]:
    root = tmp_path_factory.mktemp("teach")
    folder = record(root / "data", tasks=("remember", "skill"))
    return folder, taught(folder, root / "gate")


def test_what_is_remembered_lowers_the_loss_and_another_state_does_not(
    remembering: tuple[Path, TaughtGate],
) -> None:
    said = remembering[1].reports["remember"]
    assert said.own < 0.3 * said.bare
    assert said.swapped > 2 * said.own
    assert said.kept_low > 0
    assert said.heard < 0.35 * said.bare
    assert said.confident > 0.8


def test_nothing_is_proposed_where_nothing_is_gained(remembering: tuple[Path, TaughtGate]) -> None:
    said = remembering[1].reports["skill"]
    assert said.heard <= said.bare + 1e-3
    assert said.kept_low <= 1e-3


def test_gate_writes_at_the_cue_and_seldom_elsewhere(remembering: tuple[Path, TaughtGate]) -> None:
    folder, gate = remembering
    _, memory, params = load_memory(gate.path, POLICY)
    data = DemonstrationData([folder])
    shown = data.held_out["remember"]
    zs = jnp.asarray(data.episodes(shown, [0] * len(shown)).zs)
    resets = jnp.zeros(zs.shape[:2], bool).at[0].set(True)
    _, out = scan(memory, params, memory.init(len(shown)), zs, resets)
    wrote = np.asarray(out.wrote)
    assert wrote[3:7].any(axis=0).all()
    assert gate.reports["remember"].rate < 0.35
    assert wrote[3:7].mean() > 3 * wrote[8:CHOICE].mean()


def test_answers_in_the_recording_change_nothing(tmp_path: Path) -> None:
    gates = [
        taught(record(tmp_path / name, 30, answers=name == "with"), tmp_path / f"gate-{name}", updates=5)
        for name in ("with", "without")
    ]
    (header, first), (other, second) = (load_weights(gate.path, POLICY) for gate in gates)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert {k: v for k, v in header.metrics.items() if k != "minutes"} == {
        k: v for k, v in other.metrics.items() if k != "minutes"
    }


def test_copying_what_is_done_is_told_apart_by_the_swap(tmp_path: Path) -> None:
    said = taught(record(tmp_path / "data", copycat=True), tmp_path / "gate", updates=200).reports["remember"]
    # the state of another episode, which is asked with what this one sees, does about as well or as badly
    assert said.swapped - said.own < 0.35 * said.bare or said.own > 0.8 * said.bare


def test_killed_training_goes_on_and_ends_where_it_would_have(tmp_path: Path) -> None:
    folder = record(tmp_path / "data", 30)

    class KilledError(Exception):
        pass

    def stop(update: int, last: dict[str, float]) -> None:
        if update == 7:
            raise KilledError

    how = replace(HOW, train=replace(HOW.train, updates=10))
    data = DemonstrationData([folder])
    ticking = iter(range(0, 100_000, 100))  # every update is a minute's worth
    memory = small(data)
    with pytest.raises(KilledError):
        teach(memory, data, SquaredLoss(), how, tmp_path / "run", stop, clock=lambda: float(next(ticking)))
    seen: list[int] = []
    again = teach(memory, data, SquaredLoss(), how, tmp_path / "run", lambda i, last: seen.append(i))
    assert seen[0] == 8
    whole = teach(memory, data, SquaredLoss(), how, tmp_path / "other")
    np.testing.assert_array_equal(np.asarray(again.params.Wk), np.asarray(whole.params.Wk))
    np.testing.assert_array_equal(np.asarray(again.params.head.out), np.asarray(whole.params.head.out))


def test_another_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "data", 30)
    taught(folder, tmp_path / "gate", updates=2)
    with pytest.raises(ValueError, match="holds another training"):
        taught(folder, tmp_path / "gate", updates=3)


def test_teaching_begins_at_the_bare_policy(tmp_path: Path) -> None:
    data = DemonstrationData([record(tmp_path / "data", 30)])
    memory = small(data)
    found = compare(memory, _fresh(memory, data, HOW).params, data, data.held_out["remember"], SquaredLoss())
    np.testing.assert_array_equal(found.own, found.bare)


def test_ticks_at_the_end_of_a_demonstration_are_left_out(tmp_path: Path) -> None:
    data = DemonstrationData([record(tmp_path / "data", 30)])
    one = data.training["remember"][0]
    assert one.tick[-1] <= len(one.z) - CHUNK[0] // 2


def test_choice_weight_is_half_at_its_unit_and_rises() -> None:
    weight = choice_weight(np.array([0.0, 0.1, 0.3, 3.0]), 0.3)
    assert weight[0] == 0
    assert weight[2] == pytest.approx(0.5)
    assert (np.diff(weight) > 0).all()


def test_recording_without_conditioning_is_named(tmp_path: Path) -> None:
    folder = record(tmp_path / "data", 30)
    (folder / "conditioning" / "remember-3-expert.npy").unlink()
    with pytest.raises(FeaturesError, match=r"remember-3-expert\.npy holds no conditioning"):
        DemonstrationData([folder])


def test_too_few_demonstrations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeaturesError, match="'remember' has 9 demonstrations: 20 or more"):
        DemonstrationData([record(tmp_path / "data", 9)])


def test_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeaturesError, match="no demonstration of fly: record it first"):
        DemonstrationData([record(tmp_path / "data", 30)], ["fly"])
