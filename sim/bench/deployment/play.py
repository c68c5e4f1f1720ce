"""Consecutive trials of one robot on one job: an arm of the deployment bench, resumable trial by trial."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.memory.success import (
    BackgroundWriter,
    Calibration,
    CriticVerifier,
    EpisodeRecorder,
    MemoryOptions,
    PredicateVerifier,
    ProgressCritic,
    RetrieveOptions,
    Trace,
    Verifier,
)
from vlamem.memory.success.lifecycle.verify import TrustAll
from vlamem.memory.success.runner import SuccessRunner, layout_of, open_success
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.steering import blend
from vlamem.sim.bench.deployment.arms import Arm, Condition
from vlamem.sim.bench.deployment.env import DeployedEnv
from vlamem.sim.suites.protocol import images_of
from vlamem.sim.suites.tabletop.shift import Shift


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

    def episodes(self) -> Int[np.ndarray, "trials"]:
        """Initial state of each trial: a permutation of all states, then another; a function of the order alone."""
        laps = -(-self.trials // self.states)
        drawn = [stream(self.order, "order", lap).permutation(self.states) for lap in range(laps)]
        return np.concatenate(drawn)[: self.trials]


@dataclass(frozen=True)
class Trial:
    """One trial as it is written down.

    Attributes:
        trial, state: its number and its initial state.
        success: as the simulator says.
        steps, decisions: control steps and chunks planned.
        verdict: of the arm's verifier.
        spoke: decisions at which the memory did not abstain.
        confidence: mean over these.
        segments: of successes in the memory after it.
        commit_ms: time of storing it, off the control loop; 0 when nothing was stored.
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


@dataclass(frozen=True)
class Kit:
    """What every series uses.

    Attributes:
        policy, sha256: frozen policy and the hash of its weights.
        execute: actions of each chunk carried out before the next plan.
        seed: of the policy's noise.
        retrieve: how priors are made.
        calibration, critic: by task, from the preparation.
    """

    policy: FrozenPolicy
    sha256: str | None
    execute: int
    seed: int
    retrieve: RetrieveOptions
    calibration: dict[str, Calibration]
    critic: dict[str, ProgressCritic]


def verifier_of(arm: Arm, kit: Kit, task: str) -> Verifier:
    """The arm's verifier; the simulator's word where the task has no critic."""
    if arm.verification == "none":
        return TrustAll()
    if arm.verification == "critic" and task in kit.critic:
        return CriticVerifier(kit.critic[task], failures=arm.failures)
    return PredicateVerifier()


def open_voice(path: Path, arm: Arm, kit: Kit, task: str) -> SuccessRunner:
    """The arm's memory, calibrated when it is new."""
    changes: dict[str, Any] = {"consistency": arm.consistency, "failures": arm.failures}
    if arm.neighbours is not None:
        changes["neighbours"] = arm.neighbours
    options = MemoryOptions(
        retrieve=replace(kit.retrieve, **changes), most_segments=arm.most_segments, eviction=arm.eviction
    )
    voice = open_success(path, kit.policy, kit.sha256, options=options)
    if voice.memory.calibration is None and task in kit.calibration:
        voice.memory.recalibrate(kit.calibration[task])
    return voice


