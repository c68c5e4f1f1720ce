"""The memory panel: controls on recordings made without a simulator, and all of it in its smoke setting."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import recorded_features as rec
from bench_cases import Progress

from vlamem.memory.designs.aura import AuraConfig, AuraMemory, HeadConfig
from vlamem.memory.protocol import named_arrays
from vlamem.memory.weights import Header, save_weights
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.bench.memory_panel import report
from vlamem.sim.bench.memory_panel.arms import PANEL, PanelArm, axes, tasks_of
from vlamem.sim.bench.memory_panel.controls import ControlError, train_controls
from vlamem.sim.bench.memory_panel.noted import NOTED
from vlamem.sim.bench.memory_panel.options import PanelOptions
from vlamem.sim.bench.memory_panel.played import Played
from vlamem.sim.bench.memory_panel.report import figures_of, page_of, panel_marks
from vlamem.sim.bench.memory_panel.run import check_page, chosen_arms, run
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import ResultsError, write_result_page, write_results
from vlamem.sim.results.statistics import paired_difference


def write_gate(path: Path, writes_per_tick: float) -> Path:
    """An untrained gate of the recording's policy that says how often it writes."""
    config = AuraConfig(rec.D + rec.C, HeadConfig(chunk=rec.CHUNK, context=rec.C, hidden=16))
    arrays = named_arrays(AuraMemory(config).init_params(jax.random.key(0)))
    save_weights(path, Header.of(AuraMemory(config), rec.POLICY, "test", {"writes_per_tick": writes_per_tick}), arrays)
    return path


def controls(options: PanelOptions) -> tuple[dict[str, Path], list[str]]:
    """The weights of the controls, and the titles of what had to be trained."""
    progress = Progress()
    recordings = " ".join(map(str, options.features))
    command = f"vlamem bench memory-panel --features {recordings} --out {options.out}"
    files = train_controls(options, command, chosen_arms(options), progress)
    return files, [title for title, _, _ in progress.begun]


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> PanelOptions:
    """A panel whose controls random and gru are trained."""
    folder = tmp_path_factory.mktemp("panel")
    options = replace(
        preset(PanelOptions, "bench_memory_panel"),
        features=(rec.record(folder / "features", 20),),
        gate=str(write_gate(folder / "gate.safetensors", 0.05)),
        arms=("random", "gru"),
        extra=(),
        updates=25,
        out=folder / "run",
    )
    assert controls(options)[1] == ["train random", "train gru"]
    return options


@pytest.fixture
def copied(panel: PanelOptions, tmp_path: Path) -> PanelOptions:
    """The same panel in a folder of its own."""
    shutil.copytree(panel.out, tmp_path / "run")
    return replace(panel, out=tmp_path / "run")


def test_controls_are_trained_once(panel: PanelOptions) -> None:
    files, trained = controls(panel)
    assert not trained
    assert {name: file.name for name, file in files.items()} == {
        "random": "gate.safetensors",
        "gru": "baseline.safetensors",
    }


def other_gate(options: PanelOptions, folder: Path) -> PanelOptions:
    return replace(options, gate=str(write_gate(folder / "gate.safetensors", 0.07)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda o, at: replace(o, control_rate=0.2),
            r"/random was .* rate was 0\.05 and is now 0\.2 .*rate 0\.05 keeps",
        ),
        (other_gate, r"/random was .* gate_sha256 was .* rate was 0\.05 and is now 0\.07"),
        (lambda o, at: other_gate(replace(o, arms=("gru",)), at), "/gru was .* gate_sha256"),
        (lambda o, at: replace(o, updates=26), r"training\.train\.updates was 25 and is now 26"),
        (lambda o, at: replace(o, features=(rec.record(at / "more", 21),)), "features was"),
    ],
)
def test_a_control_of_another_gate_or_of_other_settings_is_refused_and_kept(
    panel: PanelOptions, tmp_path: Path, change: Callable[[PanelOptions, Path], PanelOptions], says: str
) -> None:
    before = {path: path.read_bytes() for path in panel.out.rglob("*") if path.is_file()}
    with pytest.raises(ControlError, match=says) as refused:
        controls(change(panel, tmp_path))
    assert "choose another --out" in str(refused.value)
    assert {path: path.read_bytes() for path in panel.out.rglob("*") if path.is_file()} == before


def test_another_folder_takes_another_rate(panel: PanelOptions, tmp_path: Path) -> None:
    other = replace(panel, out=tmp_path, arms=("random",), control_rate=0.2)
    files, trained = controls(other)
    assert trained == ["train random"]
    assert json.loads((files["random"].parent / "control.json").read_text())["rate"] == 0.2


