"""The page of `vlamem bench throughput`: a section for each arena, and the cost of a tick beside a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.sim.bench.rate import Rate
from vlamem.sim.bench.throughput.families import WARM, Cost
from vlamem.sim.bench.throughput.options import ThroughputBench
from vlamem.sim.bench.throughput.runs import Arena, Run, profiled_batch
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference, paired_difference


def between(first: Run, second: Run) -> PairedDifference:
    """Success of `first` minus that of `second`. Raises KeyError unless both have the same tasks and states."""
    keys = sorted(first.successes)
    return paired_difference([first.successes[k] for k in keys], [second.successes[k] for k in keys])


def rate(run: Run) -> Figure:
    """Its success."""
    return Figure.rate(sum(run.successes.values()), len(run.successes))


@dataclass(frozen=True)
class RunRow:
    """One run of a program.

    Attributes:
        run: what it did.
        rate: of its episodes.
        ratio: episodes an hour of the first run over those of this one.
    """

    run: Run
    rate: Rate
    ratio: float


@dataclass(frozen=True)
class Section:
    """One arena.

    Attributes:
        arena: what was played.
        rows: each run, ours first.
        fastest: of lerobot-eval.
        differences: success of each of our runs minus that of the fastest of lerobot-eval.
        shares: of each part in an episode's time, by render profile.
        steps: control steps that were timed, by render profile.
        batch: episodes side by side while they were timed.
    """

    arena: Arena
    rows: Sequence[RunRow]
    fastest: Run
    differences: Sequence[tuple[Run, PairedDifference]]
    shares: Mapping[str, Mapping[str, float]]
    steps: Mapping[str, int]
    batch: int

    @property
    def parts(self) -> list[str]:
        """Of an episode's time."""
        return list(next(iter(self.shares.values())))


def section(
    bench: ThroughputBench,
    arena: Arena,
    ours: Sequence[Run],
    theirs: Sequence[Run],
    shares: Mapping[str, Mapping[str, float]],
    steps: Mapping[str, int],
) -> Section:
    """The section of one arena: each run, differences of success, and where the time goes by render profile."""
    fastest = max(theirs, key=lambda r: r.hourly)
    rows = [RunRow(one, Rate.of(list(one.successes.values())), ours[0].hourly / one.hourly) for one in (*ours, *theirs)]
    differences = [(one, between(one, fastest)) for one in ours]
    return Section(arena, rows, fastest, differences, shares, steps, profiled_batch(bench, arena))


def page_of(
    bench: ThroughputBench, figures: dict[str, Figure], sections: Sequence[Section], costs: Sequence[Cost]
) -> Page:
    """The page of the arenas that were played and the policies that were timed."""
    text = render("vlamem.sim.bench.throughput", "page.md.j2", bench=bench, sections=sections, costs=costs, warm=WARM)
    return Page("throughput", text, figures, bench.results)
