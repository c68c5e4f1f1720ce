"""sim/report and `vlamem report`: what the page says of runs, whole and broken."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_cases import TASKS, write_run, write_served

from vlamem.core.checksums import sealed, unsealed
from vlamem.core.tick_trace import trace_path
from vlamem.scripts.main import main
from vlamem.sim.report import ReportError, ReportOptions, write_report
from vlamem.sim.results.compare import compare_runs
from vlamem.sim.results.episodes import EpisodeLog, video_path
from vlamem.sim.results.statistics import holm, wilson95

LICENCES = ["http://www.apache.org/licenses/LICENSE-2.0"]
"""Addresses that words of a licence name."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run without a memory, and one with two."""
    root = tmp_path_factory.mktemp("runs")
    return write_run(root / "alone", "none", 6, 0.3), write_run(root / "aura", "aura", 6, 0.9)


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of both."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(runs, out) == out.stat().st_size
    return out.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    body: dict[str, Any] = json.loads(found[1])
    return body


def report(tmp_path: Path, *runs: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    write_report(runs, tmp_path / "page.html", ReportOptions(**options), notes.append)
    return data_of((tmp_path / "page.html").read_text(encoding="utf-8")), notes


def test_rates_have_n_and_wilson_intervals_of_the_records(page: str, runs: tuple[Path, Path]) -> None:
    for run in runs:
        records = EpisodeLog(run / "episodes.jsonl").read()
        for task in (*TASKS, "total"):
            (row,) = [r for r in data_of(page)["success"] if (r["run"], r["task"]) == (run.name, task)]
            own = [r for r in records if task in (r.task, "total")]
            successes = sum(r.outcome == "success" for r in own)
            low, high = wilson95(successes, len(own))
            assert row["n"] == len(own)
            assert (row["rate"], row["low"], row["high"]) == pytest.approx(
                (100 * successes / len(own), 100 * low, 100 * high)
            )


def test_differences_are_those_of_compare_with_holm_over_the_tasks(page: str, runs: tuple[Path, Path]) -> None:
    comparison = compare_runs(runs[1], runs[0])
    rows = {row["task"]: row for row in data_of(page)["differences"]}
    adjusted = dict(zip(comparison.tasks, holm([d.p for d in comparison.tasks.values()]), strict=True))
    for task, difference in comparison.tasks.items():
        row = rows[task]
        assert (row["first"], row["second"], row["n"]) == ("aura", "alone", difference.n)
        assert (row["value"], row["p"], row["holm"]) == pytest.approx(
            (100 * difference.value, difference.p, adjusted[task])
        )
        if adjusted[task] >= 0.05:
            assert row["verdict"] == "no difference shown"
    assert rows["total"]["holm"] == comparison.total.p  # one pair of runs: nothing to adjust


def test_shown_episodes_have_film_and_timelines_that_agree_with_the_records(page: str) -> None:
    shown = data_of(page)["shown"]
    assert {(each["run"], each["task"]) for each in shown} == {(r, t) for r in ("alone", "aura") for t in TASKS}
    for each in shown:
        line = each["timeline"]
        assert (line["steps"], len(line["planned"])) == (each["steps"], each["plans"])
        assert sum(len(memory.get("wrote", [])) for memory in line["memories"]) == each["writes"]
        assert sum(weight > 0 for weight in line["weight"]) == each["proposals"]
        assert {memory["name"] for memory in line["memories"]} == (
            {"aura", "success"} if each["run"] == "aura" else set()
        )
    filmed = [each for each in shown if each["video"]]
    assert len(filmed) == 4
    assert all(each["strip"].startswith("data:image/jpeg;base64,") for each in filmed)


def test_every_failure_has_its_last_image(page: str, runs: tuple[Path, Path]) -> None:
    failed = [r for run in runs for r in EpisodeLog(run / "episodes.jsonl").read() if r.outcome != "success"]
    found = data_of(page)["failed"]
    assert len(found) == len(failed) > 0
    assert all(each["image"].startswith("data:image/jpeg;base64,") for each in found)


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "default-src 'none'" in markup
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", markup)
    assert re.findall(r"https?://\S+", markup) == LICENCES


def test_words_of_runs_cannot_become_markup(page: str) -> None:
    assert "<now>" not in page
    assert data_of(page)["shown"][0]["instruction"].endswith("<now>")


def test_the_same_runs_give_the_same_page(page: str, runs: tuple[Path, Path], tmp_path: Path) -> None:
    write_report(runs, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def test_videos_are_left_out_where_the_page_would_be_too_large(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found, notes = report(tmp_path, *runs, megabytes=0.000001)
    assert [each["video"] for each in found["shown"]] == [None] * len(found["shown"])
    assert any("4 videos are left out" in note for note in notes)


def test_a_run_without_traces_and_videos_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "old", "none", 3, 0.5, videos=0, traces=False)
    found, notes = report(tmp_path, run)
    assert found["shown"] == []
    assert len(found["episodes"]) == 6
    assert any("old has no traces" in note for note in notes)
    assert any("old has no videos" in note for note in notes)


def test_a_run_that_is_still_being_written_is_said_to_be(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "none", 3, 0.5)
    (run / "results.json").unlink()
    with (run / "episodes.jsonl").open("a") as log:
        log.write('{"arm": "none", "ta')
    found, notes = report(tmp_path, run)
    assert len(found["episodes"]) == 6
    assert any("run has no results.json: it is unfinished or still being written" in note for note in notes)


def test_a_cut_video_and_a_cut_trace_are_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "aura", 3, 0.5)
    video, trace = video_path(run, TASKS[0], 0), trace_path(run, TASKS[1], 0)
    for path in (video, trace):
        path.write_bytes(path.read_bytes()[:200])
    found, notes = report(tmp_path, run)
    cut = {(each["task"], each["episode"]): each for each in found["shown"]}
    assert cut[TASKS[0], 0]["video"] is None
    assert "timeline" in cut[TASKS[0], 0]
    assert "timeline" not in cut[TASKS[1], 0]
    assert any(f"{video} cannot be read as a video" in note for note in notes)
    assert any(f"{trace} is no trace" in note for note in notes)


def test_runs_of_other_tasks_are_not_compared_and_it_is_said(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, "none", 2, 0.5, videos=0) for name in ("first", "second"))
    lines = (second / "episodes.jsonl").read_text().splitlines()
    changed = [sealed(unsealed(json.loads(line)) | {"seed": 7}) for line in lines]
    (second / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    found, notes = report(tmp_path, first, second)
    assert found["differences"] == []
    assert any("second and first cannot be compared: no episode is in both runs" in note for note in notes)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / side / "run", "none", 2, 0.5, videos=0) for side in ("left", "right")]
    assert report(tmp_path, *runs)[0]["runs"] == ["left/run", "right/run"]


