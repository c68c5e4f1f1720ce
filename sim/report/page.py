"""Makes the report of runs: figures from vlamem.sim.results, drawn in the browser by Observable Plot, in one file."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from vlamem.core.files import write_atomically
from vlamem.sim.report.figures import differences, latencies, parts, success
from vlamem.sim.report.runs import Run, read_runs
from vlamem.sim.report.shown import choose, failure_groups, failures, listed, shown

_TRACES = 200
"""Traces a run, evenly spread, whose times are counted."""
_FAILURES = 200
"""Failed episodes that are shown."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        episodes: that are shown in full, at most.
        megabytes: of the page, at most; videos are left out from there on.

    Raises ValueError for negative ones.
    """

    episodes: int = 12
    megabytes: float = 20.0

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise ValueError(f"episodes is {self.episodes}: expected 0 or more")
        if self.megabytes <= 0:
            raise ValueError(f"megabytes is {self.megabytes}: expected more than 0")


def write_report(
    folders: Sequence[Path],
    out: Path,
    options: ReportOptions | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> int:
    """Writes the report of run folders to `out`; gives its bytes.

    `tell` is told what is missing or broken in them, which the page says too. Raises ReportError for a folder without
    episodes, RecordError for a line of episodes.jsonl that is none, OSError when the page cannot be written.
    """
    runs = read_runs(folders)
    data = _data(runs, options or ReportOptions())
    for note in data["notes"]:
        tell(note)
    page = _template().render(
        runs=[_about(run) for run in runs],
        notes=data.pop("notes"),
        failed=data["failed"],
        data=_script_json(data),
        **{name: _asset(path) for name, path in _ASSETS.items()},
    )
    write_atomically(out, page)
    return len(page.encode())


def _data(runs: Sequence[Run], options: ReportOptions) -> dict[str, Any]:
    """Everything that the page draws, as JSON values."""
    compared, notes = differences(runs)
    failed, count = failures(runs, _FAILURES)
    times = [row for run in runs for row in parts(run, [t for t in map(run.trace, _spread(run)) if t is not None])]
    left = options.megabytes * 1e6 - sum(len(f["image"] or "") for f in failed)
    episodes, dropped = [], 0
    for run, record in choose(runs, options.episodes):
        found = shown(run, record, True)
        size = len(found["video"] or "")
        if size > max(0.0, left):
            found["video"], dropped = None, dropped + 1
        else:
            left -= size
        left -= len(found["strip"] or "")
        episodes.append(found)
    if dropped:
        notes.append(f"{dropped} videos are left out: the page would be larger than {options.megabytes:g} MB.")
    if count > len(failed):
        notes.append(f"{len(failed)} of {count} failed episodes are shown; the table of all episodes lists the rest.")
    return {
        "runs": [run.label for run in runs],
        "success": success(runs),
        "differences": compared,
        "latency": latencies(runs),
        "parts": times,
        "failed": failed,
        "groups": failure_groups(runs),
        "shown": episodes,
        "episodes": [listed(run, record) for run in runs for record in run.records],
        "notes": [*(note for run in runs for note in dict.fromkeys(run.notes)), *notes],
    }


def _spread(run: Run) -> list[Any]:
    """At most _TRACES of a run's traced episodes, evenly spread."""
    traced = [record for record in run.records if run.has_trace(record)]
    return traced[:: max(1, -(-len(traced) // _TRACES))]


def _about(run: Run) -> dict[str, Any]:
    """What a run is, for the page's foot."""
    marks = run.fingerprint
    return {
        "label": run.label,
        "folder": str(run.folder),
        "episodes": len(run.records),
        "asked": run.configuration.get("episodes"),
        "command": marks.get("command"),
        "fingerprint": json.dumps({k: v for k, v in marks.items() if k != "command"}, indent=2, ensure_ascii=False),
    }


def _script_json(value: object) -> str:
    """JSON that can stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


_ASSETS = {
    "style": "report.css",
    "script": "report.js",
    "episodes": "episodes.js",
    "d3": "vendored/d3.min.js",
    "plot": "vendored/plot.umd.min.js",
    "licences": "vendored/LICENSES.txt",
}


def _asset(name: str) -> str:
    return resources.files("vlamem.sim.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    return environment.from_string(_asset("page.html.j2"))
