"""Reads what a server left of the episodes that it served: traces, and labels that came for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.jsonl import LineError, read_lines
from vlamem.core.running_trace import SUFFIX, read_running
from vlamem.core.tick_trace import TickTrace, TraceError, read_trace
from vlamem.sim.results.episodes import EpisodeRecord, Outcome


def is_served(folder: Path) -> bool:
    """Whether a folder is the --state of a server, and no rollout's."""
    return not (folder / "episodes.jsonl").exists() and (folder / "traces").is_dir()


def read_served(folder: Path) -> tuple[list[EpisodeRecord], list[str]]:
    """A record of each traced episode in the order of sessions and episodes, and notes of what cannot be read.

    The task of a record is the robot's session. An episode without a label is "unlabelled", and in no rate.
    """
    notes: list[str] = []
    records: dict[tuple[str, int], EpisodeRecord] = {}
    labels = _labels(folder, notes)
    running = 0
    for trace, goes_on in _traces(folder, notes):
        session, episode = str(trace.about["task"]), int(trace.about["episode"])
        records[session, episode] = _record(trace, labels.get((session, episode), "unlabelled"))
        running += goes_on
    if running:
        notes.append(f"{running} of {len(records)} episodes go on, or were cut short with their server.")
    unlabelled = sum(record.outcome == "unlabelled" for record in records.values())
    if unlabelled:
        notes.append(f"{unlabelled} of {len(records)} episodes have no label: they are in no rate.")
    return [records[key] for key in sorted(records)], notes


def _traces(folder: Path, notes: list[str]) -> Iterator[tuple[TickTrace, bool]]:
    """Every trace, and whether its episode goes on."""
    for path in sorted((folder / "traces").iterdir()):
        try:
            if path.suffix == ".parquet":
                yield read_trace(path), False
            elif path.name.endswith(SUFFIX) and path.stat().st_size:
                whole = path.with_name(path.name.removesuffix(SUFFIX) + ".parquet")
                if not whole.exists():
                    yield read_running(whole), True
        except TraceError as error:
            notes.append(str(error))
        except FileNotFoundError:
            continue  # the episode ended, or was removed, while its folder was read


def _labels(folder: Path, notes: list[str]) -> dict[tuple[str, int], Outcome]:
    """The outcome of each labelled episode; the last label counts, and none that is quarantined."""
    found: dict[tuple[str, int], Outcome] = {}
    try:
        for line in read_lines(folder / "traces" / "labels.jsonl", dict, "label"):
            if line["outcome"] in ("success", "failure") and not line["quarantined"]:
                found[str(line["session"]), int(line["episode"])] = line["outcome"]
    except (LineError, KeyError) as error:
        notes.append(f"labels cannot be read: {error}.")
    return found


def _record(trace: TickTrace, outcome: Outcome) -> EpisodeRecord:
    about: dict[str, Any] = trace.about
    session, episode = str(about["task"]), int(about["episode"])
    weights = [weight for weight in trace.column("weight") if weight]
    wrote = [trace.column(f"{name}.wrote") for name in trace.memories if f"{name}.wrote" in trace.columns]
    planned = [row for row in trace.rows if row.get("planned")]
    # from the robot's request to the chunk, where the robot says; else the pass alone
    times = [ms for ms in trace.column("plan_ms") if ms is not None] or [row.get("pass_ms") for row in planned]
    return EpisodeRecord(
        str(about.get("arm", "none")), session, "served", episode, 0, outcome, f"{session}/{episode}",
        instruction=str(about.get("instruction", "")), steps=len(trace.rows), decisions=len(planned),
        writes=sum(any(step) for step in zip(*wrote, strict=True)), ticks=len(trace.rows) if wrote else 0,
        state_bytes=int(about.get("state_bytes", 0)), proposals=len(weights),
        proposed_weight=float(np.mean(weights or [0.0])),
        wall_clock={"decision_ms": [round(ms, 3) for ms in times if ms is not None]},
    )  # fmt: skip
