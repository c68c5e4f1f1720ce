"""scripts/train_gate.py, sim/bench/memory_panel and its arms, as far as no simulator is needed."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded_features as rec
from test_budget import untrained

from vlamem.memory.train.budget import BUDGETS
from vlamem.memory.train.fit import Score, Trained
from vlamem.memory.train.on_device import TuneOptions
from vlamem.memory.train.policy_gradient import RlOptions, Step
from vlamem.memory.weights import load_weights, save_weights
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.scripts.train_gate import Args, _own
from vlamem.sim.bench.memory_panel.arms import PANEL, axes, tasks_of
from vlamem.sim.bench.memory_panel.options import PanelOptions
from vlamem.sim.bench.memory_panel.run import chosen_arms, config_of

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_train_gate_writes_weights_curves_and_says_what_it_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, out = rec.record(tmp_path / "features", 20), tmp_path / "gate"
    words = ["--features", str(features), "--out", str(out), "--updates", "20", "--ticks", "32", "--rows", "4"]
    assert main(["train-gate", *words, "--hidden", "16", "--seeds", "2", "--budget", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert "held out" in printed
    assert "KiB of training state" in printed
    assert "best:" in printed
    for seed in (0, 1):
        assert (out / f"seed-{seed}" / "gate.safetensors").exists()
        assert (out / f"seed-{seed}" / "curves.json").exists()


def test_a_gate_of_fewer_than_ten_episodes_says_that_nothing_was_held_out_and_has_no_figure_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, out = rec.record(tmp_path / "features", 4), tmp_path / "gate"
    words = ["--features", str(features), "--updates", "4", "--ticks", "32", "--rows", "4", "--hidden", "16"]
    assert main(["train-gate", *words, "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "nothing held out: every tenth episode of a task is" in told.out
    assert "nan" not in (told.out + told.err).lower()
    header, _ = load_weights(out / "gate.safetensors")
    assert all(math.isfinite(figure) for figure in header.metrics.values())
    curves = json.loads((out / "curves.json").read_text(), parse_constant=pytest.fail)
    assert curves[-1].keys() == {"update", "error", "rate"}


def test_a_tuned_gate_is_compared_with_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features, out = rec.record(tmp_path / "features", 20), tmp_path / "gate"
    words = ["--features", str(features), "--updates", "4", "--ticks", "32", "--rows", "4", "--hidden", "16"]
    assert main(["train-gate", *words, "--out", str(out)]) == 0
    trained = capsys.readouterr().out.partition("held out ")[2].partition(" %")[0]
    words += ["--start-from", str(out / "gate.safetensors"), "--low-memory", "--out", str(tmp_path / "tuned")]
    assert main(["train-gate", *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "KiB of training state" in printed[0]
    assert printed[1].startswith(f"before: held out {trained} % right")
    assert [line.partition(" held out")[0] for line in printed if "held out" in line] == ["before:", "after:"]
    curves = json.loads((tmp_path / "tuned" / "curves.json").read_text())
    assert [look["update"] for look in curves] == [1, 2, 3, 4]
    assert curves[0].keys() == {"update", "error", "rate"}
    assert (tmp_path / "tuned" / "curves.png").exists()


def test_options_of_a_tuning_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, gate = rec.record(tmp_path / "features", 4), untrained(tmp_path)
    seen: list[TuneOptions] = []

    def tuned(memory: Any, params: Any, data: Any, how: TuneOptions, progress: Any) -> Any:
        seen.append(how)
        raise ValueError("enough")

    monkeypatch.setattr("vlamem.memory.train.gate.tune_gate", tuned)
    words = ["--features", str(features), "--start-from", str(gate), "--low-memory", "--out", str(tmp_path / "tuned")]
    given = ["--updates", "7", "--learning-rate", "0.5", "--rows", "2", "--ticks", "128", "--write-cost", "0.3"]
    assert main(["train-gate", *words, *given, "--seed", "3"]) == 2
    assert main(["train-gate", *words]) == 2
    assert seen == [TuneOptions(7, 0.5, 0.3, 128, 2, 3), TuneOptions()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (600, 0.01, 0.1, 256, 16)),
        ({"method": "counterfactual", "rows": 4}, (600, 0.01, 0.1, 256, 4)),
        ({"low_memory": True}, (200, 0.02, 0.1, 64, 1)),
        ({"method": "rl"}, (10, 0.003, 1.0, 256, 16)),
        ({"method": "rl", "learning_rate": 0.01, "write_cost": 0.1}, (10, 0.01, 0.1, 256, 16)),
    ],
)
def test_an_option_that_is_not_given_is_the_methods_own(given: dict[str, Any], expected: tuple[float, ...]) -> None:
    assert _own(replace(preset(Args, "train_gate"), **given)) == expected


@pytest.mark.parametrize(("rate", "above"), [(0.031, True), (0.02, False)])
def test_the_held_out_rate_is_said_beside_the_budget(
    rate: float, above: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Trained(None, None, [], Score(0.5, 0.9, rate, {}), 1, 1.0, 1)  # type: ignore[arg-type]  # not looked at
    monkeypatch.setattr("vlamem.memory.train.gate.train_seeds", lambda *given: [(tmp_path / "gate", made)])
    assert main(["train-gate", "--features", str(tmp_path), "--budget", "0.02", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"writes on {100 * rate:.2f} % of ticks (budget 2 %)" in printed[0]
    assert len(printed) == 1 + above
    assert not above or "above its budget on held-out episodes (3.10 %, not 2 %)" in printed[1]


def test_budgets_are_measured_anew_without_an_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features, gate = rec.record(tmp_path / "features", 4), untrained(tmp_path)
    words = ["--features", str(features), "--start-from", str(gate), "--updates", "0"]
    assert main(["train-gate", *words, "--out", str(tmp_path / "anew")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{tmp_path / 'anew' / 'gate.safetensors'}: the weights of {gate}, as they are"
    assert [line.split()[0] for line in printed[1:]] == [f"threshold_shift@{b:g}" for b in BUDGETS]
    assert "was -9.000" in printed[4]


@pytest.mark.parametrize("method", ["bptt", "counterfactual"])
def test_a_gate_is_trained_further_and_compared_with_what_it_was(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, first = rec.record(tmp_path / "features", 20), tmp_path / "gate"
    words = ["--features", str(features), "--updates", "3", "--ticks", "32", "--rows", "4", "--method", method]
    assert main(["train-gate", *words, "--hidden", "16", "--targets", "context", "--out", str(first)]) == 0
    trained = capsys.readouterr().out.partition("held out ")[2].partition(" %")[0]
    start = first / "gate.safetensors"
    was = start.read_bytes()
    assert main(["train-gate", *words, "--start-from", str(start), "--out", str(first / "more")]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if "held out" in line]
    assert [line.partition(":")[0] for line in printed] == [str(start), str(first / "more" / "gate.safetensors")]
    assert f"held out {trained} % right" in printed[0]
    assert start.read_bytes() == was
    header, before = load_weights(first / "more" / "gate.safetensors")[0], load_weights(start)[0]
    assert (header.config["gate"], header.head) == (before.config["gate"], before.head)
    assert header.head.chunk is None  # --targets both asks for what the head proposes of it


def test_a_gate_tuned_on_success_is_compared_where_there_are_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, first, out = rec.record(tmp_path / "features", 20), tmp_path / "gate", tmp_path / "tuned"
    words = ["--updates", "2", "--ticks", "32", "--rows", "4", "--hidden", "16"]
    assert main(["train-gate", *words, "--features", str(features), "--out", str(first)]) == 0
    start = first / "gate.safetensors"

    def tuned(policy: str, gate: Path, tasks: Any, how: RlOptions, out: Path, command: str, progress: Any) -> Any:
        assert (policy, gate, tasks) == ("tiny", start, ("near",))
        assert how == RlOptions(updates=2)
        header, arrays = load_weights(gate)
        save_weights(out / "gate.safetensors", replace(header, command=command, metrics={"rl_success": 0.5}), arrays)
        steps = [Step(0.25, 0.1, 1), Step(0.5, 0.05, 1)]
        for step in steps:
            progress(step)
        return out / "gate.safetensors", steps

    monkeypatch.setattr("vlamem.sim.record.gate_rl.tune_in_suite", tuned)
    words += ["--method", "rl", "--start-from", str(start), "--tasks", "near", "--out", str(out)]
    capsys.readouterr()
    assert main(["train-gate", *words, "--features", str(features)]) == 0
    printed = capsys.readouterr().out
    assert "success 0.25 to 0.50, writes on 10.00 to 5.00 % of ticks" in printed
    held = [line for line in printed.splitlines() if "held out" in line]
    assert [line.partition(" held out")[0] for line in held] == ["before:", "after:"]
    assert held[0].partition(":")[2] == held[1].partition(":")[2]
    assert "  skill " in printed  # what was recorded of other tasks, too
    metrics = load_weights(out / "gate.safetensors")[0].metrics
    assert metrics["rl_success"] == 0.5
    assert "held_out_right" in metrics
    assert "threshold_shift@0.05" in metrics
    (tmp_path / "empty").mkdir()
    assert main(["train-gate", *words, "--features", str(tmp_path / "empty")]) == 0
    assert "not compared on held-out episodes: no recordings at" in capsys.readouterr().out
    assert "threshold_shift@0.05" not in load_weights(out / "gate.safetensors")[0].metrics


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", "nowhere"], "nowhere holds no features"),
        (["--seeds", "0"], "expected 1 or more"),
        (["--method", "rl"], "name --start-from and --tasks"),
        (["--low-memory", "--features", "nowhere"], "name its file with --start-from"),
        (
            ["--low-memory", "--start-from", "gate.safetensors", "--method", "rl", "--tasks", "touch"],
            "leave out --method rl",
        ),
        (["--low-memory", "--start-from", "gate.safetensors", "--seeds", "2"], "leave out --seeds and --budget"),
        (["--low-memory", "--start-from", "gate.safetensors", "--gate", "always"], "--gate always: the gate of"),
        (["--updates", "0"], "name its file with --start-from"),
        (["--updates", "0", "--start-from", "gate.safetensors", "--budget", "0.1"], "leave out --low-memory"),
        (["--start-from", "runs/gate/gate.safetensors", "--out", "runs/gate"], "would write over --start-from"),
        (
            ["--start-from", "runs/gate/seed-1/gate.safetensors", "--out", "runs/gate", "--seeds", "2"],
            "would write over --start-from",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_exit_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-gate", *words]) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed
    assert "\n" not in printed


def options(tmp_path: Path, **given: Any) -> PanelOptions:
    return replace(preset(PanelOptions, "bench_memory_panel"), out=tmp_path, **given)


def test_arms_without_features_leave_out_what_has_to_be_trained(tmp_path: Path) -> None:
    with_features = chosen_arms(options(tmp_path, features=(tmp_path,)))
    without = chosen_arms(options(tmp_path))
    assert {a.name for a in with_features} - {a.name for a in without} >= {"gru", "random", "always", "gru-delay20"}
    assert {"alone", "aura", "oracle", "aura-delay20", "aura-chunk16"} <= {a.name for a in without}


def test_skills_are_played_with_and_without_memory_alone(tmp_path: Path) -> None:
    chosen = ("touch", "recall_colour", "patrol")
    for arm in PANEL:
        assert ("touch" in tasks_of(arm, chosen)) == (arm.name in ("alone", "aura"))
    delays = [a for a in axes((), 8) if a.axis == "delay"]
    assert [a.value for a in delays] == [2, 5, 20]
    assert all(tasks_of(a, chosen) == ("recall_colour",) for a in delays)


def test_every_arm_is_a_rollout_that_can_be_made(tmp_path: Path) -> None:
    gate = tmp_path / "gate.safetensors"
    gate.touch()
    made = options(tmp_path, gate=str(gate), features=(tmp_path,), execute=4)
    controls = dict.fromkeys(("always", "random", "periodic", "gru", "kv_window", "kv_growing"), gate)
    configs = {arm.name: config_of(arm, made, controls) for arm in chosen_arms(made)}
    assert configs["alone"].memory == ("none",)
    assert configs["aura"].memory == (f"aura:{gate}",)
    assert configs["gru"].memory == (f"gru:{gate}",)
    assert configs["freeze"].ablation == "freeze"
    assert configs["aura-delay20"].parameters == ("delay=400",)
    assert configs["aura-chunk16"].execute == 16
    assert configs["alone"].episodes == 100
    assert configs["noise"].episodes == 30
    assert len({c.out for c in configs.values()}) == len(configs)


def test_a_smoke_test_is_small_and_writes_no_result(tmp_path: Path) -> None:
    small = options(tmp_path, preset="smoke").sized()
    assert {a.name for a in chosen_arms(small)} >= {a.name for a in PANEL}
    assert (small.tasks, small.episodes, small.fewer) == (("recall_colour", "touch"), 1, 1)
    assert small.out == small.results == tmp_path / "smoke"
    assert options(tmp_path, preset="smoke", results=tmp_path / "page").sized().results == tmp_path / "page"
    assert options(tmp_path).sized() == options(tmp_path)


def test_a_baseline_is_played_on_all_axes_or_on_the_one_that_is_named(tmp_path: Path) -> None:
    made = options(tmp_path, extra=("delay", "noise"), axis_baselines=("aura", "first", "oracle:noise"))
    played = [a.name for a in chosen_arms(made) if a.axis]
    assert len(set(played)) == len(played)
    assert {n for n in played if n.startswith("oracle")} == {"oracle-noise8", "oracle-noise16"}
    assert {n.partition("-")[2] for n in played if n.startswith("aura")} == {
        n.partition("-")[2] for n in played if n.startswith("first")
    }


WRONG = [{"arms": ("lstm",)}, {"extra": ("height",)}, {"axis_baselines": ("lstm",)}, {"axis_baselines": ("gru:width",)}]


@pytest.mark.parametrize("given", WRONG)
def test_an_unknown_arm_or_axis_is_named(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ValueError, match="choose from"):
        chosen_arms(options(tmp_path, **given))
