"""The curves of a training: what was noted on the way, as JSON and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

from vlamem.memory.train.checkpoint import History


def write_curves(out: Path, history: History, left: Sequence[str], right: Sequence[str], label: str) -> None:
    """out/curves.json, and out/curves.png where matplotlib is installed.

    `history` has an entry a look, each with its "update"; `left` and `right` name what is drawn in the two halves of
    the picture, which begin at 0: figures in the unit `label`, and shares. An entry may lack a name, and a name that no
    entry has is not drawn. Raises ValueError for a figure that is not finite.
    """
    (out / "curves.json").write_text(json.dumps(history, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    try:
        import matplotlib
    except ModuleNotFoundError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 3.5), constrained_layout=True)
    for axes, names in zip(both, (left, right), strict=True):
        for name in names:
            looks = [h for h in history if name in h]
            if looks:
                axes.plot([h["update"] for h in looks], [h[name] for h in looks], label=name.replace("_", " "))
        axes.set(xlabel="update")
        if axes.lines:
            axes.legend()
        axes.grid(alpha=0.3)
    both[0].set(ylabel=label, ylim=(0, None))
    both[1].set(ylim=(0, 1.02))
    figure.savefig(out / "curves.png", dpi=100)
    plt.close(figure)
