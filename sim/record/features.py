"""Records a frozen policy's features over a suite: demonstrations, and the policy's own rollouts.

Each tick keeps z, the instruction and the oracle instruction, and what the expert would do from there. The
experts are functions of the state, so every state that the policy gets into is labelled by them: the chunk label
of a tick is their actions at this and the following ticks, cut where something unforeseeable happens.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.memory.registry import MemoryName
from vlamem.memory.runner import MemoryRunner
from vlamem.memory.train.features import EpisodeTicks, FeaturesMeta, FeatureWriter, recorded_below
from vlamem.memory.weights import identity
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.memory_policy import MemoryPolicy, Tick
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy, weights_hash
from vlamem.sim.record.processes import record_in_processes
from vlamem.sim.rollout.hooks import EpisodeHooks
from vlamem.sim.rollout.loop import EpisodeLoop
from vlamem.sim.rollout.oracles import ORACLES
from vlamem.sim.rollout.row import Row, Start
from vlamem.sim.suites.disturbance import Disturbance, bursts, pushed
from vlamem.sim.suites.protocol import SuiteEnv
from vlamem.sim.suites.registry import DEFAULT_SUITE, load_suite

ACTORS = ("expert", "told", "own", "remembers")
"""Who moves the robot: the expert, now and then pushed away; the policy under the oracle instruction; the
policy under its own instruction at first, and under the oracle instruction after a while; the policy under its own
instruction with a memory, which gets it into the states that mistakes of that memory lead to."""
_BATCH = 32
_EXECUTE = 8


@dataclass(frozen=True)
class FeatureCollection:
    """What to record.

    Attributes:
        policy: as in `--policy`.
        demonstrations, rollouts: episodes by task, of the expert and of the policy.
        memory: of the policy in its rollouts, as in `--memory`; with "none" it gets the oracle instruction.
        suite: of the tasks.
        out: directory; each process writes `worker-<i>` below it.
        workers: processes.
        command: written into the meta.
    """

    policy: str
    demonstrations: Mapping[str, int]
    rollouts: Mapping[str, int]
    out: Path
    workers: int = 1
    command: str = "vlamem collect --features"
    memory: str = "none"
    suite: str = DEFAULT_SUITE

    def __post_init__(self) -> None:
        for name in ("demonstrations", "rollouts"):
            for task, n in getattr(self, name).items():
                if n < 0:
                    raise ValueError(f"{n} {name} of {task!r}: expected 0 or more")


def jobs(what: FeatureCollection) -> list[tuple[str, int, str]]:
    """Every (task, episode, actor), tasks and actors interleaved so that a part of the whole is a fair sample."""
    turns: list[tuple[float, str, int, str]] = []
    for task, n in what.demonstrations.items():
        turns += [(e / n, task, e, "expert") for e in range(n)]
    for task, n in what.rollouts.items():
        # other layouts than the demonstrations', so that a gate sees more of them
        if what.memory == "none":
            turns += [((e + 0.5) / n, task, 100_000 + e, "own" if e % 3 == 2 else "told") for e in range(n)]
        else:
            turns += [((e + 0.5) / n, task, 200_000 + e, "remembers") for e in range(n)]
    return [(task, episode, actor) for _, task, episode, actor in sorted(turns)]


class FeatureRecorder(EpisodeHooks):
    """Keeps of each control step what a memory is trained on, and does what its actor does beside the policy.

    Attributes:
        z: features of the policy's own rollout, [D] each.
        observations: of the expert's demonstration, to be encoded in batches.
        expert: what the expert would do.
        goals: the instruction and the oracle instruction, as places in the suite's goals.
        asked: the query mask, whether the answer is needed and has been shown.
        phases: what a chunk label is cut by.
    """

    def __init__(self, actor: str, goals: Sequence[Sequence[str]], rng: np.random.Generator, remembers: bool) -> None:
        self._actor, self._goals, self._rng, self._remembers = actor, goals, rng, remembers
        self._place = {sentence: i for i, paraphrases in enumerate(goals) for sentence in paraphrases}
        self.z: list[np.ndarray] = []
        self.observations: list[Observation] = []
        self.expert: list[np.ndarray] = []
        self.goals: list[tuple[int, int]] = []
        self.asked: list[bool] = []
        self.phases: list[tuple[int, int]] = []

    def episode_began(self, row: Row) -> None:
        """Draws when the policy gets the oracle instruction, in which words, and when the expert is pushed away."""
        own = self._place[row.progress["instruction"]]
        self._oracle_from = int(self._rng.integers(10, 90)) if self._actor == "own" else 0
        self._wording = int(self._rng.integers(len(self._goals[own]) - 1)) if self._remembers else 0
        self._pushes = bursts(self._rng, Disturbance(), 1200)
        row.drawn = True

    def before_tick(self, row: Row) -> None:
        """Labels the step, and sets the instruction that the policy gets."""
        cue = row.env.cue()
        own = self._place[row.env.instruction]
        answer = own if cue is None or cue.answer is None else self._place[cue.answer]
        self.goals.append((own, answer))
        self.asked.append(own != answer and cue is not None and cue.known)
        self.phases.append((0 if cue is None else cue.phase, answer))
        if self._actor == "expert":
            self.observations.append(replace(row.observed(), instruction=(self._goals[own][0],)))
            return
        self.expert.append(row.env.expert_action())
        goal = answer if row.steps >= self._oracle_from and not self._remembers else own
        assert row.seen is not None
        row.seen = replace(row.seen, instruction=(self._goals[goal][self._wording],))

    def after_tick(self, row: Row, tick: Tick) -> None:
        """Keeps the feature."""
        assert tick.encoding is not None
        self.z.append(tick.encoding.z[0])

    def act(self, row: Row, action: Float[np.ndarray, "A"]) -> Float[np.ndarray, "A"]:
        """The expert's action as it is kept, pushed aside as it is executed."""
        if self._actor == "expert":
            self.expert.append(action)
        return pushed(action, row.env.action_spec, self._pushes if self._actor == "expert" else (), row.steps)


