"""Options of `vlamem bench endurance`, and the sizes of its presets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TICKS = {"smoke": 100, "quick": 1_000, "full": 100_000}
"""Of each arm."""
KILLS = {"smoke": 1, "quick": 3, "full": 50}
"""How often a writing process is killed to see what it leaves."""


@dataclass(frozen=True)
class EnduranceBench:
    """Options of `vlamem bench endurance`."""

    preset: Literal["smoke", "quick", "full"]
    """smoke: 100 ticks. quick: 1,000, a minute. full: 100,000, as long as the disk takes for 210,000 synced writes."""
    weights: Path | None
    """Trained gate; the one that ships with vlamem when not given."""
    folder: Path
    """Where the arms write: the file system under test."""
    results: Path
    """Folder of the page; only a full run may write docs/results."""

    @property
    def ticks(self) -> int:
        """Ticks of each arm."""
        return TICKS[self.preset]

    @property
    def kills(self) -> int:
        """How often a writing process is killed."""
        return KILLS[self.preset]

    @property
    def page_folder(self) -> Path:
        """Of the page: only a full run is a result."""
        return self.results if self.preset == "full" else self.folder / self.preset
