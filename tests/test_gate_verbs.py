"""scripts/train_gate.py, scripts/bench_memory_panel.py and the panel's arms, as far as no simulator is needed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded_features as rec

from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.bench.memory_panel import chosen_arms, config_of
from vlamem.sim.bench.memory_panel_arms import PANEL, axes, tasks_of
from vlamem.sim.bench.memory_panel_options import PanelOptions


def test_train_gate_writes_weights_curves_and_says_what_it_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, out = rec.record(tmp_path / "features", 20), tmp_path / "gate"
    words = ["--features", str(features), "--out", str(out), "--updates", "20", "--ticks", "32", "--rows", "4"]
    assert main(["train-gate", *words, "--hidden", "16", "--seeds", "2", "--budget", "0.05"]) == 0
    said = capsys.readouterr().out
    assert "held out" in said
    assert "KiB of training state" in said
    assert "best:" in said
    for seed in (0, 1):
        assert (out / f"seed-{seed}" / "gate.safetensors").exists()
        assert (out / f"seed-{seed}" / "curves.json").exists()


def test_a_tuned_gate_is_compared_with_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features, out = rec.record(tmp_path / "features", 20), tmp_path / "gate"
    words = ["--features", str(features), "--updates", "4", "--ticks", "32", "--rows", "4", "--hidden", "16"]
    assert main(["train-gate", *words, "--out", str(out)]) == 0
    trained = capsys.readouterr().out.partition("held out ")[2].partition(" %")[0]
    words += ["--start-from", str(out / "gate.safetensors"), "--low-memory", "--out", str(tmp_path / "tuned")]
    assert main(["train-gate", *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "KiB of training state" in said[0]
    assert said[1].startswith(f"before: held out {trained} % right")
    assert said[2].startswith("after: held out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", "nowhere"], "nowhere holds no features"),
        (["--seeds", "0"], "expected 1 or more"),
        (["--method", "rl"], "name --start-from and --tasks"),
        (["--low-memory", "--features", "nowhere"], "name its file with --start-from"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_exit_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-gate", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


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
    assert configs["alone"].memory == "none"
    assert configs["aura"].memory == f"aura:{gate}"
    assert configs["gru"].memory == f"baseline:{gate}"
    assert configs["freeze"].memory_control == "freeze"
    assert configs["aura-delay20"].parameters == ("delay=400",)
    assert configs["aura-chunk16"].execute == 16
    assert configs["alone"].episodes == 60
    assert configs["noise"].episodes == 30
    assert len({c.out for c in configs.values()}) == len(configs)


def test_a_smoke_test_is_small_and_writes_no_result(tmp_path: Path) -> None:
    small = options(tmp_path, preset="smoke").sized()
    assert {a.name for a in chosen_arms(small)} >= {a.name for a in PANEL}
    assert (small.tasks, small.episodes, small.fewer) == (("recall_colour", "touch"), 1, 1)
    assert small.out == small.results == tmp_path / "smoke"
    assert options(tmp_path, preset="smoke", results=tmp_path / "page").sized().results == tmp_path / "page"
    assert options(tmp_path).sized() == options(tmp_path)


@pytest.mark.parametrize("given", [{"arms": ("lstm",)}, {"extra": ("height",)}, {"axis_baselines": ("lstm",)}])
def test_an_unknown_arm_or_axis_is_named(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ValueError, match="choose from"):
        chosen_arms(options(tmp_path, **given))