def test_controls_without_a_mark_are_taken_when_their_own_files_name_the_same_settings(copied: PanelOptions) -> None:
    marks = [copied.out / "controls" / name / "control.json" for name in ("random", "gru")]
    kept = [mark.read_text() for mark in marks]
    for mark in marks:
        mark.unlink()
    with pytest.raises(ControlError, match=r"rate was 0\.05 and is now 0\.2"):
        controls(replace(copied, control_rate=0.2))
    with pytest.raises(ControlError, match=r"updates was 25 and is now 24"):
        controls(replace(copied, updates=24, arms=("gru",)))
    with pytest.raises(ControlError, match=r"features was \['.*features'\] and is now \['.*elsewhere'\]"):
        controls(replace(copied, features=(rec.record(copied.out.parent / "elsewhere", 20),)))
    assert not any(mark.exists() for mark in marks)
    assert controls(copied)[1] == []
    assert [mark.read_text() for mark in marks] == kept


def test_controls_that_say_nothing_of_their_training_are_refused(copied: PanelOptions) -> None:
    for name in ("control.json", "checkpoint.safetensors"):
        (copied.out / "controls/gru" / name).unlink()
    arguments: dict[str, Any] = {"match": "neither a mark .* nor the checkpoint"}
    with pytest.raises(ControlError, **arguments):
        controls(copied)


def test_arms_without_the_one_that_they_are_compared_with_are_refused_before_anything_is_trained(
    panel: PanelOptions, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"arms gru: .*'aura', name it too"):
        run(replace(panel, arms=("gru",), out=tmp_path / "run"), "", Progress())
    assert not (tmp_path / "run").exists()


def played(name: str, **tasks: tuple[int, int, int, int]) -> Played:
    """An arm of which successes, n, writes and ticks of each task are known."""
    arm = next(a for a in PANEL if a.name == name)
    keys = ("successes", "n", "writes", "ticks")
    return Played(arm, Path(name), {t: dict(zip(keys, c, strict=True)) | {"state_bytes": 0} for t, c in tasks.items()})


def test_writes_are_compared_on_the_tasks_that_both_arms_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vlamem.sim.bench.memory_panel.report.difference", lambda a, b, tasks: paired_difference([True], [True])
    )
    arms = {
        "aura": played("aura", sequence=(9, 10, 50, 1000), touch=(10, 10, 0, 4000)),
        "always": played("always", sequence=(9, 10, 1000, 1000)),
    }
    found = figures_of(arms, ["sequence"], [], {"sequence": 0.2})
    assert found["writes_per_tick"].value == pytest.approx(0.05)
    assert found["always_write_ratio"].value == pytest.approx(20.0)


def test_a_ratio_to_the_oracle_is_as_uncertain_as_both_arms_are(tmp_path: Path) -> None:
    aura, _, oracle = PANEL[1], *PANEL[1:3]

    def ratio(n: int) -> tuple[float, float]:
        arms = {
            "aura": logged(tmp_path / str(n), aura, [i % 10 > 0 for i in range(n)]),
            "oracle": logged(tmp_path / str(n), oracle, [i > 0 for i in range(n)]),
        }
        interval = figures_of(arms, ["sequence"], [], {"sequence": 0.2})["aura_over_oracle"].ci95
        assert interval is not None
        return interval

    assert np.ptp(ratio(20)) > 2 * np.ptp(ratio(200))
    arms = {name: logged(tmp_path, arm, [name == "aura"]) for name, arm in (("aura", aura), ("oracle", oracle))}
    assert "aura_over_oracle" not in figures_of(arms, ["sequence"], [], {"sequence": 0.2})


