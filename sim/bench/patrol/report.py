"""Figures and page of one long stream: recall along it, what the memory and the process hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.memory.weights import digest, load_weights
from vlamem.policies.memories import SHIPPED_GATE
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.noted import NOTED_GATE
from vlamem.sim.bench.patrol.options import PatrolBench
from vlamem.sim.bench.patrol.plots import along_the_stream
from vlamem.sim.bench.patrol.stream import TITLES, Stream
from vlamem.sim.bench.rate import Rate
from vlamem.sim.results.pages import Figure

SETTLED = 0.1
"""Share of the stream after which the process should hold no more: caches are filled and arenas grown."""
NOTED_STEPS = 50_000
"""Length of the stream that the notes are about; with a shorter one they would report what was not seen."""


def thirds(stream: Stream, steps: int) -> tuple[Rate, Rate, Rate]:
    """Right answers in each third of the stream."""
    found = []
    for third in range(3):
        inside = [right for step, right in stream.queries if third * steps < 3 * step <= (third + 1) * steps]
        found.append(Rate.of(inside))
    return found[0], found[1], found[2]


def growth(stream: Stream) -> tuple[float, tuple[float, float]]:
    """Growth of resident memory over 100,000 steps by least squares after it settled [MB], with its 95 % interval."""
    from scipy import stats

    at, mb = np.array(stream.sampled, float), np.array(stream.resident)
    kept = at > SETTLED * at.max()
    if np.ptp(mb[kept]) == 0:  # nothing grew, and a correlation has no meaning
        return 0.0, (0.0, 0.0)
    line = stats.linregress(at[kept], mb[kept])
    half = float(stats.t.ppf(0.975, int(kept.sum()) - 2) * line.stderr)
    return 1e5 * float(line.slope), (1e5 * (float(line.slope) - half), 1e5 * (float(line.slope) + half))


@dataclass(frozen=True)
class ArmRow:
    """One arm along the stream.

    Attributes:
        title: in tables.
        stream: what it did.
        whole, thirds: answers in all of it and in its parts.
        p: of Fisher's exact test of the first third against the last.
        growth, interval: of resident memory in 100,000 steps [MB].
    """

    title: str
    stream: Stream
    whole: Rate
    thirds: tuple[Rate, Rate, Rate]
    p: float
    growth: float
    interval: tuple[float, float]


def row_of(arm: str, stream: Stream, steps: int) -> ArmRow:
    """What the page says of one arm."""
    from scipy import stats

    parts = thirds(stream, steps)
    first, _, last = parts
    table = [[third.successes, third.n - third.successes] for third in (first, last)]
    slope, interval = growth(stream)
    whole = Rate.of([right for _, right in stream.queries])
    return ArmRow(TITLES[arm], stream, whole, parts, float(stats.fisher_exact(table).pvalue), slope, interval)


def figures_of(rows: Mapping[str, ArmRow]) -> dict[str, Figure]:
    """What the arms say, as numbers; those of AURA-Mem have no mark in their names."""
    figures: dict[str, Figure] = {}
    for arm, row in rows.items():
        mark, stream = "" if arm == "aura" else f"_{arm}", row.stream
        first, _, last = row.thirds
        if first.n and last.n:
            figures |= {
                f"recall{mark}": Figure.rate(row.whole.successes, row.whole.n),
                f"recall_first_third{mark}": Figure.rate(first.successes, first.n),
                f"recall_last_third{mark}": Figure.rate(last.successes, last.n),
                f"first_against_last_p{mark}": Figure(row.p, first.n + last.n),
            }
        figures[f"memory_growth_mb{mark}"] = Figure(row.growth, len(stream.sampled), row.interval)
        if stream.ticks:
            figures[f"state_bytes{mark}"] = Figure(stream.state_bytes)
            figures[f"writes_per_tick{mark}"] = Figure(stream.writes / stream.ticks, stream.ticks)
    return figures


def page_of(found: Mapping[str, Stream], bench: PatrolBench) -> Page:
    """The page of every arm, with its plot."""
    rows = {arm: row_of(arm, stream, bench.steps) for arm, stream in found.items()}
    plot = along_the_stream(found, bench.results / "patrol_stream.png")
    header, arrays = load_weights(SHIPPED_GATE if bench.gate == "shipped" else Path(bench.gate))
    noted = digest(arrays) == NOTED_GATE and bench.steps >= NOTED_STEPS
    text = render(
        "vlamem.sim.bench.patrol", "page.md.j2", steps=bench.steps, rows=rows.values(), plot=plot.name, notes=noted
    )
    given = {"weights": find_policy(bench.policy).sha256, "gate": header.command, "seed": bench.seed}
    return Page("patrol", text, figures_of(rows), bench.results, given)