def test_a_folder_that_is_no_run_is_refused_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "empty is no run: it has no episodes.jsonl" in capsys.readouterr().err
    run = write_run(tmp_path / "run", "none", 1, 0.5, videos=0)
    with pytest.raises(ReportError, match="given twice"):
        write_report([run, run], tmp_path / "page.html")
    assert main(["report"]) == 2


def test_the_verb_writes_into_the_first_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", "none", 2, 0.5, videos=0)
    assert main(["report", str(run), "--episodes", "1"]) == 0
    assert f"report: {run / 'report.html'}" in capsys.readouterr().out
    assert len(data_of((run / "report.html").read_text(encoding="utf-8"))["shown"]) == 1


def test_what_a_server_left_is_reported_by_session_and_label(tmp_path: Path) -> None:
    served = write_served(tmp_path / "arms", 4)
    found, notes = report(tmp_path, served)
    assert {row["task"] for row in found["success"]} == {"left-arm", "right-arm", "total"}
    outcomes = {(row["task"], row["episode"]): row["outcome"] for row in found["episodes"]}
    assert len(outcomes) == 8
    assert outcomes["left-arm", 1] == outcomes["right-arm", 4] == "unlabelled"  # quarantined, and still running
    total = next(row for row in found["success"] if row["task"] == "total")
    assert (total["n"], total["errors"], total["bytes"]) == (6, 0, 4224)
    assert any("1 of 8 episodes go on, or were cut short" in note for note in notes)
    assert any("2 of 8 episodes have no label" in note for note in notes)
    shown = {(each["task"], each["episode"]): each for each in found["shown"]}
    line = shown["left-arm", 2]["timeline"]
    assert [span["mode"] for span in line["modes"]] == ["wait", "run", "hold", "run"]
    assert line["limits"]["5"] == "speed step"
    assert shown["left-arm", 2]["strip"].startswith("data:image/jpeg")
    assert line["commands"][0][-1] is None


def test_failures_are_grouped_by_what_memory_had_done(page: str, runs: tuple[Path, Path]) -> None:
    groups = data_of(page)["groups"]
    records = [(run.name, r) for run in runs for r in EpisodeLog(run / "episodes.jsonl").read()]
    assert sum(group["count"] for group in groups) == sum(r.outcome == "failure" for _, r in records)
    assert {(group["run"], group["kind"]) for group in groups} <= {
        ("alone", "without a memory"), ("aura", "failed with a proposal")
    }  # fmt: skip


def test_a_server_without_episodes_is_refused_and_one_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new" / "traces").mkdir(parents=True)
    assert main(["report", str(tmp_path / "new")]) == 2
    assert "new has no traced episode yet" in capsys.readouterr().err
    served, run = write_served(tmp_path / "arms", 2), write_run(tmp_path / "run", "none", 2, 0.5, videos=0)
    _, notes = report(tmp_path, served, run)
    assert any("run and arms are not compared: episodes of arms have no pairs" in note for note in notes)
