"""Bytes written along the stream."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LABELS = {"aura": "AURA", "always": "always", "kv": "KV log"}


def written_over_ticks(arms: Sequence[dict[str, Any]], path: Path) -> None:
    """A line an arm: megabytes sent to the device over ticks."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(6.4, 4), layout="constrained")
    axes = canvas.subplots()
    for arm in arms:
        ticks = [arm["every"] * i for i in range(len(arm["curve"]))]
        axes.plot(ticks, np.array(arm["curve"]) / 1e6, label=LABELS[arm["arm"]])
    axes.set(xlabel="ticks", ylabel="MB sent to the device")
    axes.legend()
    canvas.savefig(path, dpi=120)
