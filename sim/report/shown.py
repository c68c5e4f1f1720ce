"""Which episodes a report shows in full, and what it shows of each."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from vlamem.core.tick_trace import TickTrace, image_path, strip_path
from vlamem.sim.report.film import FilmError, data_uri, strip
from vlamem.sim.report.runs import Run
from vlamem.sim.results.episodes import EpisodeRecord, video_path

_DIGITS = 4


def choose(runs: Sequence[Run], most: int) -> list[tuple[Run, EpisodeRecord]]:
    """At most `most` episodes with a video or a trace: of every run and task, failures before successes.

    Episodes of one initial state stand together, those of the first run first.
    """
    groups: list[list[tuple[Run, EpisodeRecord]]] = []
    for task in dict.fromkeys(task for run in runs for task in run.tasks):
        for run in runs:
            found = [r for r in run.records if r.task == task and (run.has_video(r) or run.has_trace(r))]
            found.sort(key=lambda r: (not run.has_video(r), r.outcome != "failure", r.episode))
            groups.append([(run, record) for record in found])
    in_turn = [entry for turn in zip_longest(*groups) for entry in turn if entry is not None]
    order = {run.label: i for i, run in enumerate(runs)}
    return sorted(in_turn[:most], key=lambda e: (e[1].task, e[1].initial_state, order[e[0].label]))


def shown(run: Run, record: EpisodeRecord, film: bool) -> dict[str, Any]:
    """What the page shows of an episode; its video only with `film`."""
    found: dict[str, Any] = listed(run, record) | {"video": None, "strip": None, "hz": 20.0}
    path, still = (of(run.folder, record.task, record.episode) for of in (video_path, strip_path))
    if still.is_file():
        found["strip"] = data_uri("image/jpeg", still.read_bytes())
    if path.is_file():
        try:
            found["strip"], _ = strip(path)
            found["video"] = data_uri("video/mp4", path.read_bytes()) if film else None
        except FilmError as error:
            run.notes.append(f"{error}.")
    trace = run.trace(record)
    if trace is not None and trace.rows:
        found |= {"hz": trace.about["control_hz"] or 20.0, "timeline": timeline(trace)}
    return found


def timeline(trace: TickTrace) -> dict[str, Any]:
    """The columns of a trace that the page draws, by what they are and by memory.

    Lists of gate, surprise, confidence and commands have an entry a row, whose control step is in `numbers`; weights
    and what was retrieved have an entry a plan. Everything else names control steps: those of a robot need not begin
    at 0, and some may be missing.
    """
    rows = trace.rows
    numbers = [int(row["step"]) for row in rows]
    at_plans = [row for row in rows if row.get("planned")]
    memories = []
    for name in trace.memories:
        ticks = f"{name}.gate" in trace.columns
        memory: dict[str, Any] = {"name": name, "ticks": ticks}
        if ticks:
            memory |= {c: _short(trace.column(f"{name}.{c}")) for c in ("gate", "surprise", "confidence")}
            memory["wrote"] = _where(trace, f"{name}.wrote")
        memory["weight"] = _short([_weight(row, name) for row in at_plans])
        for c in ("abstained", "similarity", "spread", "retrieved"):
            if f"{name}.{c}" in trace.columns:
                memory[c] = _short([row.get(f"{name}.{c}") for row in at_plans])
        memories.append(memory)
    commands = trace.column("command")
    size = max((len(command) for command in commands if command), default=0)
    entries = [[command[i] if command else None for command in commands] for i in range(size)]
    return {
        "steps": len(rows),
        "numbers": numbers,
        "planned": [row["step"] for row in at_plans],
        "weight": _short([row.get("weight") for row in at_plans]),
        "memories": memories,
        "commands": [_short(entry) for entry in entries],
        "modes": _spans(numbers, trace.column("mode")),
        "limits": {row["step"]: row["limits"] for row in rows if row.get("limits")},
        "clipped": _where(trace, "clipped"),
        "cue_over": next(iter(_where(trace, "cue_over")), None),
        "hides": any(known is not None for known in trace.column("cue_known")),
        "phases": [numbers[i] for i in _changes(trace.column("phase"))],
    }


def _where(trace: TickTrace, name: str) -> list[int]:
    """Control steps at which a column has a value other than zero."""
    return [row["step"] for row in trace.rows if row.get(name)]


def _weight(row: dict[str, Any], memory: str) -> float:
    """The larger weight of what a memory proposed at a plan; an offset is added whole."""
    weights = (float(row.get(f"{memory}.{name}") or 0) for name in ("chunk_weight", "context_weight"))
    return max(*weights, float((row.get(f"{memory}.offset") or 0) > 0))


def listed(run: Run, record: EpisodeRecord) -> dict[str, Any]:
    """An episode's row in the table of all."""
    ms = record.wall_clock.get("decision_ms") or []
    return {
        "run": run.label,
        "memory": record.arm,
        "task": record.task,
        "episode": record.episode,
        "state": record.initial_state,
        "outcome": record.outcome,
        "instruction": record.instruction,
        "steps": record.steps,
        "writes": record.writes,
        "plans": record.decisions,
        "proposals": record.proposals,
        "weight": round(record.proposed_weight, _DIGITS),
        "ms": round(sorted(ms)[len(ms) // 2], 2) if ms else None,
        "error": record.error,
    }


def kind_of_failure(record: EpisodeRecord) -> str:
    """What memory had done in an episode that failed, by which failures are grouped."""
    if record.outcome == "error":
        return "ended as an error"
    if record.arm == "none":
        return "without a memory"
    if record.proposals:
        return "failed with a proposal"
    if record.ticks and not record.writes:
        return "nothing was written"
    return "written, nothing was proposed" if record.writes else "nothing was proposed"


def failures(runs: Sequence[Run], most: int) -> tuple[list[dict[str, Any]], int]:
    """At most `most` failed episodes, each with its last image where there is one; and how many there are."""
    found = [(run, record) for run in runs for record in run.records if record.outcome in ("failure", "error")]
    found.sort(key=lambda e: (e[1].task, e[1].initial_state))
    shown = [
        listed(run, record) | {"image": _last_image(run, record), "kind": kind_of_failure(record)}
        for run, record in found[:most]
    ]
    return shown, len(found)


def failure_groups(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How many episodes of each run and task failed in each way; the largest group first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    played: Counter[tuple[str, str]] = Counter()
    for run in runs:
        for record in run.records:
            played[run.label, record.task] += 1
            if record.outcome in ("failure", "error"):
                counts[run.label, record.task, kind_of_failure(record)] += 1
    return [
        {"run": run, "task": task, "kind": kind, "count": count, "played": played[run, task]}
        for (run, task, kind), count in counts.most_common()
    ]


def _last_image(run: Run, record: EpisodeRecord) -> str | None:
    path: Path = image_path(run.folder, record.task, record.episode)
    if path.is_file():
        return data_uri("image/jpeg", path.read_bytes())
    film = video_path(run.folder, record.task, record.episode)
    if film.is_file():
        try:
            return strip(film)[1]
        except FilmError:
            return None  # said where the episode is shown
    return None


def _short(values: Sequence[Any]) -> list[Any]:
    """Floats with as many digits as can be seen."""
    return [round(v, _DIGITS) if isinstance(v, float) else v for v in values]


def _spans(numbers: Sequence[int], values: Sequence[str | None]) -> list[dict[str, Any]]:
    """Stretches of equal values that are there: from and to, which it ends before, in control steps."""
    starts = [0, *_changes(values), len(values)]
    ends = [*numbers, numbers[-1] + 1] if numbers else []
    return [{"from": ends[a], "to": ends[b], "mode": values[a]} for a, b in pairwise(starts) if a < b and values[a]]


def _changes(values: Sequence[Any]) -> list[int]:
    """Where a value is not the one before."""
    return [i for i, (before, value) in enumerate(pairwise(values), 1) if value != before]
