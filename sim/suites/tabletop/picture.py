"""Draws the suite's picture: `python -m vlamem.sim.suites.tabletop.picture docs/suite.png`."""

import sys
from pathlib import Path

import numpy as np

from vlamem.sim.suites.tabletop import SUITE

_SHOWN = (
    ("touch", 0, 12),
    ("push", 3, 26),
    ("place_bowl", 2, 30),
    ("place_pad", 1, 34),
    ("recall_colour", 2, 10),
    ("shell_game", 1, 14),
    ("count_press", 0, 90),
    ("put_back", 3, 40),
)
"""Task, episode and tick of each panel."""
_SIZE = 256


def main(path: Path) -> None:
    """Writes a panel of eight tasks, the agentview camera drawn faithfully, each with its sentence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(12, 6.6), layout="constrained")
    for axis, (task, episode, tick) in zip(axes.ravel(), _SHOWN, strict=True):
        env = SUITE.make(task, image_size=_SIZE, render="faithful")
        env.render_on_step = False
        env.reset(options={"episode": episode})
        for _ in range(tick):
            env.step(np.asarray(env.expert_action()))
        axis.imshow(env.observe()["agentview"])
        axis.set_title(f"{task}\n“{env.instruction}”", fontsize=8, wrap=True)
        axis.axis("off")
        env.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, bbox_inches="tight")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
