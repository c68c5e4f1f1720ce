"""Options of `vlamem bench faults`, and the sizes of its presets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        kills: of each verb that simulates, and a fifth of those of each other.
        flips: bits changed in each kind of file, one at a time.
        fuzzed: messages and files, changed at random places, to each reader.
        malformed: messages to a server that runs.
        stalls: of a controller; half of them with the operator's stop.
        longest_stall_s: the shortest are of 0.1 s.
        frames: of the robot beside a loud neighbour, and of the robot alone.
        labels, segments: that a server is started with.
    """

    kills: int
    flips: int
    fuzzed: int
    malformed: int
    stalls: int
    longest_stall_s: float
    frames: int
    labels: int
    segments: int


SIZES = {
    "ci": Sizes(1, 20, 150, 0, 3, 0.3, 0, 500, 200),
    "small": Sizes(1, 60, 1_000, 0, 16, 2.0, 0, 20_000, 2_000),
    "quick": Sizes(2, 150, 4_000, 200, 16, 2.0, 40, 300_000, 20_000),
    "full": Sizes(70, 10_000, 100_000, 10_000, 200, 30.0, 600, 300_000, 100_000),
}


@dataclass(frozen=True)
class FaultsOptions:
    """Options of `vlamem bench faults`."""

    preset: Literal["ci", "small", "quick", "full"]
    """How much of everything."""
    verbs: tuple[str, ...]
    """That are killed: import, prune, rollout, collect, fit, serve, control."""
    seed: int
    """Of every draw."""
    folder: Path
    """For what the verbs write."""
    results: Path
    """Folder of the page; 'ci' writes it into --folder instead."""

    @property
    def page_folder(self) -> Path:
        """Of the page: a run of a minute is no result."""
        return self.folder if self.preset == "ci" else self.results

    @property
    def sizes(self) -> Sizes:
        """Of the preset."""
        return SIZES[self.preset]
