"""What `vlamem bench demonstrations` may be told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemonstrationsBench:
    """Options of `vlamem bench demonstrations`."""

    policy: str
    """Frozen policy that the gate was fitted to."""
    gate: Path
    """Weights file of 'vlamem fit'."""
    tasks: tuple[str, ...]
    """Memory tasks, and skills as a control that nothing is harmed."""
    arms: tuple[str, ...]
    """Names of arms; all when none is given."""
    episodes: int
    """Episodes a task of the main arms: fitted, alone, oracle."""
    fewer: int
    """Episodes a task of the other arms."""
    out: Path
    """Run folders of the arms; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    workers: int
    """Processes; 0 plays in this one."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""
    order: int
    """Order of initial states: 0 goes through the first ones as they are numbered, each other number draws from the
    first 1,000 in an order of its own."""
    engine: str | None = None
    """What plays the episodes, as in 'vlamem rollout': processes, inline, or ray for a cluster."""
