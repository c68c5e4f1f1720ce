"""Plots of a success memory: calibration, trajectories, keys."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from vlamem.memory.success.memory import SuccessMemory
    from vlamem.memory.success.retrieve.calibration import Calibration


def plot_calibration(found: "Calibration", path: Path) -> Path:
    """Distributions of similarity over pairs of states that call for the same actions and over pairs that do not."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    edges = np.asarray(found.edges)
    figure, axes = plt.subplots(figsize=(7, 3.6), constrained_layout=True)
    for counts, label in ((found.alike_counts, "same actions"), (found.unlike_counts, "other actions")):
        share = np.asarray(counts) / max(1, sum(counts))
        axes.stairs(share, edges, fill=True, alpha=0.5, label=f"{label}, {sum(counts)} pairs")
    axes.axvline(found.threshold, color="black", linestyle="--", label=f"threshold {found.threshold:.4f}")
    axes.set(xlabel="similarity of two states", ylabel="share of pairs", title="Calibration of the success memory")
    axes.legend(frameon=False)
    return _saved(figure, path)


def plot_memory(memory: "SuccessMemory", path: Path, episodes: int) -> Path:
    """Trajectories in the first two entries of the proprioception, and keys on their first two principal axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    stored = list(memory.store.segments(memory.origin))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    newest = sorted({s.episode for s in stored})[-episodes:]
    for episode in newest:
        of = [s for s in stored if s.episode == episode]
        places = np.stack([s.segment.proprioception[:2] for s in of])
        colour = "tab:green" if of[0].outcome == "success" else "tab:red"
        left.plot(places[:, 0], places[:, 1], ".-", color=colour, alpha=0.5, linewidth=1)
    left.set(title=f"Trajectories of {len(newest)} episodes", xlabel="proprioception 0", ylabel="proprioception 1")
    if stored:
        flat = principal(np.stack([s.segment.key for s in stored]))
        progress = np.array([s.segment.progress for s in stored])
        good = np.array([s.outcome == "success" for s in stored])
        dots = right.scatter(flat[good, 0], flat[good, 1], c=progress[good], s=12, vmin=0, vmax=1, label="success")
        right.scatter(flat[~good, 0], flat[~good, 1], color="tab:red", marker="x", s=16, label="failure")
        figure.colorbar(dots, ax=right, label="progress")
        right.legend(frameon=False)
    right.set(title=f"Keys of {len(stored)} segments", xlabel="first principal axis", ylabel="second")
    return _saved(figure, path)


def principal(keys: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N 2"]:
    """Keys on the two axes along which they differ most; zeros where there are fewer."""
    centred = keys - keys.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def _saved(figure: "object", path: Path) -> Path:
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
