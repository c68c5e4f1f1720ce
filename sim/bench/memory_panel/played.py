"""What was played of an arm of the panel, and how two arms differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.sim.bench.memory_panel.arms import PanelArm
from vlamem.sim.bench.rate import Rate
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import Figure, load_results
from vlamem.sim.results.statistics import PairedDifference, paired_difference, ratio95


@dataclass(frozen=True)
class Played:
    """What was played of an arm.

    Attributes:
        arm: the arm.
        folder: its run folder.
        tasks: counts by task, as in results.json.
    """

    arm: PanelArm
    folder: Path
    tasks: Mapping[str, Mapping[str, Any]]

    def rate(self, tasks: Sequence[str]) -> float:
        """Mean of the success rates of tasks."""
        return float(np.mean([self.tasks[t]["successes"] / self.tasks[t]["n"] for t in tasks]))

    def counts(self, tasks: Sequence[str]) -> tuple[int, int]:
        """Successes and episodes over tasks."""
        return sum(self.tasks[t]["successes"] for t in tasks), sum(self.tasks[t]["n"] for t in tasks)

    def writes(self, tasks: Sequence[str]) -> float | None:
        """Writes per tick over tasks, None where nothing ticks."""
        ticks = sum(self.tasks[t]["ticks"] for t in tasks)
        return sum(self.tasks[t]["writes"] for t in tasks) / ticks if ticks else None

    def state_bytes(self) -> int:
        """Bytes of the memory's state."""
        return max(int(c["state_bytes"]) for c in self.tasks.values())

    def task_rate(self, task: str) -> Rate | None:
        """The success rate of one task; None where no episode of it ended without an error."""
        counts = self.tasks.get(task)
        return Rate(counts["successes"], counts["n"]) if counts is not None and counts["n"] else None


def played_of(arms: Sequence[PanelArm], out: Path) -> dict[str, Played]:
    """The arms whose run folders in `out` are finished, by name."""
    found = {}
    for arm in arms:
        folder = out / arm.name
        if (folder / "results.json").exists():
            (body,) = load_results(folder)["arms"].values()
            found[arm.name] = Played(arm, folder, body["tasks"])
    return found


def _outcomes(folder: Path) -> dict[tuple[str, str, int], EpisodeRecord]:
    return {
        (r.task, r.initial_state, r.seed): r
        for r in EpisodeLog(folder / "episodes.jsonl").read()
        if r.outcome != "error"
    }


def difference(first: Played, second: Played, tasks: Sequence[str]) -> PairedDifference:
    """Success of `first` minus `second` over the pairs of `tasks` that both have."""
    a, b = _outcomes(first.folder), _outcomes(second.folder)
    pairs = sorted(p for p in a.keys() & b.keys() if p[0] in tasks)
    return paired_difference([a[p].outcome == "success" for p in pairs], [b[p].outcome == "success" for p in pairs])


def ratio(first: Played, second: Played, tasks: Sequence[str]) -> Figure:
    """Success of `first` over that of `second` on the episodes that both have, nan over 0; its interval is that of the
    pooled rates of both."""
    a, b = _outcomes(first.folder), _outcomes(second.folder)
    both = [p for p in a.keys() & b.keys() if p[0] in tasks]
    counts, over = ((sum(o[p].outcome == "success" for p in both), len(both)) for o in (a, b))
    if not over[0]:
        return Figure(np.nan)
    low, high = ratio95(counts, over)
    value = counts[0] / over[0]
    return Figure(value, counts[1], (min(low, value), max(high, value)))


def core_hours(played: Mapping[str, Played]) -> float:
    """What all episodes took, each on one core."""
    logs = (p.folder / "episodes.jsonl" for p in played.values())
    return sum(float(r.wall_clock["seconds"]) for log in logs if log.exists() for r in EpisodeLog(log).read()) / 3600
