"""Options of `vlamem bench memory-panel`; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self


@dataclass(frozen=True)
class PanelOptions:
    """Options of `vlamem bench memory-panel`."""

    preset: Literal["full", "smoke"]
    """smoke: every arm, and AURA-Mem on every axis, for one episode, in a minute or two, for checks alone; it replaces
    sizes and tasks, and records the features of two episodes where none are given."""
    policy: str
    """tiny (shipped) or a .safetensors file."""
    gate: str
    """shipped, or a weights file of 'vlamem train-gate'."""
    features: tuple[Path, ...]
    """Recordings to train the controls on; without any, controls that are trained are left out."""
    tasks: tuple[str, ...]
    """Memory tasks, and skills as a control that nothing is harmed."""
    arms: tuple[str, ...]
    """Names of arms; all when none is given."""
    episodes: int
    """Episodes a task of the main arms: alone, aura, oracle, always."""
    fewer: int
    """Episodes a task of the other arms."""
    extra: tuple[str, ...]
    """Axes: delay, chunk, noise."""
    axis_baselines: tuple[str, ...]
    """Arms that are played on the axes beside AURA-Mem; of one axis alone as ARM:AXIS, e.g. oracle:chunk."""
    updates: int
    """Training updates of each control."""
    ticks: int
    """Ticks of a training row of theirs."""
    rows: int
    """Rows of a training batch."""
    weight: tuple[str, ...]
    """How often single tasks are drawn in their training, as in that of the gate, e.g. count_press=6."""
    control_rate: float | None
    """Writes per tick of the controls random and periodic; those of the gate on held-out features when not given."""
    out: Path
    """Run folders of the arms; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    page: str
    """Name of the page, for arms and axes that are played beside those of another page."""
    add_to: str | None
    """Page in the same folder, of the same policy, gate and seed, that gets the figures which it lacks."""
    workers: int
    """Processes; 0 plays in this one."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""
    engine: str | None = None
    """What plays the episodes, as in 'vlamem rollout': processes, inline, or ray for a cluster."""

    def sized(self) -> Self:
        """These options with the sizes of their preset; a smoke test has a folder of its own below `out`."""
        if self.preset == "full":
            return self
        folder = self.out / "smoke"
        return replace(
            self,
            tasks=("recall_colour", "touch"),
            axis_baselines=(),
            episodes=1,
            fewer=1,
            features=self.features or (folder / "features",),
            updates=2,
            ticks=64,
            rows=2,
            workers=0,
            out=folder,
            results=folder if self.results == Path("docs/results") else self.results,  # a smoke test is no result
        )
