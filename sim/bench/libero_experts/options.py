"""Options of `vlamem bench libero-experts`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LiberoExpertsBench:
    """Options of `vlamem bench libero-experts`."""

    suites: tuple[str, ...]
    """LIBERO suites."""
    episodes: int
    """Initial states of each task, from the first on."""
    out: Path
    """Run folders of the suites; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    workers: int
    """Processes."""
    engine: str | None = None
    """What plays the episodes, as in 'vlamem rollout': processes, inline, or ray for a cluster."""
