"""Options of `vlamem bench synthetic`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class SyntheticBench:
    """Options of `vlamem bench synthetic`."""

    preset: Literal["quick", "full", "smoke"]
    """quick: one family, main arms, 2 seeds, 15 minutes on 2 cores. full: all arms, 5 seeds. smoke: does it run."""
    out: Path
    """Folder of finished arms, one below it for each preset; a stopped bench goes on."""
    only_page: bool
    """Write the page from the arms that are finished; train nothing."""
    results: Path
    """Folder of the page; only a full run may write docs/results, the others write theirs into their own folder."""
