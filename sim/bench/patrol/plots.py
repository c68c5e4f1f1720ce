"""Recall and resident memory along the stream."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlamem.sim.bench.patrol.stream import TITLES, Stream

_WINDOW = 40
"""Queries of the moving window."""


def along_the_stream(found: Mapping[str, Stream], path: Path) -> Path:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
