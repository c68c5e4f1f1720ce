"""Teaching a memory through a policy's own loss: from demonstrations alone, told apart from copying the hand."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from dataset_policy import Brightness
from demonstrated import CHOICE, SquaredLoss, record
from recorded_features import CHUNK, POLICY

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.registry import make_design
from vlamem.memory.protocol import Memory, scan
from vlamem.memory.train.card import NOTHING, card_path, verdict, write_card
from vlamem.memory.train.conditioning import Conditioned, read_conditioning, write_conditioning
from vlamem.memory.train.demonstrations import DemonstrationData, choice_weight
from vlamem.memory.train.features import FeaturesError, open_features
from vlamem.memory.train.loop import TrainConfig
from vlamem.memory.train.swap import compare
from vlamem.memory.train.taught import TaughtGate, TaughtOptions, teach_gate
from vlamem.memory.train.teach import _fresh, _shares, teach
from vlamem.memory.train.teach_batches import BareLoss, Batches
from vlamem.memory.train.teach_options import TeachOptions
from vlamem.memory.weights import load_memory, load_weights
from vlamem.policies.teaching import PolicyLoss
from vlamem.scripts import main as command_line

HOW = TeachOptions(
    TrainConfig(updates=400, learning_rate=1e-2, write_cost=0.3, ramp=(0.3, 0.6), noise_anneal=(0.5, 0.75)),
    rows=12,
    moments=3,
    feature_noise=0.1,
    scene_shift=0.2,
    floor=0.01,
    catch_up=0.0,
    uniform=(0.2, 0.2),
    average=0.9,
)


def taught(folder: Path, out: Path, updates: int = 400, design: str = "aura") -> TaughtGate:
    how = replace(HOW, train=replace(HOW.train, updates=updates))
    data = DemonstrationData([folder], used_with=POLICY)
    options = TaughtOptions(how, design, hidden=32)
    return teach_gate(data, SquaredLoss(), "instruction", options, out / "gate.safetensors", out)


def small(data: DemonstrationData) -> Memory:
    return make_design("aura", data.feature_size, HeadConfig(context=4, hidden=16))


def played(gate: Path, folder: Path, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Which ticks a gate's file writes over the held-out demonstrations of a task, and how confident it is."""
    _, memory, params = load_memory(gate, POLICY)
    data = DemonstrationData([folder])
    shown = data.held_out[task]
    zs = jnp.asarray(data.episodes(shown, [0] * len(shown)).zs)
    resets = jnp.zeros(zs.shape[:2], bool).at[0].set(True)
    _, out = scan(memory, params, memory.init(len(shown)), zs, resets)
    return np.asarray(out.wrote), np.asarray(out.confidence)


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TaughtGate]:
    root = tmp_path_factory.mktemp("teach")
    # 20 of them say when to be confident: of 10 an answer may be one, and that one wrong
    folder = record(root / "data", episodes=200, tasks=("remember", "skill"))
    return folder, taught(folder, root / "gate")


def test_what_is_remembered_lowers_the_loss_and_another_state_does_not(
    remembering: tuple[Path, TaughtGate],
) -> None:
    found = remembering[1].reports["remember"]
    assert found.own < 0.3 * found.bare
    assert found.swapped > 2 * found.own
    assert found.kept_low > 0
    assert found.injected < 0.1 * found.bare
    assert found.confident > 0.9
    assert remembering[1].remembering == ("remember",)


def test_nothing_is_proposed_where_nothing_is_gained(remembering: tuple[Path, TaughtGate]) -> None:
    found = remembering[1].reports["skill"]
    assert found.injected <= found.bare + 1e-3
    assert found.kept_low <= 1e-3


def test_demonstrations_without_a_need_for_memory_give_a_gate_that_leaves_the_policy_alone(tmp_path: Path) -> None:
    folder = record(tmp_path / "data", 30, tasks=("skill",))
    made = taught(folder, tmp_path / "gate", updates=60)
    assert made.remembering == ()
    assert verdict(made).startswith(NOTHING)
    assert verdict(made).endswith("3 held-out episodes of a task are few to tell by, record more of it")
    wrote, confidence = played(made.path, folder, "skill")
    assert not wrote.any()
    assert confidence.max() < 1e-6


def test_actions_of_other_episodes_give_no_gain_and_the_verdict_says_so(tmp_path: Path) -> None:
    made = taught(record(tmp_path / "data", 60, shuffled=True), tmp_path / "gate", updates=200)
    assert made.remembering == ()
    assert NOTHING in verdict(made)


def test_the_card_says_what_was_trained_on_and_what_held_out_demonstrations_say(
    remembering: tuple[Path, TaughtGate],
) -> None:
    folder, made = remembering
    text = write_card(made, DemonstrationData([folder]), seed=0).read_text(encoding="utf-8")
    assert card_path(made.path).name == "gate.card.md"
    assert "remember 200, skill 200" in text
    assert "It remembers in 1 of 2 tasks: remember." in text
    assert "vlamem fit (injection: instruction)" in text
    (line,) = (row for row in text.splitlines() if row.startswith("| remember |"))
    found = made.reports["remember"]
    assert f"| {found.gain_low:+.4f} to {found.gain_high:+.4f} |" in line
    assert f"| {found.kept:+.4f} |" in line


def test_a_memory_of_another_design_is_trained_the_same_way(tmp_path: Path) -> None:
    made = taught(record(tmp_path / "data"), tmp_path / "gate", updates=300, design="gru?hidden=32")
    assert load_weights(made.path, POLICY)[0].design == "gru"
    found = made.reports["remember"]
    assert found.own < 0.5 * found.bare
    assert found.kept_low > 0


