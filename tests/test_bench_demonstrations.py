"""The bench of fitted gates: which arms are played how, and the page of run folders that are made up."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from vlamem.memory.designs.aura import AuraConfig, AuraMemory, HeadConfig
from vlamem.memory.protocol import named_arrays
from vlamem.memory.weights import Header, TrainedFor, save_weights
from vlamem.scripts.config import preset
from vlamem.sim.bench.demonstrations.arms import ARMS, FITTED
from vlamem.sim.bench.demonstrations.options import DemonstrationsBench
from vlamem.sim.bench.demonstrations.report import figures_of, page_of
from vlamem.sim.bench.demonstrations.run import chosen_arms, config_of
from vlamem.sim.bench.memory_panel.played import played_of
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import write_results


def options(tmp_path: Path, **given: object) -> DemonstrationsBench:
    made: DemonstrationsBench = replace(
        preset(DemonstrationsBench, "bench_demonstrations"),
        gate=tmp_path / "gate.safetensors",
        out=tmp_path / "run",
        **given,  # type: ignore[arg-type]  # fields of the options
    )
    return made


def write_gate(path: Path) -> None:
    """An untrained gate whose file says what held-out demonstrations did."""
    memory = AuraMemory(AuraConfig(16, HeadConfig(context=4)))
    metrics = {"minutes": 3.0, "episodes.sequence": 10.0, "bare.sequence": 0.1, "injected.sequence": 0.05}
    header = Header.of(memory, TrainedFor("tiny", "a-b", "none"), "vlamem fit tiny data", metrics)
    save_weights(path, header, named_arrays(memory.init_params(jax.random.key(0))))


def play(folder: Path, right: dict[str, list[bool]], writes: int = 0) -> None:
    """A finished run folder with these outcomes by task, of episodes of 10 ticks."""
    folder.mkdir(parents=True)
    log = EpisodeLog(folder / "episodes.jsonl")
    tasks = {}
    for task, outcomes in right.items():
        for i, success in enumerate(outcomes):
            outcome = "success" if success else "failure"
            log.append(EpisodeRecord(folder.name, task, "test", i, 0, outcome, f"{task}/{i}", ticks=10, writes=writes))
        n = len(outcomes)
        tasks[task] = {
            "successes": sum(outcomes), "n": n, "writes": n * writes, "ticks": 10 * n, "state_bytes": 4224,
        }  # fmt: skip
    write_results(folder, {"arms": {folder.name: {"tasks": tasks}}})


def test_the_controls_write_as_often_as_the_fitted_gate_did(tmp_path: Path) -> None:
    given = options(tmp_path)
    write_gate(given.gate)
    configs = {arm.name: config_of(arm, given, 0.0432) for arm in ARMS}
    file = f"aura:{given.gate}"
    assert configs[FITTED].memory == (file,)
    assert configs["random"].memory == (f"{file}?gate=random&rate=0.0432",)
    assert configs["periodic"].memory == (f"{file}?gate=periodic&rate=0.0432",)
    assert (configs["other"].memory, configs["other"].ablation) == ((file,), "swap")
    assert configs["oracle"].memory == ("oracle",)
    assert {c.wording for c in configs.values()} == {"held_out"}
    assert (configs["alone"].episodes, configs["other"].episodes) == (given.episodes, given.fewer)
    assert "touch" in configs["alone"].tasks
    assert "touch" not in configs["oracle"].tasks


@pytest.mark.parametrize(
    ("arms", "complaint"),
    [(("wrong",), "unknown arm 'wrong': choose from fitted"), (("alone",), "each is compared with 'fitted'")],
)
def test_arms_that_cannot_be_compared_are_refused(arms: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint):
        chosen_arms(options(tmp_path, arms=arms))


def test_the_page_has_every_arm_with_its_figures(tmp_path: Path) -> None:
    given = options(tmp_path)
    write_gate(given.gate)
    skill, nothing = {"touch": [True] * 8}, {"touch": [True] * 7 + [False]}
    play(given.out / "fitted", {"sequence": [True] * 6 + [False] * 2, **nothing}, writes=1)
    play(given.out / "alone", {"sequence": [True] * 2 + [False] * 6, **skill})
    play(given.out / "oracle", {"sequence": [True] * 8})
    play(given.out / "other", {"sequence": [True] + [False] * 3}, writes=1)
    page = page_of(given, ARMS)
    figures = page.figures
    assert figures["demo_over_oracle"].value == pytest.approx(0.75)
    assert figures["demo_over_oracle_sequence"].n == 8
    assert figures["demo_writes_per_tick"].value == pytest.approx(0.1)
    assert figures["demo_minus_alone_points"].value == pytest.approx(50)
    assert figures["demo_other_points"].value == pytest.approx(100 * (1 / 4 - 1 / 6), abs=0.5)
    assert figures["demo_skills_difference_points"].value == pytest.approx(-12.5)
    assert figures["demo_worst_skill_ci_low_points"].value < -12.5
    assert figures["fit_minutes"].value == 3.0
    assert "demo_random_gap_points" not in figures
    assert "| fitted to demonstrations | 8 | 75 | 75 (41 to 93) | 10.00 |" in page.text
    assert "| policy alone | 8 | +50.0 |" in page.text
    assert "| touch | 100 (68 to 100) | 88 (53 to 98) | -12.5 |" in page.text
    assert "| sequence | 10 | 0.1000 | 0.0500 |" in page.text
    assert "What was tried" not in page.text  # notes are of one gate alone


def test_figures_are_of_what_was_played(tmp_path: Path) -> None:
    play(tmp_path / "fitted", {"sequence": [True, False]}, writes=2)
    found = figures_of(played_of(ARMS, tmp_path), ["sequence"], [], {"sequence": 0.2})
    assert set(found) == {"demo_success", "demo_writes_per_tick"}
    assert all(np.isfinite(figure.value) for figure in found.values())
