"""sim/results.py"""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.pages import (
    Figure,
    ResultsError,
    add_figures,
    fingerprint,
    load_page,
    load_results,
    without_wall_clock,
    write_result_page,
    write_results,
)
from vlamem.sim.results.statistics import clopper_pearson95, wilson95
from vlamem.sim.results.summary import summarise, table


def printed(*records: EpisodeRecord) -> list[list[str]]:
    """The cells of a run's table."""
    arms, latency = summarise(records, sorted({r.task for r in records}))
    console = Console(width=200)
    with console.capture() as text:
        console.print(table({"arms": arms, "wall_clock": {"decision_ms": latency}}))
    lines = [line for line in text.get().splitlines() if line[0] in "┃│"]
    return [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines]


def played(episode: int, success: bool, **memory: Any) -> EpisodeRecord:
    outcome = "success" if success else "failure"
    return EpisodeRecord("aura", "touch", "test", episode, 0, outcome, f"test/{episode}", decisions=4, **memory)


def test_a_table_says_how_often_a_memory_wrote_and_spoke_and_how_surely() -> None:
    head, touch, total = printed(
        played(0, True, writes=2, ticks=20, proposals=1, proposed_weight=0.4),
        played(1, True, writes=1, ticks=10, proposals=3, proposed_weight=0.8),
    )
    assert head[5:9] == ["steps", "writes %", "proposed %", "weight"]
    assert touch[6:9] == total[6:9] == ["10.0", "50.0", "0.70"]
    assert "writes %" not in printed(played(0, True))[0]
    silent = printed(played(0, True, ticks=10))
    assert silent[1][6:9] == ["0.0", "0.0", "-"]


def test_a_rate_near_0_or_1_has_the_exact_interval_beside_it() -> None:
    assert printed(*(played(i, i < 4) for i in range(9)))[1][4] == "18.9 to 73.3 (exact 13.7 to 78.8)"
    assert "exact" not in printed(*(played(i, i < 5) for i in range(10)))[1][4]
    assert clopper_pearson95(0, 10) == pytest.approx((0, 1 - 0.025 ** (1 / 10)))  # in closed form
    assert clopper_pearson95(0, 0) == wilson95(0, 0) == (0, 1)


def test_fingerprint_names_versions_machine_and_what_the_caller_gives() -> None:
    marks = fingerprint(weights="abc", gl="osmesa llvmpipe")
    assert marks["packages"]["numpy"]
    assert marks["python"].startswith("3.12")
    assert marks["cpu"]
    assert (marks["weights"], marks["gl"]) == ("abc", "osmesa llvmpipe")
    json.dumps(marks)


def test_results_page_and_twin_carry_the_same_figures(tmp_path: Path) -> None:
    figures = {"success": Figure.rate(27, 30), "weights_mb": Figure(10.5), "steps": Figure.mean([1.0, 2.0])}
    page, twin = write_result_page("skills", "vlamem report", figures, "# Skills\n\nText.", tmp_path, {"seed": 3})
    body = json.loads(twin.read_text())
    assert body["command"] == "vlamem report"
    assert body["fingerprint"]["seed"] == 3
    assert body["figures"]["success"]["n"] == 30
    assert body["figures"]["success"]["ci95"] == pytest.approx([0.7438, 0.9654], abs=1e-3)
    assert body["figures"]["weights_mb"] == {"value": 10.5, "n": None, "ci95": None}
    text = page.read_text()
    assert text.startswith("# Skills\n")
    assert "| success | 0.9 | 30 | 0.7438 to 0.9654 |" in text
    assert "`vlamem report`" in text


def test_a_page_says_when_only_some_of_the_cores_were_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for cores, noted in ((range(8), False), ([3], True)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: set(cores))
        page, twin = write_result_page("skills", "command", {}, "# Skills", tmp_path)
        assert json.loads(twin.read_text())["fingerprint"]["usable_cores"] == len(list(cores))
        assert ("8 cores, of which this had 1;" in page.read_text()) == noted


@pytest.mark.parametrize("figure", [Figure(float("nan")), Figure(0.5, 10, (0.6, 0.7))])
def test_a_figure_that_makes_no_sense_is_not_written(tmp_path: Path, figure: Figure) -> None:
    with pytest.raises(ValueError, match="figure bad"):
        write_result_page("page", "command", {"bad": figure}, "# Page", tmp_path)
    assert not list(tmp_path.iterdir())


def test_rate_over_no_trials_is_no_figure() -> None:
    with pytest.raises(ValueError, match="leave it out"):
        Figure.rate(0, 0)


def test_results_round_trip_and_wall_clock_is_set_apart(tmp_path: Path) -> None:
    write_results(tmp_path, {"arms": {"none": 1}, "wall_clock": {"seconds": 2.0}})
    body = load_results(tmp_path)
    assert body["version"] == 1
    assert without_wall_clock(body) == {"schema": "vlamem.results", "version": 1, "arms": {"none": 1}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "missing"),
        ("{", "not JSON"),
        ('{"schema": "vlamem.results", "version": 99}', "another version"),
        ("[]", "list"),
    ],
)
def test_unreadable_results_say_what_is_wrong(tmp_path: Path, text: str | None, complaint: str) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError, match=complaint):
        load_results(tmp_path)


def test_figures_of_another_page_are_added_and_replaced_but_none_of_its_own(tmp_path: Path) -> None:
    own = {"success": Figure.rate(27, 30)}
    page, twin = write_result_page("panel", "command", own, "# Panel", tmp_path)
    before = json.loads(twin.read_text())
    for value in (3.0, 5.0):
        more = {"success": Figure(0.1), "drop_points": Figure(value, 20, (1.0, 6.0))}
        add_figures("panel", "axes", more, tmp_path)
        body = json.loads(twin.read_text())
        assert body["figures"]["success"] == before["figures"]["success"]
        assert body["figures"]["drop_points"] == {"value": value, "n": 20, "ci95": [1.0, 6.0], "page": "axes"}
        assert {k: v for k, v in body.items() if k != "figures"} == {k: v for k, v in before.items() if k != "figures"}
        rows = [line for line in page.read_text().splitlines() if "drop_points" in line]
        assert rows == [f"| drop_points, [axes](axes.md) | {value:g} | 20 | 1 to 6 |"]
    assert page.read_text().splitlines()[-1].startswith("Python ")
    add_figures("panel", "axes", {}, tmp_path)
    assert json.loads(twin.read_text()) == before


def test_figures_are_not_added_to_what_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"panel\.json cannot be read"):
        add_figures("panel", "axes", {}, tmp_path)
    (tmp_path / "panel.json").write_text("[]")
    with pytest.raises(ResultsError, match="no results page's twin"):
        load_page("panel", tmp_path)