def test_gate_writes_at_the_cue_and_seldom_elsewhere(remembering: tuple[Path, TaughtGate]) -> None:
    folder, gate = remembering
    wrote, _ = played(gate.path, folder, "remember")
    assert wrote[3:7].any(axis=0).mean() >= 0.9  # of 20 held-out episodes
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
    found = taught(record(tmp_path / "data", copycat=True), tmp_path / "gate", updates=200).reports["remember"]
    # the state of another episode, which is asked with what this one sees, does about as well or as badly
    assert found.swapped - found.own < 0.35 * found.bare or found.own > 0.8 * found.bare


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


def test_a_gate_may_not_write_at_ticks_that_are_dropped(tmp_path: Path) -> None:
    data, seen = DemonstrationData([record(tmp_path / "data", 20)]), {}
    for dropout in (0.0, 1.0):
        rates: list[float] = []
        how = replace(HOW, train=replace(HOW.train, updates=2), write_dropout=dropout)
        teach(
            small(data),
            data,
            SquaredLoss(),
            how,
            tmp_path / str(dropout),
            lambda i, last, to=rates: to.append(last["rate"]),
        )
        seen[dropout] = rates
    assert min(seen[0.0]) > 0.2
    assert max(seen[1.0]) == 0


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


def test_a_demonstration_of_less_than_half_a_chunk_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = record(tmp_path / "data", 30)
    (features,) = open_features([folder])
    episode = next(e for e in features.episodes if (e.task, e.episode) == ("remember", 3))
    rows = read_conditioning(folder, episode)
    last = Conditioned(np.array([episode.ticks - 1]), rows.disagreement[:1], rows.packed[:1])
    write_conditioning(folder, "remember", 3, "expert", last)
    assert DemonstrationData([folder]).count["remember"] == 29
    assert "demonstration 3 of 'remember' shows less than half a chunk of 4 control steps" in caplog.text


def test_a_batch_depends_on_its_update_and_the_shares_alone(tmp_path: Path) -> None:
    data = DemonstrationData([record(tmp_path / "data", 30)])
    bare = BareLoss(data, SquaredLoss(), 0)
    even, other = dict.fromkeys(data.tasks, 1.0), {task: 1.0 + i for i, task in enumerate(data.tasks)}
    with Batches(data, bare, HOW) as first, Batches(data, bare, HOW) as second:
        ahead = [first.at(0, even), first.at(1, even), first.at(2, other)]  # the last was begun with other shares
        alone = [second.at(2, other), second.at(1, even), second.at(0, even)][::-1]
    for one, two in zip(ahead, alone, strict=True):
        for a, b in zip((*one[:3], *one.moments, *one[4:]), (*two[:3], *two.moments, *two[4:]), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(ahead[0].zs, ahead[1].zs)


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
    with pytest.raises(FeaturesError, match="'remember' has 19 demonstrations: 20 or more"):
        DemonstrationData([record(tmp_path / "data", 19)])


def test_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeaturesError, match="no demonstration of fly: record it first"):
        DemonstrationData([record(tmp_path / "data", 30)], ["fly"])


def test_the_first_demonstrations_of_each_task_can_be_taken_alone(tmp_path: Path) -> None:
    data = DemonstrationData([record(tmp_path / "data", 30, tasks=("remember", "skill"))], most=20)
    assert data.count == {"remember": 20, "skill": 20}
    assert [e.episode for e in data.held_out["skill"]] == [9, 19]


def test_tasks_are_drawn_as_often_as_they_were_demonstrated(tmp_path: Path) -> None:
    folders = [record(tmp_path / "a", 100), record(tmp_path / "b", 25, tasks=("skill",))]
    data = DemonstrationData(folders)
    drawn = [e.task for i in range(50) for e in data.sample(20, np.random.default_rng(i))]
    assert 0.15 < drawn.count("skill") / len(drawn) < 0.25


def test_what_is_not_remembered_yet_is_drawn_more_often(tmp_path: Path) -> None:
    data = DemonstrationData([record(tmp_path / "a", 20), record(tmp_path / "b", 20, tasks=("skill",))])
    data.choice = {"remember": 0.9, "skill": 0.1}
    start = _shares(data, [], catch_up=5.0)
    learned = _shares(data, [{"own.remember": 0.1, "swapped.remember": 1.6}], catch_up=5.0)
    assert start == pytest.approx({"remember": 5.5, "skill": 1.5})
    assert learned == pytest.approx({"remember": 1.45, "skill": 1.5})
    drawn = [e.task for i in range(50) for e in data.sample(20, np.random.default_rng(i), {"remember": 4, "skill": 1})]
    assert 0.76 < drawn.count("remember") / len(drawn) < 0.84


def test_a_policy_that_gives_no_loss_is_told_which_method_remains() -> None:
    with pytest.raises(ValueError, match=r"'brightness' gives no gradient.*train-gate --targets chunk"):
        PolicyLoss(Brightness())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "name a frozen policy and its demonstrations"),
        (["tiny"], "name a frozen policy and its demonstrations"),
        (["tiny", "data", "--updates", "0"], "--updates 0: expected 1 or more"),
        (["tiny", "data", "--rows", "1"], "--rows 1: expected 2 or more"),
        (["tiny", "data", "--out", "runs/fit"], "expected the name of a weights file"),
        (["tiny", "HERE"], "HERE holds no features"),
        (["dataset_policy:Brightness", "HERE"], "gives no gradient of its imitation loss"),
    ],
)
def test_fit_refuses_what_it_cannot_use_in_one_line(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path) if word == "HERE" else word for word in words]
    assert command_line.main(["fit", *given]) == 2
    error = capsys.readouterr().err
    assert complaint.replace("HERE", str(tmp_path)) in error
    assert len(error.splitlines()) == 1