def read_trials(path: Path) -> list[Trial]:
    """The trials of a file, without a last line cut short."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(Trial(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return found


def play_series(series: Series, env: DeployedEnv, kit: Kit, out: Path) -> Iterator[Trial]:
    """Plays what is missing of a series and yields each new trial, after it and its memory are on disk."""
    folder = out / series.folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "trials.jsonl"
    done = read_trials(file)
    with file.open("w", encoding="utf-8") as again:  # a line cut short goes
        again.writelines(json.dumps(asdict(t)) + "\n" for t in done)
    if len(done) >= series.trials:
        return
    arm, task = series.arm, series.condition.task
    voice = None if arm.mode == "none" else open_voice(folder / "memory.db", arm, kit, task)
    verifier = verifier_of(arm, kit, task)
    writer = None
    if voice is not None:
        _forget(voice, len(done))
        writer = BackgroundWriter(voice.memory)
    try:
        for trial, state in list(enumerate(series.episodes().tolist()))[len(done) :]:
            late = series.after is not None and trial >= series.trials // 2
            wanted = series.after if late and series.after is not None else series.condition.shift
            if env.shift != wanted:
                env.change(wanted)
            noise = stream(kit.seed, "noise", task, series.order, trial)
            outcome, trace = play_trial(env, kit, arm, voice, state, noise, f"trial-{trial}")
            if voice is not None and writer is not None:
                outcome = _store(outcome, trace, trial, voice, writer, verifier)
            played = replace(outcome, trial=trial, state=state)
            _append(file, played)
            yield played
    finally:
        if writer is not None:
            writer.close()
        if voice is not None:
            voice.memory.close()


def _append(file: Path, trial: Trial) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(trial)) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def _forget(voice: SuccessRunner, first: int) -> None:
    """Takes back what a trial stored that was not written down before the bench was stopped."""
    memory = voice.memory
    late = {h.id for h in memory.store.episode_heads(memory.origin) if int(h.identity.partition("-")[2]) >= first}
    if late:
        gone = [s.id for s in memory.store.segments(memory.origin) if s.episode in late]
        memory.prune(np.array(gone, np.int64))


def _store(
    outcome: Trial, trace: Trace, trial: int, voice: SuccessRunner, writer: BackgroundWriter, verifier: Verifier
) -> Trial:
    verdict = verifier.verify(trace, outcome.success)
    recorder = EpisodeRecorder(voice.memory.layout)
    told = None if verdict.outcome == "unknown" else verdict.outcome == "success"
    before = len(writer.committed)
    writer.submit(recorder.finish(verdict, float(trial), trace), trace.used, told)
    writer.flush()
    took = sum(c.milliseconds for c in writer.committed[before:])
    return replace(outcome, verdict=verdict.outcome, segments=len(voice.memory), commit_ms=took)


def play_trial(
    env: DeployedEnv,
    kit: Kit,
    arm: Arm,
    voice: SuccessRunner | None,
    state: int,
    noise: np.random.Generator,
    identity: str,
    split: str = "test",
    watch: Callable[[Observation, Encoding, Proposal | None, Float[np.ndarray, "1 H A"]], None] | None = None,
) -> tuple[Trial, Trace]:
    """One trial and its trace; `watch` sees every decision."""
    policy, spec = kit.policy, kit.policy.spec
    env.reset(options={"episode": state, "split": split, "wording": "training"})
    recorder = EpisodeRecorder(layout_of(spec) if voice is None else voice.memory.layout)
    steps, decisions, said, success, ended = 0, 0, [], False, False
    queue: list[np.ndarray] = []
    observation, encoding = _see(env, policy)
    instruction = observation.instruction[0]
    recorder.begin(instruction, identity, None if voice is None else voice.meaning(instruction))
    while not ended:
        if not queue:
            if steps:
                observation, encoding = _see(env, policy)
            drawn = noise.standard_normal((1, spec.horizon, spec.action.size), dtype=np.float32)
            proposal = None
            if voice is not None:
                proposal = voice.query(encoding.key, observation.proprioception, observation.instruction)
                if proposal.chunk_weight[0] > 0:
                    said.append(float(proposal.chunk_weight[0]))
            if watch is not None:
                watch(observation, encoding, proposal, drawn)
            chunk = decide(policy, arm, encoding, drawn, proposal)
            used = voice.memory.last[0].used if voice is not None else None
            recorder.observe(encoding.key[0], observation.proprioception[0], chunk, used)
            queue, decisions = list(chunk[: kit.execute]), decisions + 1
        action = queue.pop(0)
        _, _, terminated, truncated, info = env.step(action)
        recorder.act(action)
        steps, success, ended = steps + 1, bool(info["success"]), terminated or truncated
    observation, encoding = _see(env, policy)  # how it ended is what a critic must see
    recorder.observe(encoding.key[0], observation.proprioception[0])
    mean = float(np.mean(said)) if said else 0.0
    return Trial(0, state, success, steps, decisions, spoke=len(said), confidence=mean), recorder.trace()


def decide(
    policy: FrozenPolicy, arm: Arm, encoding: Encoding, noise: Float[np.ndarray, "1 H A"], proposal: Proposal | None
) -> Float[np.ndarray, "H A"]:
    """The chunk that an arm executes."""
    if arm.mode == "replay" and proposal is not None and proposal.chunk is not None and proposal.chunk_weight[0] > 0:
        return np.asarray(np.clip(proposal.chunk[0], -1, 1))
    if arm.mode == "blend":
        return np.asarray(np.clip(blend(policy.sample(encoding, noise), proposal)[0], -1, 1))
    steering = proposal if arm.mode == "steer" else None
    return np.asarray(np.clip(policy.sample(encoding, noise, steering)[0], -1, 1))


def _see(env: DeployedEnv, policy: FrozenPolicy) -> tuple[Observation, Encoding]:
    full = env.observe()
    images = {name: image[None] for name, image in images_of(full, policy.spec.cameras).items()}
    observation = Observation(images, full["proprioception"][None], (full["instruction"],))
    return observation, policy.encode(observation)


def clock(call: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)
