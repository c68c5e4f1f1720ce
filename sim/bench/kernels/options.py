"""Options of `vlamem bench kernels`, and the sizes of its presets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        batches: rows at which the step is measured.
        seconds: of measurement for each entry, after warm-up.
        scan_ticks, scan_rows: shapes of the training scan; the figures are those of the first number of rows.
    """

    batches: tuple[int, ...]
    seconds: float
    scan_ticks: int
    scan_rows: tuple[int, ...]


SIZES = {
    "smoke": Sizes((1,), 0.02, 16, (2,)),
    "quick": Sizes((1, 64), 0.5, 256, (16,)),
    "full": Sizes((1, 64, 1024, 16384), 1.0, 256, (64, 256)),
}


@dataclass(frozen=True)
class KernelsBench:
    """Options of `vlamem bench kernels`."""

    preset: Literal["smoke", "quick", "full"]
    """smoke: does it run. quick: batches 1 and 64, a minute. full: batches 1, 64, 1,024 and 16,384."""
    out: Path
    """Folder of a smoke or quick run's page."""
    results: Path
    """Folder of a full run's page."""

    @property
    def sizes(self) -> Sizes:
        """Those of the preset."""
        return SIZES[self.preset]

    @property
    def folder(self) -> Path:
        """Of the page: only a full run is a result."""
        return self.results if self.preset == "full" else self.out
