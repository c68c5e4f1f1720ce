"""`vlamem view` and `vlamem export`: what other programs read of a run."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from report_cases import TASKS, write_run, write_served

from vlamem.core.tick_trace import read_trace, trace_path
from vlamem.scripts.main import main
from vlamem.sim.report.export import as_latex, as_markdown, export_runs
from vlamem.sim.results.episodes import EpisodeLog
from vlamem.sim.results.statistics import wilson95


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [write_run(root / "alone", "none", 4, 0.3, videos=0), write_run(root / "aura", "aura", 4, 0.9)]


def rows_of(path: Path) -> dict[str, int]:
    """Rows of each entity of a recording, read back by Rerun."""
    from rerun.experimental import RrdReader

    found: dict[str, int] = {}
    for chunk in RrdReader(path).store().stream().to_chunks():
        found[chunk.entity_path] = found.get(chunk.entity_path, 0) + chunk.num_rows
    return found


def test_a_recording_has_figures_commands_cameras_and_words_of_every_step(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    assert main(["view", str(runs[1]), "--task", TASKS[0], "--episode", "0", "--out", str(tmp_path / "a.rrd")]) == 0
    trace = read_trace(trace_path(runs[1], TASKS[0], 0))
    steps, plans = len(trace.rows), sum(trace.column("planned"))
    found = rows_of(tmp_path / "a.rrd")
    assert found["/memory/aura/gate"] == found["/memory/aura/surprise"] == steps + 1  # and its style
    assert found["/memory/success/similarity"] == plans
    assert {name for name in found if name.startswith("/commands/")} == {f"/commands/entry.{i}" for i in range(7)}
    assert found["/commands/entry.0"] == steps
    assert found["/cameras"] == steps + 1  # references to frames, and the video
    assert found["/explained"] == 1
    assert found["/events"] > 0


def test_a_robots_recording_has_the_hands_path_and_plans_in_space(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    served = write_served(tmp_path / "served", 2)
    assert main(["view", str(served), "--task", "left-arm", "--episode", "1", "--out", str(tmp_path / "a.rrd")]) == 0
    trace = read_trace(trace_path(served, "left-arm", 1))
    found = rows_of(tmp_path / "a.rrd")
    assert found["/space/hand"] == len(trace.rows)
    assert found["/space/plans/executed"] == sum(trace.column("planned"))
    assert "/commands/translation.2" in found
    assert found["/cameras"] == 1


def test_a_run_is_followed_episode_by_episode_and_a_server_step_by_step(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    from vlamem.sim.report.viewer import follow

    served = tmp_path / "served"
    (served / "traces").mkdir(parents=True)
    saved: list[Path] = []

    def opened(stream: Any) -> None:
        saved.append(tmp_path / f"{len(saved)}.rrd")
        stream.save(saved[-1])

    looks = iter([False, True])

    def stopped() -> bool:
        if not any((served / "traces").iterdir()):
            write_served(served, 2)
        return next(looks)

    names = list(follow(served, opened, every_s=0, stopped=stopped))
    assert names == ["left-arm 1", "left-arm 2", "right-arm 1", "right-arm 2"]
    assert len(saved) == 4


def test_tables_have_the_figures_of_the_records(runs: list[Path], tmp_path: Path) -> None:
    files = {path.name for path in export_runs(runs, tmp_path)}
    kinds = {f"{table}.{kind}" for table in ("success", "differences") for kind in ("csv", "md", "tex")}
    assert files == kinds | {
        "success.svg",
        "success.pdf",
        "episodes.csv",
        "alone.eval_info.json",
        "aura.eval_info.json",
    }
    rows = list(csv.DictReader(io.StringIO((tmp_path / "success.csv").read_text())))
    records = EpisodeLog(runs[1] / "episodes.jsonl").read()
    own = [record for record in records if record.task == TASKS[0]]
    successes = sum(record.outcome == "success" for record in own)
    (row,) = [row for row in rows if (row["run"], row["task"]) == ("aura", TASKS[0])]
    assert int(row["n"]) == len(own)
    assert float(row["success %"]) == pytest.approx(100 * successes / len(own))
    assert float(row["Wilson 95 % low"]) == pytest.approx(100 * wilson95(successes, len(own))[0])
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "episodes.csv").read_text())))) == 16
    assert (tmp_path / "success.pdf").read_bytes()[:4] == b"%PDF"
    before = (tmp_path / "success.svg").read_bytes()
    export_runs(runs, tmp_path)
    assert (tmp_path / "success.svg").read_bytes() == before


def test_a_record_for_lerobot_has_a_success_for_every_episode(runs: list[Path], tmp_path: Path) -> None:
    export_runs(runs[1:], tmp_path)
    body = json.loads((tmp_path / "aura.eval_info.json").read_text())
    records = EpisodeLog(runs[1] / "episodes.jsonl").read()
    for entry in body["per_task"]:
        own = [record.outcome == "success" for record in records if record.task == entry["task"]]
        assert entry["metrics"]["successes"] == own
        assert entry["metrics"]["sum_rewards"] == [float(success) for success in own]
        assert len(entry["metrics"]["video_paths"]) == 1
    share = 100 * sum(record.outcome == "success" for record in records) / len(records)
    assert body["overall"]["pc_success"] == pytest.approx(share)
    assert body["overall"]["n_episodes"] == len(records)


def test_words_cannot_break_a_table() -> None:
    columns, rows = {"task": "task %"}, [{"task": "a|b_c & {d}\\"}, {"task": "total"}]
    assert as_markdown(columns, rows).splitlines()[2] == r"| a\|b_c & {d}\ |"
    assert r"a|b\_c \& \{d\}\textbackslash{} \\" in as_latex(columns, rows)
    assert as_latex(columns, rows).count(r"\hline") == 4


def test_a_trace_is_written_as_csv(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "trace.csv"
    assert main(["export", str(runs[1]), "--task", TASKS[1], "--episode", "2", "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    trace = read_trace(trace_path(runs[1], TASKS[1], 2))
    assert [float(row["aura.gate"]) for row in rows] == trace.column("aura.gate")
    assert len(rows[0]["command"].split()) == 7


def test_wrong_words_are_refused(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(run) for run in runs]
    assert main(["export", *both, "--episode", "1", "--out", str(tmp_path)]) == 2
    assert "--episode is of one run and 2 are given" in capsys.readouterr().err
    assert main(["export", "--out", str(tmp_path)]) == 2
    assert main(["view", both[0], "--connect", "x"]) == 2
    assert "add --live" in capsys.readouterr().err
