"""Success over consecutive trials, with bands."""

from pathlib import Path

import numpy as np

from vlamem.sim.bench.deployment.arms import CHANGING, MAIN, conditions_of
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.bench.deployment.outcomes import WINDOW, Trials, outcomes
from vlamem.sim.results.statistics import wilson95

COLOURS = {"policy": "tab:grey", "full": "tab:blue", "replay": "tab:orange"}


def curves(bench: DeploymentBench, trials: Trials, path: Path) -> Path:
    """One panel a condition: cumulative success of the main arms over all orders, with Wilson 95 % bands; and, where it
    was played, the rolling rate around a change of the shift."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    conditions = conditions_of(bench)
    one = conditions[bench.conditions.index(bench.ablation)]
    changes = {a.name: outcomes(trials, one, a.name, 0) for a in CHANGING}
    panels = len(conditions) + bool(changes["full_change"])
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.6 * columns, 3.1 * rows), squeeze=False, sharey=True, constrained_layout=True
    )
    axes = grid.ravel()
    for panel, condition in zip(axes, conditions, strict=False):
        for arm in MAIN:
            each = [outcomes(trials, condition, arm.name, o, bench.trials) for o in range(bench.orders)]
            length = min((len(e) for e in each), default=0)
            if not length:
                continue
            won = np.cumsum(np.sum([e[:length] for e in each], axis=0))
            n = len(each) * np.arange(1, length + 1)
            bands = np.array([wilson95(int(w), int(m)) for w, m in zip(won, n, strict=True)])
            at = np.arange(1, length + 1)
            panel.plot(at, 100 * won / n, color=COLOURS[arm.name], label=arm.title)
            panel.fill_between(at, *(100 * bands.T), color=COLOURS[arm.name], alpha=0.15, linewidth=0)
        panel.set(title=condition.name, xlabel="trial", ylim=(0, 100))
        panel.grid(alpha=0.3)
    for name, values in changes.items():
        if values:
            kernel = np.ones(WINDOW)
            weights = np.convolve(np.ones(len(values)), kernel)[: len(values)]
            rolling = 100 * np.convolve(values, kernel)[: len(values)] / weights
            panel = axes[len(conditions)]
            panel.plot(np.arange(1, len(values) + 1), rolling, color=COLOURS[name.partition("_")[0]])
            panel.axvline(len(values) // 2, color="black", linestyle="--", linewidth=1)
            panel.set(title=f"shift changes half-way (last {WINDOW})", xlabel="trial")
            panel.grid(alpha=0.3)
    for spare in axes[panels:]:
        spare.axis("off")
    grid[0, 0].set_ylabel("success so far, %")
    grid[0, 0].legend(loc="lower right", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
