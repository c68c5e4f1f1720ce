"""Consecutive trials of one robot on one job: an arm of the deployment bench, each a rollout of its own."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from jaxtyping import Int

from vlamem.memory.runner import MemoryRunner
from vlamem.memory.success import Calibration, EpisodeRecorder, ProgressCritic, RetrieveOptions, Trace
from vlamem.memory.success.runner import SuccessRunner, layout_of
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.memory_policy import Decision, MemoryPolicy
from vlamem.policies.protocol import FrozenPolicy
from vlamem.sim.bench.deployment.arms import Arm, Condition
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.rollout.ablations import Ablation
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.hooks import EpisodeHooks
from vlamem.sim.rollout.loop import EpisodeLoop
from vlamem.sim.rollout.row import Row, Start
from vlamem.sim.rollout.run import rollout
from vlamem.sim.rollout.traces import EpisodeTracer
from vlamem.sim.rollout.trials import state_in_order
from vlamem.sim.suites.protocol import SuiteEnv
from vlamem.sim.suites.tabletop.shift import Shift

_ABLATIONS: dict[str, Ablation] = {"none": "none", "steer": "none", "blend": "blend", "replay": "proposal_only"}


class SeriesError(RuntimeError):
    """A trial that broke; the message says which, where and why."""


@dataclass(frozen=True)
class Kit:
    """What every series uses.

    Attributes:
        policy, sha256: frozen policy and the hash of its weights.
        execute: actions of each chunk carried out before the next plan.
        seed: of the policy's noise.
        retrieve: how priors are made.
        calibration, critic: by task, from the preparation.
        name: of the policy, as in `--policy`.
        files: of calibrations and critics, by what they are and task.
    """

    policy: FrozenPolicy
    sha256: str | None
    execute: int
    seed: int
    retrieve: RetrieveOptions
    calibration: dict[str, Calibration]
    critic: dict[str, ProgressCritic]
    name: str = "tiny"
    files: Mapping[tuple[str, str], Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """Trials of one arm under one condition in one order.

    Attributes:
        condition, arm: what is played.
        order: number of the order of initial states.
        trials: how many.
        states: initial states that the job has; trials go through them again and again, in a new order each time.
        after: shift of the second half, for arms that change.
    """

    condition: Condition
    arm: Arm
    order: int
    trials: int
    states: int
    after: Shift | None = None

    @property
    def folder(self) -> Path:
        """Of its files, inside the run folder."""
        return Path(self.condition.folder) / f"{self.arm.name}-{self.order}"

    def config(self, kit: Kit, out: Path) -> RolloutConfig:
        """The rollout that plays it."""
        return RolloutConfig(
            suite=self.condition.suite,
            tasks=(self.condition.task,),
            policy=kit.name,
            memory=(memory_of(self.arm, self.condition.task, kit, out / self.folder / "memory.db"),),
            episodes=self.trials,
            seed=kit.seed,
            out=out / self.folder,
            workers=0,
            video=0,
            split="test",
            wording="training",
            size=kit.policy.spec.image_size,
            render="fast",
            execute=kit.execute,
            parameters=_parameters(self.condition.shift),
            watchdog_s=600.0,
            retry_errors=False,
            ablation=_ABLATIONS[self.arm.mode],
            order=1 + self.order,
            states=self.states,
            later_parameters=() if self.after is None else _parameters(self.after),
            change_at=None if self.after is None else self.trials // 2,
        )

    def episodes(self) -> Int[np.ndarray, "trials"]:
        """Initial state of each trial, a function of the order alone."""
        return np.array([state_in_order(1 + self.order, self.states, t).number for t in range(self.trials)])


def _parameters(shift: Shift) -> tuple[str, ...]:
    return () if shift == Shift() else (f"shift={shift.kind}:{shift.strength!r}",)


@dataclass(frozen=True)
class Trial:
    """What a page says of one trial.

    Attributes:
        trial, state: its number and its initial state.
        success: as the simulator says.
        steps, decisions: control steps and chunks planned.
        verdict: of the arm's verifier.
        spoke: decisions at which the memory did not abstain.
        confidence: mean over these.
        segments: of successes in the memory after it.
        commit_ms: time of storing it; 0 when nothing was stored.
    """

    trial: int
    state: int
    success: bool
    steps: int
    decisions: int
    verdict: str = ""
    spoke: int = 0
    confidence: float = 0.0
    segments: int = 0
    commit_ms: float = 0.0

    @classmethod
    def of(cls, record: EpisodeRecord) -> "Trial":
        """From the record of its episode. Raises SeriesError for one that ended as an error."""
        if record.outcome == "error":
            raise SeriesError(f"trial {record.episode} of task '{record.task}' broke: {record.error}")
        state = record.initial_state.partition("/")[2].partition("#")[0]
        return cls(
            record.episode,
            int(state),
            record.outcome == "success",
            record.steps,
            record.decisions,
            record.verdict,
            record.proposals,
            record.proposed_weight,
            record.segments,
            record.wall_clock.get("commit_ms", 0.0),
        )


def memory_of(arm: Arm, task: str, kit: Kit, path: Path) -> str:
    """The arm's memory as in `--memory`; the simulator's word is taken where the task has no critic."""
    if arm.mode == "none":
        return "none"
    critic, calibration = (kit.files.get((what, task)) for what in ("critic", "calibration"))
    options: dict[str, Any] = {}
    if arm.verification == "none":
        options["verifier"] = "none"
    elif arm.verification == "critic" and critic is not None:
        options |= {"verifier": "critic", "critic": critic}
    if calibration is not None:
        options["calibration"] = calibration
    if not arm.failures:
        options["failures"] = "false"
    if not arm.consistency:
        options["consistency"] = "false"
    for name, value, usual in (
        ("prior", arm.prior, "elite"),
        ("explore", arm.explore, None),
        ("neighbours", arm.neighbours, None),
        ("most_segments", arm.most_segments, None),
        ("eviction", arm.eviction, "utility"),
    ):
        if value != usual:
            options[name] = value
    return f"success:{path}?{urlencode(options, safe='/:')}"


def open_memory(path: Path, arm: Arm, kit: Kit, task: str) -> SuccessRunner:
    """The arm's memory, calibrated when it is new."""
    (memory,) = load_memories(parse_memories((memory_of(arm, task, kit, path),)), kit.policy, kit.sha256, 1)
    assert isinstance(memory, SuccessRunner)
    return memory