def record_features(
    env: SuiteEnv,
    task: str,
    goals: Sequence[Sequence[str]],
    policy: FrozenPolicy,
    episode: int,
    actor: str,
    memories: Sequence[MemoryRunner] = (),
) -> tuple[EpisodeTicks, bool]:
    """One episode of split "train" with `actor`; the ticks, and whether it succeeded.

    `env` is of `task`, in a suite with these `goals`; `memories` are those that the actor "remembers" has.

    Raises ValueError for an unknown actor, and for one that remembers without a memory.
    """
    if actor not in ACTORS:
        raise ValueError(f"actor {actor!r} is unknown: choose one of {', '.join(ACTORS)}")
    if (actor == "remembers") != bool(memories):
        raise ValueError(f"actor {actor!r} {'has no' if memories else 'needs a'} memory")
    rng = stream(0, "features", task, episode, actor)
    recorder = FeatureRecorder(actor, goals, rng, bool(memories))
    runner = None
    if actor != "expert":
        runner = ChunkRunner(MemoryPolicy(policy, memories, encode_always=True), 1, min(_EXECUTE, policy.spec.horizon))
    env.render_on_step = False
    start = Start(task, episode, {"episode": episode, "split": "train", "wording": "training"}, rng)
    row = Row(0, env, start, policy.spec.cameras, policy.history)
    EpisodeLoop(runner, [recorder]).play([row])
    z = list(recorder.z)
    for first in range(0, len(recorder.observations), _BATCH):
        z += list(policy.encode(Observation.stack(recorder.observations[first : first + _BATCH])).z)
    chunks = expert_chunks(np.array(recorder.expert), recorder.phases, policy.spec.horizon)
    return EpisodeTicks(np.array(z), chunks, np.array(recorder.goals), np.array(recorder.asked)), row.success


