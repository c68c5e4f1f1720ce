"""Options of `vlamem bench taps`; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self


@dataclass(frozen=True)
class TapsBench:
    """Options of `vlamem bench taps`."""

    preset: Literal["full", "smoke"]
    """smoke: one cue, a few episodes, the default tap alone, for checks alone; it replaces poolings, tasks, cues,
    episodes and stride."""
    policies: tuple[str, ...]
    """tiny, a .safetensors file, a checkpoint of lerobot or package.module:FACTORY; a checkpoint has taps to choose
    from, the others have one."""
    poolings: tuple[str, ...]
    """Poolings of each tap: mean, max, grid2, grid4. Where a tap's tokens are no square, a grid is left out."""
    tasks: tuple[str, ...]
    """Memory tasks of the tabletop suite; each goes with the cue at its place."""
    cues: tuple[str, ...]
    """What must be remembered in each task: lamp_colour, pea_place, block_on_pad or touched_colour."""
    episodes: int
    """Initial states of each task, at least 5."""
    stride: int
    """Every so many control steps a frame."""
    results: Path
    """Folder of the page."""

    def __post_init__(self) -> None:
        if len(self.tasks) != len(self.cues) or not self.tasks:
            raise ValueError(f"tasks {list(self.tasks)} and cues {list(self.cues)}: expected one cue for each task")
        if not self.policies or not self.poolings:
            raise ValueError("policies and poolings: expected one of each at least")

    def sized(self) -> Self:
        """These options with the sizes of their preset."""
        if self.preset == "full":
            return self
        return replace(
            self, poolings=self.poolings[:1], tasks=self.tasks[:1], cues=self.cues[:1], episodes=5, stride=10
        )
