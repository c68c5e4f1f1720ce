"""Writes the figures of runs as tables (CSV, Markdown, LaTeX), as charts (SVG, PDF), and for other tools.

Every count, interval and test comes from vlamem.sim.results, as in the report.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlamem.core.files import write_atomically
from vlamem.core.tick_trace import TickTrace
from vlamem.sim.report.figures import differences, success
from vlamem.sim.report.runs import Run, read_runs
from vlamem.sim.report.shown import listed
from vlamem.sim.results.episodes import EpisodeRecord, video_path
from vlamem.sim.results.summary import TOTAL

Row = Mapping[str, Any]
_SUCCESS = {
    "run": "run", "memory": "memory", "task": "task", "n": "n", "rate": "success %", "low": "Wilson 95 % low",
    "high": "Wilson 95 % high", "errors": "errors", "steps": "steps", "writes": "writes %", "bytes": "state bytes",
    "p50": "ms p50", "p95": "ms p95", "p99": "ms p99",
}  # fmt: skip
_DIFFERENCES = {
    "first": "first", "second": "second", "task": "task", "n": "pairs", "value": "first minus second",
    "low": "95 % low", "high": "95 % high", "only_first": "only first", "only_second": "only second",
    "p": "McNemar p", "holm": "Holm p", "verdict": "verdict",
}  # fmt: skip
_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\~{}", "^": r"\^{}", "\\": r"\textbackslash{}"})


def export_runs(folders: Sequence[Path], out: Path) -> list[Path]:
    """Writes the tables and charts of runs, their episodes, and one record for LeRobot's tools each; gives the files.

    Raises ReportError for a folder without episodes, RecordError for a line that is none, OSError.
    """
    runs = read_runs(folders)
    tables = {"success": (_SUCCESS, success(runs))}
    if len(runs) > 1:
        tables["differences"] = (_DIFFERENCES, differences(runs)[0])
    files: dict[str, str | bytes] = {}
    for name, (columns, rows) in tables.items():
        files[f"{name}.csv"] = as_csv(columns, rows)
        files[f"{name}.md"] = as_markdown(columns, rows)
        files[f"{name}.tex"] = as_latex(columns, rows)
    episodes = [listed(run, record) for run in runs for record in run.records]
    names = {name: name for name in episodes[0]} | {"ms": "decision ms p50"}
    files["episodes.csv"] = as_csv(names, episodes)
    for run in runs:
        label = run.label.replace("/", "_")
        files[f"{label}.eval_info.json"] = json.dumps(lerobot_record(run), indent=2) + "\n"
    files |= _charts(success(runs), [run.label for run in runs])
    for name, content in files.items():
        write_atomically(out / name, content)
    return [out / name for name in files]


def export_trace(trace: TickTrace, out: Path) -> None:
    """Writes a trace as CSV, a row a control step; entries of a list are separated by spaces. Raises OSError."""
    write_atomically(out, as_csv({name: name for name in trace.columns}, trace.rows))


def as_csv(columns: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Rows under the given names, with every digit; empty where there is no value."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns.values())
    for row in rows:
        table.writerow([_full(row.get(name)) for name in columns])
    return text.getvalue()


def as_markdown(columns: Mapping[str, str], rows: Sequence[Row]) -> str:
    """A table of Markdown, rounded as the report shows it."""
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[_short(name, row.get(name)).replace("|", r"\|") for name in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(columns: Mapping[str, str], rows: Sequence[Row]) -> str:
    """A tabular environment, rounded likewise; a line above and below the head and before totals, without packages."""
    numbers = [any(isinstance(row.get(name), int | float) for row in rows) for name in columns]
    lines = [rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numbers)}}}", r"\hline"]
    lines += [" & ".join(name.translate(_LATEX) for name in columns.values()) + r" \\", r"\hline"]
    for row in rows:
        lines += [r"\hline"] if row.get("task") == TOTAL else []
        lines.append(" & ".join(_short(name, row.get(name)).translate(_LATEX) for name in columns) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def lerobot_record(run: Run) -> dict[str, Any]:
    """A run in the form of lerobot-eval's eval_info.json.

    Suites here give no reward but success, 1 at an episode's end or 0. Episodes without an outcome are left out.
    """
    known = [record for record in run.records if record.outcome in ("success", "failure")]
    group = str(run.configuration.get("suite", run.label))
    tasks = list(dict.fromkeys(record.task for record in known))
    per_task = []
    for number, task in enumerate(tasks):
        of_task = [record for record in known if record.task == task]
        rewards = [float(record.outcome == "success") for record in of_task]
        metrics = {
            "sum_rewards": rewards,
            "max_rewards": rewards,
            "successes": [record.outcome == "success" for record in of_task],
            "video_paths": _videos(run, of_task),
        }
        per_task.append({"task_group": group, "task_id": number, "task": task, "metrics": metrics})
    together = _aggregate(run, known)
    seconds = sum(float(record.wall_clock.get("seconds", 0.0)) for record in known)
    timed = {"eval_s": seconds, "eval_ep_s": seconds / max(1, len(known))}
    return {"per_task": per_task, "per_group": {group: together}, "overall": together | timed}


def _aggregate(run: Run, records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    share = sum(record.outcome == "success" for record in records) / len(records) if records else None
    return {
        "avg_sum_reward": share,
        "avg_max_reward": share,
        "pc_success": None if share is None else 100 * share,
        "n_episodes": len(records),
        "video_paths": _videos(run, records),
    }


def _videos(run: Run, records: Sequence[EpisodeRecord]) -> list[str]:
    filmed = [record for record in records if run.has_video(record)]
    return [str(video_path(run.folder, record.task, record.episode)) for record in filmed]


def _charts(rows: Sequence[Row], runs: Sequence[str]) -> dict[str, bytes]:
    """Success with its intervals, by task and run, as SVG and PDF that are the same for the same runs."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    known = [row for row in rows if row["rate"] is not None]
    tasks = list(dict.fromkeys(row["task"] for row in known))
    found = {}
    with rc_context({"svg.hashsalt": "vlamem", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure = Figure(figsize=(6, 0.9 + 0.28 * max(1, len(tasks)) * len(runs)), layout="constrained")
        axes = figure.add_subplot()
        for number, run in enumerate(runs):
            own = [row for row in known if row["run"] == run]
            at = [tasks.index(row["task"]) + (number - (len(runs) - 1) / 2) * 0.8 / len(runs) for row in own]
            rate = [row["rate"] for row in own]
            low = [row["rate"] - row["low"] for row in own]
            high = [row["high"] - row["rate"] for row in own]
            axes.errorbar(rate, at, xerr=[low, high], fmt="o", capsize=2, label=run)
        axes.set(xlim=(0, 100), xlabel="success % with its Wilson 95 % interval", yticks=range(len(tasks)))
        axes.set_yticklabels(tasks)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        if len(runs) > 1:
            figure.legend(loc="outside lower center", ncols=min(3, len(runs)), frameon=False)
        for kind, dated in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=dated)
            found[f"success.{kind}"] = buffer.getvalue()
    return found


def _full(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(_full, value))
    return str(value)


def _short(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if name in ("p", "holm") else f"{value:.1f}"
    return str(value)