def expert_chunks(
    actions: Float[np.ndarray, "T A"], phases: Sequence[tuple[int, int]], horizon: int
) -> Float[np.ndarray, "T H A"]:
    """The chunk from each tick on, its last action held from where the phase changes or the episode ends."""
    chunks = np.zeros((len(actions), horizon, actions.shape[1]), np.float32)
    until = len(actions)
    for t in range(len(actions) - 1, -1, -1):
        if t + 1 < len(actions) and phases[t + 1] != phases[t]:
            until = t + 1
        at = np.minimum(np.arange(t, t + horizon), until - 1)
        chunks[t] = actions[at]
    return chunks


def features_meta(
    policy: FrozenPolicy, sha256: str | None, command: str, suite: str = DEFAULT_SUITE, memory: str = "none"
) -> FeaturesMeta:
    """Meta of a recording of this policy, acting with a memory, over a suite."""
    spec, found = policy.spec, load_suite(suite)
    return FeaturesMeta(
        identity(policy.spec, sha256 or weights_hash(policy)),
        spec.feature_size,
        spec.context_size,
        (spec.horizon, spec.action.size),
        found.goals(),
        found.recorder.family or found.name,
        command,
        memory,
    )


def marks_of(names: Sequence[MemoryName]) -> str:
    """Memories as the meta of a recording names them: kind and options, and the hash of the weights."""
    return "+".join(n.label if n.sha256 is None else f"{n.label}:{n.sha256}" for n in names) or "none"


def collect_features(what: FeatureCollection, progress: Callable[[int, int], None]) -> None:
    """Records what is missing; `progress(recorded, unsuccessful)` after every episode.

    Raises ValueError for no workers, nothing to record or an oracle as memory, RecordingError when a process dies,
    MemoryNameError for an unknown memory, and what `find_policy` raises.
    """
    find_policy(what.policy)
    suite = load_suite(what.suite)
    if not suite.recorder.features:
        raise ValueError(f"the experts of suite '{suite.name}' give no action for every state: it is not played")
    if not jobs(what):
        raise ValueError("nothing to record: ask for --episodes of the expert or --rollouts of the policy")
    if any(name.kind in ORACLES for name in parse_memories((what.memory,))):
        raise ValueError(
            f"memory '{what.memory}' gets its answer from the simulator: leave it out, the policy gets the oracle "
            "instruction then"
        )
    record_in_processes(_work, what, what.workers, progress)


def collect_here(what: FeatureCollection) -> None:
    """Records what is missing in this process, for a handful of episodes; raises what `find_policy` raises."""
    _work(replace(what, workers=1), 0, SimpleQueue())


def _work(what: FeatureCollection, index: int, messages: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    suite = load_suite(what.suite)
    source = find_policy(what.policy)
    policy = load_policy(source)
    if source.weights is not None:
        import torch

        torch.set_num_threads(1)
    names = parse_memories((what.memory,))
    memories = load_memories(names, policy, source.sha256, 1)
    meta = features_meta(policy, source.sha256, what.command, what.suite, marks_of(names))
    contexts = np.stack([policy.context_of(list(g)) for g in meta.goals])
    writer = FeatureWriter(what.out / f"worker-{index}", meta, contexts)
    # by any process: another number of them, or of episodes, deals the jobs anew
    done = {(e.task, e.episode, e.actor): e.success for e in recorded_below(what.out, meta)}
    parent = multiprocessing.parent_process()
    env: SuiteEnv | None = None
    open_task = ""
    for i, (task, episode, actor) in enumerate(jobs(what)):
        if i % what.workers != index:
            continue
        if parent is not None and not parent.is_alive():  # it was killed: no one reads what is recorded here
            break
        if (task, episode, actor) not in done:
            if env is None or open_task != task:
                if env is not None:
                    env.close()
                env, open_task = suite.make(task, image_size=policy.spec.image_size), task
            with_memory = memories if actor == "remembers" else ()
            ticks, success = record_features(env, task, meta.goals, policy, episode, actor, with_memory)
            writer.add(task, episode, actor, ticks, success)
            done[task, episode, actor] = success
        messages.put(done[task, episode, actor])
    writer.close()