def read_trials(folder: Path) -> list[Trial]:
    """The trials in the folder of a series. Raises SeriesError for one that broke."""
    records = sorted(EpisodeLog(folder / "episodes.jsonl").read(), key=lambda record: record.episode)
    return [Trial.of(record) for record in records]


def play_series(series: Series, kit: Kit, out: Path) -> list[Trial]:
    """Plays what is missing of a series; the new trials. Raises what `rollout` raises, and SeriesError."""
    (out / series.folder).mkdir(parents=True, exist_ok=True)
    done = len(read_trials(out / series.folder))
    rollout(series.config(kit, out))
    return read_trials(out / series.folder)[done:]


class Watch(EpisodeHooks):
    """Calls a function with every decision."""

    def __init__(self, watch: Callable[[Decision], None]) -> None:
        self._watch = watch

    def planned(self, row: Row, at: int, decision: Decision) -> None:
        """Passes it on."""
        self._watch(decision)


class _Kept(EpisodeTracer):
    """Keeps the trace of the last episode."""

    trace: Trace

    def traced(self, row: Row, trace: Trace) -> None:
        """Keeps it."""
        self.trace = trace


def play_trial(
    env: SuiteEnv,
    kit: Kit,
    memory: MemoryRunner | None,
    start: Start,
    watch: Callable[[Decision], None] = lambda decision: None,
) -> tuple[bool, Trace]:
    """One episode outside a series, whether it succeeded and its trace; `watch` sees every decision."""
    policy = kit.policy
    layout = layout_of(policy.spec)
    tracer = _Kept(policy, lambda: EpisodeRecorder(layout))
    runner = ChunkRunner(MemoryPolicy(policy, () if memory is None else (memory,)), 1, kit.execute)
    env.render_on_step = False
    row = Row(0, env, start, policy.spec.cameras, policy.history)
    EpisodeLoop(runner, [tracer, Watch(watch)]).play([row])
    return row.success, tracer.trace


def clock(call: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)
