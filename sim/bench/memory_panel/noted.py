"""Which notes go with which panel."""

from collections.abc import Iterable
from typing import NamedTuple

from vlamem.sim.bench.memory_panel.options import PanelOptions
from vlamem.sim.bench.noted import NOTED_GATE


class Noted(NamedTuple):
    """The panel that some notes are about; with another they would report what was not seen.

    Attributes:
        arms: that were played, with others or without.
        tasks: as they were asked for.
        episodes: a task of the main arms, at least.
        file: the notes, in this folder.
    """

    arms: frozenset[str]
    tasks: tuple[str, ...]
    episodes: int
    file: str


_MAIN = "alone aura oracle always random periodic gru kv_window kv_growing first"
_BESIDE = "aura always gru freeze noise other chunk both proposal blend replan gru-delay20 gru-chunk16 gru-noise16"
NOTED = (
    Noted(frozenset(_MAIN.split()), ("memory", "skills"), 100, "notes.md"),
    Noted(frozenset(_BESIDE.split()), ("memory", "skills"), 100, "notes_axes.md"),
)


def notes_of(options: PanelOptions, gate: str, played: Iterable[str]) -> str | None:
    """The notes of a panel whose gate has the digest `gate` and whose arms were played; None where there are none."""
    if (gate, options.policy, options.preset, options.seed) != (NOTED_GATE, "tiny", "full", 0):
        return None
    fits = [n for n in NOTED if n.tasks == options.tasks and options.episodes >= n.episodes]
    return next((n.file for n in fits if n.arms <= set(played)), None)
