"""Plots of the synthetic benchmark: accuracy against writes, and the gate over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.sim.bench.synthetic.arms import BY_NAME, HARD
from vlamem.sim.bench.synthetic.report import Found, accuracy, of, writes
from vlamem.sim.suites.synthetic import Kind

COLOURS = {Kind.EVENT: "tab:green", Kind.LOOKALIKE: "tab:red", Kind.REPEAT: "tab:blue"}
WORDS = {Kind.EVENT: "event", Kind.LOOKALIKE: "look-alike", Kind.REPEAT: "repeat"}


def accuracy_against_writes(found: Found, path: Path) -> Path:
    """Every arm of the hard setting: writes per tick (logarithmic) against accuracy, one small dot a seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9.5, 5), constrained_layout=True)
    arms = sorted(of(found, HARD).items(), key=lambda arm: -float(np.mean(accuracy(arm[1]))))
    for place, (name, seeds) in enumerate(arms):
        x, y = np.maximum(writes(seeds), 3e-3), 100 * np.asarray(accuracy(seeds))
        shape, colour = "o" if name in ("learned", "counterfactual") else "sD^v"[place % 4], f"C{place % 10}"
        title = f"{BY_NAME[name].title} ({y.mean():.1f} %)"
        axes.plot(x.mean(), y.mean(), shape, color=colour, markersize=9, alpha=0.8, label=title, linestyle="none")
        axes.plot(x, y, ".", color=colour, markersize=4)
    # most baselines write at every tick: names beside the marks would lie on one another
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    axes.axhline(12.5, color="grey", linestyle=":", linewidth=1)
    axes.text(3.2e-3, 13.3, "chance", color="grey", fontsize=8)
    axes.set(xscale="log", xlabel="writes per tick", ylabel="accuracy, %", title=f"Accuracy against writes, {HARD}")
    axes.set_xlim(2.5e-3, 2.5)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def gate_over_time(trace: Mapping[str, Any], path: Path) -> Path:
    """The gate's p over the first ticks of one stream; events, look-alikes and repeats are marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    gate, kind = np.asarray(trace["gate"]), np.asarray(trace["kind"])
    figure, axes = plt.subplots(figsize=(11, 3.2), constrained_layout=True)
    axes.vlines(np.arange(len(gate)), 0, gate, color="black", linewidth=1.2)
    axes.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    for place, which in enumerate((Kind.EVENT, Kind.REPEAT, Kind.LOOKALIKE)):
        at = np.flatnonzero(kind == which)
        axes.plot(
            at, np.full(len(at), 1.08 + 0.07 * place), "|", color=COLOURS[which], markersize=9, label=WORDS[which]
        )
    axes.set(xlabel="tick", ylabel="gate p", ylim=(0, 1.32), xlim=(-1, len(gate)), title=f"The learned gate, {HARD}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.8), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
