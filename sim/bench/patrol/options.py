"""Options of `vlamem bench patrol`."""

from dataclasses import dataclass
from pathlib import Path

ARMS = {"alone": "none", "aura": "aura", "oracle": "oracle"}
"""Arms and what they are in `--memory`."""


@dataclass(frozen=True)
class PatrolBench:
    """Options of `vlamem bench patrol`."""

    steps: int
    """Length of the stream [control steps], 200 to 100,000."""
    arms: tuple[str, ...]
    """alone, aura, oracle."""
    policy: str
    """tiny (shipped) or a .safetensors file."""
    gate: str
    """shipped, or a weights file of 'vlamem train-gate'."""
    episode: int
    """Which stream."""
    seed: int
    """Seed of the policy's noise."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    workers: int
    """Arms that are played side by side."""
    out: Path
    """Folder of finished arms; a stopped bench plays the arms that are missing."""
    results: Path
    """Folder of the page."""

    def __post_init__(self) -> None:
        if not 200 <= self.steps <= 100_000:
            raise ValueError(f"steps is {self.steps}: expected 200 to 100000")
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown or not self.arms:
            raise ValueError(f"arms are {list(self.arms)}: choose from {', '.join(ARMS)}")
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}: expected 1 or more")
