"""The page of the policy alone, on tiny settings."""

from pathlib import Path

import pytest
from bench_cases import Progress

from vlamem.scripts.main import main
from vlamem.sim.bench import play
from vlamem.sim.bench.skills.options import SkillsBench
from vlamem.sim.bench.skills.run import run
from vlamem.sim.rollout.run import RolloutEnd


def test_page_and_figures_come_from_one_run(tmp_path: Path) -> None:
    bench = SkillsBench("tiny", ("touch", "recall_colour", "recall_colour_told"), 1, 1, 12, tmp_path, tmp_path, 0, 8, 0)
    progress = Progress()
    page = run(bench, "vlamem bench skills", progress)
    assert {"skills_success", "oracle_success", "probe_minus_chance_points", "decision_p50_ms"} <= set(page.figures)
    assert page.figures["skills_success"].n == 1
    assert progress.steps == 2 + 2 + 1 + 2 + 1
    assert "| recall_colour | z | 12 |" in page.text


def test_an_unknown_task_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    bench = SkillsBench("tiny", ("tuch",), 1, 1, 12, tmp_path, tmp_path, 1, 8, 0)
    with pytest.raises(ValueError, match="unknown task 'tuch'"):
        run(bench, "", Progress())


def test_an_interrupted_bench_says_where_it_stopped_and_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(play, "rollout", lambda config, begin, progress: RolloutEnd(3, 50, 0, 2, None))
    assert main(["bench", "skills", "--out", str(tmp_path), "--results", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    line = "vlamem bench skills: stopped in arm 'test': 3 of 50 episodes are kept; the same command continues"
    assert line in printed.err
