"""The page of one long stream: recall along it, what the memory and the process hold."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlamem.memory.weights import digest, load_weights
from vlamem.policies.memories import SHIPPED_GATE
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.memory_panel.notes import GATE
from vlamem.sim.bench.patrol.options import PatrolBench
from vlamem.sim.bench.patrol.run import TITLES, Stream
from vlamem.sim.results.pages import Figure, write_result_page
from vlamem.sim.results.statistics import wilson95

SETTLED = 0.1
"""Share of the stream after which the process should hold no more: caches are filled and arenas grown."""
_WINDOW = 40
NOTED_STEPS = 50_000
"""Length of the stream that NOTES speaks of; of a shorter one it would say what was not seen."""
NOTES = """
State, process and recall stay as they are. They did not before |W| had a bound: a gate of an earlier training was
right 65, 46 and 40 % of the time in the thirds of 50,000 steps without one, and wrote on 0.7 % of ticks; with one 99,
100 and 99 % in those of 100,000, on 2.1 % of ticks. What hundreds of rounds left behind made W predict what it was
shown, nothing surprised any more, and the gate closed. Neither more streams in training nor longer chains of them
mended it (chains of 200 rounds instead of 30: 25 % right after 60,000 recorded ticks); the bound did, with the
parameters as they were. docs/aura.md has the figures.
"""

Counts = tuple[int, int]


def thirds(stream: Stream, steps: int) -> tuple[Counts, Counts, Counts]:
    """(right, asked) of the queries in each third of the stream."""
    found = []
    for third in range(3):
        inside = [right for step, right in stream.queries if third * steps < 3 * step <= (third + 1) * steps]
        found.append((sum(inside), len(inside)))
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


def _percent(counts: Counts) -> str:
    right, asked = counts
    if not asked:
        return ""
    low, high = wilson95(right, asked)
    return f"{100 * right / asked:.1f} ({100 * low:.0f} to {100 * high:.0f}), n {asked}"


def write_page(found: Mapping[str, Stream], bench: PatrolBench, command: str) -> tuple[Path, Path]:
    """Writes patrol.md and patrol.json with their plot."""
    from scipy import stats

    rows: list[str] = []
    figures: dict[str, Figure] = {}
    for arm, stream in found.items():
        first, middle, last = thirds(stream, bench.steps)
        whole = (sum(right for _, right in stream.queries), len(stream.queries))
        table = [[first[0], first[1] - first[0]], [last[0], last[1] - last[0]]]
        p = float(stats.fisher_exact(table).pvalue)
        slope, interval = growth(stream)
        writes = f"{100 * stream.writes / stream.ticks:.2f}" if stream.ticks else ""
        rows.append(
            f"| {TITLES[arm]} | {_percent(whole)} | {_percent(first)} | {_percent(middle)} | {_percent(last)} "
            f"| {p:.2g} | {stream.state_bytes or ''} | {writes} | {stream.resident[-1]:.0f} | "
            f"{slope:+.2f} ({interval[0]:+.2f} to {interval[1]:+.2f}) |"
        )
        mark = "" if arm == "aura" else f"_{arm}"
        if all(n for _, n in (first, last)):
            figures |= {
                f"recall{mark}": Figure.rate(*whole),
                f"recall_first_third{mark}": Figure.rate(*first),
                f"recall_last_third{mark}": Figure.rate(*last),
                f"first_against_last_p{mark}": Figure(p, first[1] + last[1]),
            }
        figures[f"memory_growth_mb{mark}"] = Figure(slope, len(stream.sampled), interval)
        if stream.ticks:
            figures[f"state_bytes{mark}"] = Figure(stream.state_bytes)
            figures[f"writes_per_tick{mark}"] = Figure(stream.writes / stream.ticks, stream.ticks)
    plot = _plot(found, bench)
    text = f"""# One stream of {bench.steps:,} steps without a reset

TinyVLA, frozen, on `patrol`: a lamp shows a colour now and then, often another one soon after; at each go signal the
block of the latest colour is to be touched, one of three. {bench.steps / 20 / 3600:.1f} hours of robot time at 20 Hz.
Share of queries answered right, in per cent with its Wilson 95 % interval, in the thirds of the stream; p is Fisher's
exact test of the first third against the last. Growth is of the process's resident memory in 100,000 steps, by least
squares after the first tenth.

| memory | all queries | first third | second | last | p | state, bytes | writes, % | process, MB | growth, MB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

![Recall and memory along the stream]({plot.name})
"""
    header, arrays = load_weights(SHIPPED_GATE if bench.gate == "shipped" else Path(bench.gate))
    if digest(arrays) == GATE and bench.steps >= NOTED_STEPS:
        text += NOTES
    marks = {"weights": find_policy(bench.policy).sha256, "gate": header.command, "seed": bench.seed}
    return write_result_page("patrol", command, figures, text, bench.results, marks)


def _plot(found: Mapping[str, Stream], bench: PatrolBench) -> Path:
    """Recall over a moving window of queries, and resident memory, along the stream."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, constrained_layout=True)
    for arm, stream in found.items():
        right = np.array([right for _, right in stream.queries], float)
        window = min(_WINDOW, max(1, len(right) // 4))
        if len(right):
            recall = np.convolve(right, np.ones(window) / window, "valid")
            at = [step for step, _ in stream.queries][window - 1 :]
            above.plot(at, 100 * recall, label=TITLES[arm])
        below.plot(stream.sampled, stream.resident, label=TITLES[arm])
    above.axhline(100 / 3, color="black", linestyle=":", linewidth=1)
    above.set(ylabel=f"right of the last {_WINDOW} queries, %", ylim=(0, 102))
    most = max(max(stream.resident) for stream in found.values())
    below.set(xlabel="control step", ylabel="process, MB", ylim=(0, 1.2 * most))
    for axes in (above, below):
        axes.grid(alpha=0.3)
    above.legend(loc="center right")
    path = bench.results / "patrol_stream.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
