"""`vlamem tour`: what it plays, and what it says of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from report_cases import write_run

from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.scripts.tour import STATES, steps
from vlamem.sim.report.tour import Step, changed_by_memory, tour
from vlamem.sim.results.episodes import EpisodeLog
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.registry import load_suite


def test_the_tour_plays_the_same_states_with_and_without_each_memory(tmp_path: Path) -> None:
    parts = steps(preset(RolloutConfig, "rollout"), tmp_path, 4, 30)
    configs = [config for _, config in parts]
    assert all(step.out == config.out for step, config in parts)
    memories = [config.memory[0].partition(":")[0] for config in configs]
    assert memories == ["none", "aura", "none", "success"]
    known = {task.name for task in load_suite("tabletop").tasks.values()}
    for alone, with_memory in (configs[:2], configs[2:]):
        assert set(alone.tasks) <= known
        same = {"memory": ("none",), "out": tmp_path, "workers": 0}
        assert replace(alone, **same) == replace(with_memory, **same)  # type: ignore[arg-type]
    assert (configs[3].states, configs[3].learns, configs[3].workers) == (STATES, True, 1)


def test_it_says_rates_with_intervals_differences_and_where_the_report_is(tmp_path: Path) -> None:
    said: list[str] = []
    rates = {"alone": 0.2, "aura": 0.9, "press-alone": 0.5, "press-success": 0.8}

    def play(step: Step) -> None:
        arm = "none" if step.against is None else "aura"
        write_run(step.out, arm, 6, rates[step.out.name], videos=0)

    parts = steps(preset(RolloutConfig, "rollout"), tmp_path, 6, 6)
    size = tour([step for step, _ in parts], play, tmp_path / "report.html", said.append)
    text = "\n".join(said)
    assert (tmp_path / "report.html").stat().st_size == size
    assert str(tmp_path / "report.html") in text
    assert text.count("minus the policy alone") == 2
    assert "of 12 succeed (" in text
    assert "first time in each state: " in text
    assert "afterwards: " in text
    assert "aura was written: gate 0.90" in text


def test_the_episode_that_it_explains_fails_without_the_memory_and_succeeds_with_it(tmp_path: Path) -> None:
    alone, memory = (
        EpisodeLog(write_run(tmp_path / name, name, 6, rate, videos=0) / "episodes.jsonl").read()
        for name, rate in (("none", 0.3), ("aura", 0.9))
    )
    found = changed_by_memory(alone, memory)
    assert found is not None
    (before,) = [r for r in alone if (r.task, r.episode) == (found.task, found.episode)]
    assert (before.outcome, found.outcome) == ("failure", "success")
    assert changed_by_memory(alone, alone) is None


def test_wrong_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tour", "--out", str(tmp_path), "--trials", "0"]) == 2
    assert "--trials" in capsys.readouterr().err
