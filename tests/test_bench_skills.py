"""The page of the policy alone, on tiny settings."""

import json
from pathlib import Path

import pytest

from vlamem.sim.bench.skills import run
from vlamem.sim.bench.skills_options import SkillsBench


def test_the_page_and_its_twin_come_from_one_run(tmp_path: Path) -> None:
    bench = SkillsBench("tiny", ("touch", "recall_colour", "recall_colour_told"), 1, 1, 12, tmp_path, tmp_path, 1, 8, 0)
    seen: list[str] = []
    page, twin = run(bench, "vlamem bench skills", lambda *begun: None, lambda record: seen.append(record.task))
    figures = json.loads(twin.read_text())["figures"]
    assert {"skills_success", "oracle_success", "probe_minus_chance_points", "decision_p50_ms"} <= set(figures)
    assert figures["skills_success"]["n"] == 1
    assert len(seen) == 2 + 2 + 1 + 2 + 1
    assert "| recall_colour | z | 12 |" in page.read_text()


def test_an_unknown_task_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    bench = SkillsBench("tiny", ("tuch",), 1, 1, 12, tmp_path, tmp_path, 1, 8, 0)
    with pytest.raises(ValueError, match="unknown task 'tuch'"):
        run(bench, "", lambda *begun: None, lambda record: None)
