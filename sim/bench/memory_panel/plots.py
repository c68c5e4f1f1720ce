"""Plots of the memory panel, and a strip of frames of one episode with and without memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.sim.bench.memory_panel.played import Played
from vlamem.sim.results.episodes import EpisodeLog
from vlamem.sim.results.statistics import wilson95

_FRAMES = 8
_AXES = {
    "delay": "delay, as a multiple of that in training",
    "chunk": "actions of a chunk that are executed",
    "noise": "camera noise, standard deviation of 255",
}


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def bars(played: Mapping[str, Played], memory: Sequence[str], chance: Mapping[str, float], path: Path) -> Path:
    """Mean success over the memory tasks of every arm with the pooled Wilson interval; the dotted line is chance."""
    plt = _pyplot()
    arms = [p for p in played.values() if not p.arm.axis]
    rates = np.array([p.rate(memory) for p in arms])
    ends = np.array([wilson95(*p.counts(memory)) for p in arms])
    spread = np.abs(np.stack([rates - ends[:, 0], ends[:, 1] - rates]))
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(arms) + 1.2), constrained_layout=True)
    colours = ["tab:red" if p.arm.name == "aura" else "tab:grey" if p.arm.name == "alone" else "tab:blue" for p in arms]
    axes.barh(range(len(arms)), 100 * rates, xerr=100 * spread, color=colours, height=0.65, capsize=2)
    axes.set_yticks(range(len(arms)), [p.arm.title for p in arms])
    axes.axvline(100 * float(np.mean(list(chance.values()))), color="black", linestyle=":", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlabel="success, % (mean over memory tasks)", xlim=(0, 100))
    axes.grid(alpha=0.3, axis="x")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def lines(played: Mapping[str, Played], memory: Sequence[str], execute: int, path: Path) -> Path:
    """Success along each axis that was played, for each memory, from the point that the panel has itself on.

    Bars are pooled Wilson intervals.
    """
    plt = _pyplot()
    names = sorted({p.arm.axis for p in played.values() if p.arm.axis})
    starts = {"delay": 1.0, "chunk": float(execute), "noise": 0.0}
    figure, grid = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.5), constrained_layout=True, squeeze=False)
    for axis, axes in zip(names, grid[0], strict=True):
        points = [p for p in played.values() if p.arm.axis == axis]
        for base in sorted({p.arm.base for p in points}):
            mine = {p.arm.value: p for p in points if p.arm.base == base}
            tasks = [t for t in memory if t in next(iter(mine.values())).tasks]
            if base in played:
                mine[starts[axis]] = played[base]
            at = sorted(mine)
            rates = np.array([mine[x].rate(tasks) for x in at])
            ends = np.array([wilson95(*mine[x].counts(tasks)) for x in at])
            spread = 100 * np.abs(np.stack([rates - ends[:, 0], ends[:, 1] - rates]))
            label = played[base].arm.title if base in played else base
            axes.errorbar(at, 100 * rates, yerr=spread, fmt="o-", capsize=2, label=label)
        axes.set_xticks(sorted({p.arm.value for p in points} | {starts[axis]}))
        axes.set(xlabel=_AXES[axis], ylabel="success, %", ylim=(0, 102))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def strip(without: Path, with_memory: Path, memory: Sequence[str], path: Path) -> Path | None:
    """Frames at equal times of one episode, without memory above and with it below; None when none was filmed.

    The episode is the first filmed one in which only the policy with memory succeeds, else the first filmed one.
    """
    outcomes = [
        {(r.task, r.episode): r.outcome for r in EpisodeLog(folder / "episodes.jsonl").read()}
        for folder in (without, with_memory)
    ]
    filmed = [(t, 0) for t in memory if all((f / "videos" / f"{t}-0000.mp4").exists() for f in (without, with_memory))]
    if not filmed:
        return None
    telling = [e for e in filmed if outcomes[0].get(e) == "failure" and outcomes[1].get(e) == "success"]
    task, episode = (telling or filmed)[0]
    rows = [_spread(f / "videos" / f"{task}-{episode:04d}.mp4") for f in (without, with_memory)]
    plt = _pyplot()
    plt.imsave(path, np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0))
    return path


def _spread(path: Path) -> list[np.ndarray]:
    """Frames at equal times, the agentview half of each, every second pixel; a written one near each is preferred."""
    import av

    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    red = np.array([f[2, 2, 0] > 180 and f[2, 2, 1] < 90 for f in frames])
    chosen, half = [], max(1, len(frames) // (2 * _FRAMES))
    for at in np.linspace(0, len(frames) - 1, _FRAMES):
        near = np.arange(max(0, int(at) - half), min(len(frames), int(at) + half + 1))
        chosen.append(int(near[np.argmax(red[near])]) if red[near].any() else int(at))
    return [frames[i][::2, : frames[i].shape[1] // 2 : 2] for i in chosen]
