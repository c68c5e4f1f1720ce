"""What `vlamem bench memory-panel` may be told; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self


@dataclass(frozen=True)
class PanelOptions:
    """Options of `vlamem bench memory-panel`."""

    preset: Literal["full", "smoke"]
    """smoke: two tasks, three arms and two episodes of each, about a minute, to show that everything runs."""
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
    """Episodes a task of the main arms: alone, aura, always."""
    fewer: int
    """Episodes a task of the other arms."""
    extra: tuple[str, ...]
    """Axes: delay, chunk, noise."""
    axis_baselines: tuple[str, ...]
    """Arms that are played on the axes beside AURA-Mem."""
    updates: int
    """Training updates of each control."""
    control_rate: float | None
    """Writes per tick of the controls random and periodic; those of the gate on held-out features when not given."""
    out: Path
    """Run folders of the arms; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    workers: int
    """Processes."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""

    def sized(self) -> Self:
        """These options with the sizes of their preset."""
        if self.preset == "full":
            return self
        return replace(
            self, tasks=("recall_colour", "touch"), arms=("alone", "aura", "oracle"), episodes=2, fewer=2, extra=()
        )