def test_tasks_without_one_that_needs_a_memory_are_refused_before_anything_is_trained(
    panel: PanelOptions, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"tasks touch: the page is about memory tasks"):
        run(replace(panel, arms=(), tasks=("touch",), out=tmp_path / "run"), "", Progress())
    assert not (tmp_path / "run").exists()


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Writes the page of arms that were played in a look-alike of the panel; its text."""
    monkeypatch.setattr(report, "difference", lambda a, b, tasks: paired_difference([True], [True]))
    monkeypatch.setattr(report, "strip", lambda *folders: None)

    def page(*names: str, **given: Any) -> str:
        options = replace(preset(PanelOptions, "bench_memory_panel"), out=tmp_path, results=tmp_path, **given)
        arms = [a for a in (*PANEL, *axes((), options.execute)) if a.name in names]
        for arm in arms:
            tasks = {
                t: {"successes": 9, "n": 10, "writes": 1, "ticks": 9, "state_bytes": 8} for t in tasks_of(arm, MEMORY)
            }
            for counts in tasks.values():
                counts["wilson95"] = (0.6, 0.98)  # type: ignore[assignment]
            write_results(tmp_path / arm.name, {"arms": {"aura": {"tasks": tasks}}})
        return page_of(options, arms).text

    return page


MEMORY = ("recall_colour", "patrol")


def test_a_panel_without_the_policy_alone_has_a_page(finished: Callable[..., str]) -> None:
    assert "| AURA-Mem | 10 |" in finished("aura", "oracle")


def test_an_axis_begins_with_the_panel_s_own_point_on_the_same_tasks(finished: Callable[..., str]) -> None:
    page = finished("alone", "aura", "aura-delay2", "aura-chunk1", execute=4).splitlines()
    rows = [line.split(" | ")[0] for line in page if line.startswith("| AURA-Mem,")]
    assert rows == [
        "| AURA-Mem, 1 x delay",
        "| AURA-Mem, 2 x delay",
        "| AURA-Mem, 4 of a chunk",
        "| AURA-Mem, 1 of a chunk",
    ]
    assert all(line.endswith("90 (60 to 98) |  | 11.11 |") for line in page if "x delay" in line)  # patrol has none


def test_notes_are_those_of_the_panel_that_they_speak_of(finished: Callable[..., str]) -> None:
    arms = tuple(a.name for a in PANEL if a.name in NOTED[0].arms)
    assert "## What was tried" in finished(*arms, episodes=100)
    assert "## What was tried" not in finished(*arms, episodes=20)
    assert "## What was tried" not in finished(*arms[:-1], episodes=100)
    assert "## What was tried" not in finished(*arms, episodes=100, seed=1)


def test_the_smoke_setting_plays_every_arm_and_axis_and_goes_on_where_it_was(tmp_path: Path) -> None:
    pages = {path: path.read_bytes() for path in Path("docs/results").glob("memory_panel*")}
    assert main(["bench", "memory-panel", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in Path("docs/results").glob("memory_panel*")} == pages
    folder = tmp_path / "smoke"
    page = (folder / "memory_panel.md").read_text()
    axes = {
        f"aura-{point}" for point in ("delay2", "delay5", "delay20", "chunk1", "chunk4", "chunk16", "noise8", "noise16")
    }
    for name in {arm.name for arm in PANEL} | axes:
        (body,) = json.loads((folder / name / "results.json").read_text())["arms"].values()
        assert (body["tasks"]["recall_colour"]["n"], body["total"]["errors"]) == (1, 0), name
    for arm in PANEL:
        assert f"| {arm.title} |" in page
    figures = json.loads((folder / "memory_panel.json").read_text())["figures"]
    assert {"freeze_gap_points", "replan_gap_points", "delay20_drop_points", "chunk16_drop_points"} <= figures.keys()
    progress = Progress()
    run(replace(preset(PanelOptions, "bench_memory_panel"), preset="smoke", out=tmp_path), "again", progress)
    assert len(progress.begun) == len(PANEL) + len(axes)
    assert all(done == planned for _, done, planned in progress.begun)


def test_figures_go_to_a_page_of_the_same_policy_gate_and_seed_alone(copied: PanelOptions, tmp_path: Path) -> None:
    axes_of = replace(copied, page="axes", add_to="memory_panel", results=tmp_path)
    with pytest.raises(ResultsError, match="cannot be read"):
        check_page(axes_of)
    write_result_page("memory_panel", "command", {}, "# Panel", tmp_path, panel_marks(axes_of))
    check_page(axes_of)
    with pytest.raises(ResultsError, match=r"is of another seed \(0, not 1\)"):
        check_page(replace(axes_of, seed=1))
    with pytest.raises(ResultsError, match="give this panel another --page"):
        check_page(replace(axes_of, page="memory_panel"))


def logged(folder: Path, arm: PanelArm, right: list[bool]) -> Played:
    """An arm with the log of its episodes of `sequence`."""
    (folder / arm.name).mkdir(parents=True)
    log = EpisodeLog(folder / arm.name / "episodes.jsonl")
    for i, success in enumerate(right):
        outcome = "success" if success else "failure"
        about = {"initial_state": f"test/{i}", "wall_clock": {"seconds": 2.0}}
        log.append(EpisodeRecord(arm.name, "sequence", "test", i, 0, outcome, **about))
    counts = {"successes": sum(right), "n": len(right), "writes": 1, "ticks": 9, "state_bytes": 8}
    return Played(arm, folder / arm.name, {"sequence": counts})


def test_arms_of_other_lengths_are_compared_on_the_episodes_that_both_have_and_axes_with_their_own_arm(
    tmp_path: Path,
) -> None:
    arms = {a.name: a for a in (*PANEL, *axes(["gru"], 8))}
    names = ("aura", "oracle", "gru", "gru-noise16")
    right = ([True] * 8, [True, True, False, True] + [False] * 4, [True, False, True, True], [False] * 3 + [True])
    panel = {name: logged(tmp_path, arms[name], r) for name, r in zip(names, right, strict=True)}
    found = figures_of(panel, ["sequence"], [], {"sequence": 0.2})
    assert found["aura_over_oracle"].value == pytest.approx(8 / 3)
    assert (found["gru_over_oracle"].value, found["gru_over_oracle"].n) == (pytest.approx(1.0), 4)
    assert (found["gru_noise16_drop_points"].value, found["gru_noise16_drop_points"].n) == (pytest.approx(50), 4)
    assert found["core_hours"].value == pytest.approx((8 + 8 + 4 + 4) * 2 / 3600)
