"""Options of `vlamem bench mikasa`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MikasaBench:
    """Options of `vlamem bench mikasa`."""

    tasks: tuple[str, ...]
    """Tasks that each of the actors plays that can; 'all' for those with an expert."""
    actors: tuple[str, ...]
    """Of expert, guess, touch-cue, touch-all."""
    episodes: int
    """The benchmark's initial states of each task, from the first on; it has 50."""
    out: Path
    """Run folders, one an actor and task; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
