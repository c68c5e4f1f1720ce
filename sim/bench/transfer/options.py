"""What `vlamem bench transfer` may be told; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self


@dataclass(frozen=True)
class TransferBench:
    """Options of `vlamem bench transfer`."""

    preset: Literal["full", "smoke"]
    """smoke: a minute or two, one condition, a handful of trials, for checks alone; it replaces all sizes below."""
    policy: str
    """tiny (shipped) or a .safetensors file."""
    conditions: tuple[str, ...]
    """Jobs as TASK:SHIFT=STRENGTH; shifts are camera, actuator, table, friction, lighting."""
    trials: int
    """Consecutive trials of each arm, each in an initial state of its own."""
    states: int
    """Initial states of a job, at least one for each trial."""
    explore: int
    """Trials that are played to learn the residual prior."""
    controls: tuple[str, ...]
    """Conditions on which the control arms are played too."""
    control_arms: tuple[Literal["critic", "unverified", "elite"], ...]
    """A residual prior that the critic verifies, one whose verifier passes every trial, an elite prior."""
    leave_out: tuple[str, ...]
    """Conditions that are not played in this run, though the preparation of their task has seen them."""
    prepare_episodes: int
    """Episodes of the policy alone, from the training split, for threshold and critic of each task with a control."""
    prepare_offset: float
    """Standard deviation of an offset that is added to the translations of every second of these episodes, so that the
    critic is trained on what a residual prior will show it [action units]."""
    search_segments: tuple[int, ...]
    """Segments that are searched; none leaves it out."""
    timing_trials: int
    """Trials in which every decision is timed with and without the memory; 0 leaves it out."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""
    workers: int
    """Processes."""
    out: Path
    """Run folder; a stopped bench goes on."""
    results: Path
    """Folder of the page."""

    def sized(self) -> Self:
        """These options with the sizes of their preset; a smoke test has a folder of its own below `out`."""
        if self.preset == "full":
            return self
        folder, one = self.out / "smoke", "touch:actuator=0.25"
        return replace(
            self,
            conditions=(one,),
            controls=(one,),
            leave_out=(),
            trials=6,
            states=6,
            explore=3,
            prepare_episodes=8,
            search_segments=(20_000,),
            timing_trials=1,
            out=folder,
            results=folder if self.results == Path("docs/results") else self.results,  # a smoke test is no result
        )
