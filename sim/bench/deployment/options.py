"""Options of `vlamem bench deployment`; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self


@dataclass(frozen=True)
class DeploymentBench:
    """Options of `vlamem bench deployment`."""

    preset: Literal["full", "smoke"]
    """smoke: a minute, one condition, a handful of trials, for checks alone; it replaces all sizes below."""
    policy: str
    """tiny (shipped) or a .safetensors file."""
    conditions: tuple[str, ...]
    """Jobs as TASK:SHIFT=STRENGTH; shifts are camera, actuator, table, friction, lighting."""
    trials: int
    """Consecutive trials of the main arms."""
    orders: int
    """Orders of initial states."""
    long_trials: int
    """Trials of the main arms on the ablation condition in the first order."""
    ablation_trials: int
    """Trials of each ablation; 0 leaves them out."""
    ablation: str
    """Condition of the ablations."""
    capacities: tuple[int, ...]
    """Capacities of the memory that are compared with an unlimited one [segments]."""
    states: int
    """Initial states of a job; trials go through them again and again."""
    prepare_episodes: int
    """Episodes of the policy alone, from the training split, for threshold and critic of each task."""
    prepare_offset: float
    """Standard deviation of an offset that is added to the translations of every second of these episodes, so that the
    critic is trained on what a residual prior will show it [action units]."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""
    workers: int
    """Processes."""
    search_segments: int
    """Segments that are searched."""
    commits: int
    """Episodes that are stored for timing."""
    kills: int
    """How often a writing process is killed."""
    timing_trials: int
    """Trials in which every decision is timed both ways."""
    out: Path
    """Run folder; a stopped bench goes on."""
    results: Path
    """Folder of the page."""

    def sized(self) -> Self:
        """These options with the sizes of their preset; a smoke test has a folder of its own below `out`."""
        if self.preset == "full":
            return self
        folder = self.out / "smoke"
        one = "touch:actuator=0.25"
        return replace(
            self,
            conditions=(one,),
            trials=6,
            orders=1,
            long_trials=0,
            ablation_trials=0,
            ablation=one,
            states=2,
            prepare_episodes=8,
            search_segments=20_000,
            commits=5,
            kills=2,
            timing_trials=1,
            out=folder,
            results=folder if self.results == Path("docs/results") else self.results,  # a smoke test is no result
        )


class TrialsBench(Protocol):
    """What another bench says of the trials that it plays as a deployment; see DeploymentBench."""

    @property
    def policy(self) -> str:
        """A policy's name."""
        ...

    @property
    def trials(self) -> int:
        """Consecutive trials of an arm."""
        ...

    @property
    def execute(self) -> int:
        """Actions of each chunk carried out."""
        ...

    @property
    def seed(self) -> int:
        """Of the policy's noise."""
        ...

    @property
    def workers(self) -> int:
        """Processes."""
        ...

    @property
    def results(self) -> Path:
        """Folder of the page."""
        ...


def trials_alone(
    bench: TrialsBench, conditions: tuple[str, ...], states: int, prepare: tuple[int, float], out: Path
) -> DeploymentBench:
    """The trials of another bench as a deployment: one order of states, and nothing measured beside.

    `prepare` is the number of episodes that are prepared and the standard deviation of their offsets.
    """
    return DeploymentBench(
        preset="full",
        policy=bench.policy,
        conditions=conditions,
        trials=bench.trials,
        orders=1,
        long_trials=0,
        ablation_trials=0,
        ablation=conditions[0],
        capacities=(),
        states=states,
        prepare_episodes=prepare[0],
        prepare_offset=prepare[1],
        execute=bench.execute,
        seed=bench.seed,
        workers=bench.workers,
        search_segments=0,
        commits=0,
        kills=0,
        timing_trials=1,
        out=out,
        results=bench.results,
    )
