"""Compares two runs over the episodes that they share: same task, same initial state, same seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.statistics import PairedDifference, holm, paired_difference
from vlamem.sim.results.summary import TOTAL

Pair = tuple[str, str, int]


class CompareError(ValueError):
    """Runs that cannot be compared; the message names them and says why."""


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        tasks: paired difference (first minus second) of each task with pairs.
        total: over all pairs.
        only_first, only_second: (task, initial state, seed) that one run alone has, or that ended as an error in the
            other.
    """

    tasks: dict[str, PairedDifference]
    total: PairedDifference
    only_first: tuple[Pair, ...]
    only_second: tuple[Pair, ...]


def _outcomes(folder: Path) -> dict[Pair, bool]:
    path = folder / "episodes.jsonl"
    if not path.is_file():
        raise CompareError(f"{folder} is no run: it has no episodes.jsonl; expected the --out of a 'vlamem rollout'")
    records: dict[Pair, EpisodeRecord] = {}
    arms = set()
    for record in EpisodeLog(path).read():
        records[record.task, record.initial_state, record.seed] = record
        arms.add(record.arm)
    if len(arms) > 1:
        raise CompareError(f"{folder} holds several arms ({', '.join(sorted(arms))}): compare runs of one arm each")
    return {pair: r.outcome == "success" for pair, r in records.items() if r.outcome in ("success", "failure")}


def compare_runs(first: Path, second: Path) -> Comparison:
    """Success of run folder `first` minus that of `second`.

    Raises CompareError when a folder is no run or nothing can be paired, naming seeds and tasks of both.
    """
    a, b = _outcomes(first), _outcomes(second)
    pairs = sorted(a.keys() & b.keys())
    if not pairs:
        described = [
            f"{folder} has tasks {sorted({p[0] for p in found})} with seeds {sorted({p[2] for p in found})}"
            for folder, found in ((first, a), (second, b))
        ]
        raise CompareError(f"no episode is in both runs: {'; '.join(described)}: run both with the same tasks and seed")
    of_task: dict[str, list[Pair]] = {}
    for pair in pairs:
        of_task.setdefault(pair[0], []).append(pair)

    def difference(chosen: Sequence[Pair]) -> PairedDifference:
        return paired_difference([a[p] for p in chosen], [b[p] for p in chosen])

    return Comparison(
        {task: difference(chosen) for task, chosen in of_task.items()},
        difference(pairs),
        tuple(sorted(a.keys() - b.keys())),
        tuple(sorted(b.keys() - a.keys())),
    )


def verdict(difference: PairedDifference) -> str:
    """The difference in words; 'no difference shown' when the data show none."""
    if not difference.shown:
        return "no difference shown"
    return "first is better" if difference.value > 0 else "second is better"


@dataclass(frozen=True)
class RunDifference:
    """One run minus the run that it is compared with, over the pairs of a task or of all.

    Attributes:
        run, reference: their names.
        task: or "total".
        difference: `run` minus `reference`; only_first are the pairs in which `run` alone succeeded.
        holm: p adjusted by Holm's method: over the tasks of a run, and for the totals over the runs.
    """

    run: str
    reference: str
    task: str
    difference: PairedDifference
    holm: float

    @property
    def verdict(self) -> str:
        """Which run is better, by name; 'no difference shown' when the data show none."""
        if not replace(self.difference, p=self.holm).shown:
            return "no difference shown"
        return f"{self.run if self.difference.value > 0 else self.reference} is better"


@dataclass(frozen=True)
class ComparedRuns:
    """Runs minus one of them.

    Attributes:
        rows: each run's tasks and then its total, in the order of the runs.
        unpaired: what one of two runs alone has, by (run, that it was compared with).
    """

    rows: tuple[RunDifference, ...]
    unpaired: dict[tuple[str, str], tuple[Pair, ...]]


def compare_with(reference: Path, runs: Sequence[Path]) -> ComparedRuns:
    """Each of `runs` minus `reference`. Raises CompareError as `compare_runs`."""
    labels = labels_of([reference, *runs])
    found = [compare_runs(run, reference) for run in runs]
    totals = holm([each.total.p for each in found])
    rows: list[RunDifference] = []
    unpaired: dict[tuple[str, str], tuple[Pair, ...]] = {}
    for label, each, total in zip(labels[1:], found, totals, strict=True):
        adjusted = holm([difference.p for difference in each.tasks.values()])
        for (task, difference), p in zip(each.tasks.items(), adjusted, strict=True):
            rows.append(RunDifference(label, labels[0], task, difference, p))
        rows.append(RunDifference(label, labels[0], TOTAL, each.total, total))
        for names, pairs in (((label, labels[0]), each.only_first), ((labels[0], label), each.only_second)):
            if pairs:
                unpaired[names] = pairs
    return ComparedRuns(tuple(rows), unpaired)


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Names of run folders: their last parts where these differ, else whole paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def success_rate(folder: Path) -> tuple[int, int]:
    """Successes of a run, and its episodes that ended as success or failure. Raises CompareError without any."""
    found = _outcomes(folder)
    if not found:
        raise CompareError(f"{folder} has no episode that ended: play it with 'vlamem rollout'")
    return sum(found.values()), len(found)
