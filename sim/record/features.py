"""Records a frozen policy's features over the tabletop suite: demonstrations, and the policy's own rollouts.

Each tick keeps z, the sentence told and the one that tells the answer, and what the expert would do from there. The
experts are functions of the state, so every state that the policy gets into is labelled by asking them there: the chunk
label of a tick is what they say at this and the following ticks, cut where something unforeseeable happens.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.memory.runner import MemoryRunner
from vlamem.memory.train.features import EpisodeTicks, FeaturesMeta, FeatureWriter, recorded_below
from vlamem.memory.weights import identity
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.record.processes import END, record_in_processes
from vlamem.sim.rollout.oracles import ORACLES

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.env import TabletopEnv

ACTORS = ("expert", "told", "own", "remembers")
"""Who moves the robot: the expert, now and then pushed away; the policy under the sentence that tells the answer; the
policy under its own sentence, which is told the answer only after it has gone its own way for a while; the policy under
its own sentence with a memory, which gets it into the states that mistakes of that memory lead to."""
_BATCH = 32
_EXECUTE = 8


@dataclass(frozen=True)
class FeatureCollection:
    """What to record.

    Attributes:
        policy: as in `--policy`.
        demonstrations, rollouts: episodes by task, of the expert and of the policy.
        memory: of the policy in its rollouts, as in `--memory`; with "none" it is told the answer.
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


def record_features(
    env: "TabletopEnv", policy: FrozenPolicy, episode: int, actor: str, memories: Sequence[MemoryRunner] = ()
) -> tuple[EpisodeTicks, bool]:
    """One episode of split "train" with `actor`; the ticks, and whether it succeeded.

    `memories` are those that the actor "remembers" has.

    Raises ValueError for an unknown actor, and for one that remembers without a memory.
    """
    from vlamem.sim.suites.tabletop.demonstrations import Disturbance, bursts
    from vlamem.sim.suites.tabletop.language import all_goals

    if actor not in ACTORS:
        raise ValueError(f"actor {actor!r} is unknown: choose one of {', '.join(ACTORS)}")
    if (actor == "remembers") != bool(memories):
        raise ValueError(f"actor {actor!r} {'has no' if memories else 'needs a'} memory")
    index = {goal: i for i, goal in enumerate(all_goals())}
    task = env.task
    rng = stream(0, "features", task.name, episode, actor)
    env.render_on_step = False
    env.reset(options={"episode": episode, "split": "train"})
    hand_over = int(rng.integers(10, 90)) if actor == "own" else 0
    remembering = MemoryPolicy(policy, memories)
    wording = int(rng.integers(len(task.goal(False).training_sentences))) if memories else 0
    shoves = bursts(rng, Disturbance(), 1200)
    seen: list[Observation] = []
    z: list[np.ndarray] = []
    expert: list[np.ndarray] = []
    goals: list[tuple[int, int]] = []
    asked: list[bool] = []
    phases: list[tuple[bool, int]] = []
    plan: list[np.ndarray] = []
    while task.status == "running":
        own, told = task.goal(False), task.goal(True)
        goals.append((index[own], index[told]))
        known = task.now >= task.cue_end
        asked.append(own != told and known)
        phases.append((task.go, index[told]))
        expert.append(env.expert_action())
        full = env.observe()
        obs = _observation(full, policy, own.sentence(0))
        if actor == "expert":
            seen.append(obs)
            action = expert[-1].copy()
            for first, last, offset in shoves:
                if first <= task.now < last:
                    action[:3] += offset
            action = np.clip(action, -1, 1)
        else:
            sentence = told if task.now >= hand_over and not memories else own
            tick = remembering.observe(_observation(full, policy, sentence.sentence(wording)))
            encoding = tick.encoding or policy.encode(tick.observation)
            z.append(encoding.z[0])
            if not plan:
                noise = rng.standard_normal((1, policy.spec.horizon, policy.spec.action.size), dtype=np.float32)
                plan = list(remembering.plan(replace(tick, encoding=encoding), noise)[0, :_EXECUTE])
            action = np.clip(plan.pop(0), -1, 1)
        env.step(action)
    for first in range(0, len(seen), _BATCH):
        z += list(policy.encode(Observation.stack(seen[first : first + _BATCH])).z)
    chunks = expert_chunks(np.array(expert), phases, policy.spec.horizon)
    ticks = EpisodeTicks(np.array(z), chunks, np.array(goals), np.array(asked))
    return ticks, task.status == "success"


def expert_chunks(
    actions: Float[np.ndarray, "T A"], phases: list[tuple[bool, int]], horizon: int
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


def _observation(full: Mapping[str, Any], policy: FrozenPolicy, sentence: str) -> Observation:
    images = {name: full[name][None] for name in policy.spec.cameras}
    return Observation(images, full["proprioception"][None], (sentence,))


def goals_of(suite: str) -> tuple[tuple[str, ...], ...]:
    """Paraphrases of everything that a suite's sentences can ask, the last of them held out of training.

    LIBERO has one sentence a task, which is both. All its suites share their goals, so that recordings of several of
    them train one memory. Raises LiberoMissingError without the benchmark.
    """
    if suite == "tabletop":
        from vlamem.sim.suites.tabletop.language import all_goals

        return tuple((*g.training_sentences, g.sentence(-1)) for g in all_goals())
    from vlamem.sim.suites.libero.catalogue import all_sentences

    return tuple((sentence, sentence) for sentence in all_sentences())


def features_meta(
    policy: FrozenPolicy, sha256: str | None, command: str, suite: str = "tabletop", memory: str = "none"
) -> FeaturesMeta:
    """Meta of a recording of this policy, acting with a memory, over a suite: the tabletop's, or one of LIBERO's."""
    spec = policy.spec
    chunk = (spec.horizon, spec.action.size)
    name = "tabletop" if suite == "tabletop" else "libero"
    return FeaturesMeta(
        identity(policy.spec, sha256),
        spec.feature_size,
        spec.context_size,
        chunk,
        goals_of(suite),
        name,
        command,
        memory,
    )


def collect_features(what: FeatureCollection, progress: Callable[[int, int], None]) -> None:
    """Records what is missing; `progress(recorded, unsuccessful)` after every episode.

    Raises ValueError for no workers, nothing to record or an oracle as memory, RecordingError when a process dies,
    MemoryNameError for an unknown memory, and what `find_policy` raises.
    """
    find_policy(what.policy)
    if not jobs(what):
        raise ValueError("nothing to record: ask for --episodes of the expert or --rollouts of the policy")
    if any(name.kind in ORACLES for name in parse_memories((what.memory,))):
        raise ValueError(f"memory '{what.memory}' is told by the simulator: leave it out, the policy is told without")
    record_in_processes(_work, what, what.workers, progress)


def collect_here(what: FeatureCollection) -> None:
    """Records what is missing in this process, for a handful of episodes; raises what `find_policy` raises."""
    _work(replace(what, workers=1), 0, SimpleQueue())


def _work(what: FeatureCollection, index: int, messages: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from vlamem.sim.suites.tabletop import SUITE

    source = find_policy(what.policy)
    policy = load_policy(source)
    if source.weights is not None:
        import torch

        torch.set_num_threads(1)
    names = parse_memories((what.memory,))
    memories = load_memories(names, policy, source.sha256, 1)
    marks = [name.label if name.sha256 is None else f"{name.label}:{name.sha256}" for name in names]
    meta = features_meta(policy, source.sha256, what.command, memory="+".join(marks) or "none")
    contexts = np.stack([policy.context_of(list(g)) for g in meta.goals])
    writer = FeatureWriter(what.out / f"worker-{index}", meta, contexts)
    # by any process: another number of them, or of episodes, deals the jobs anew
    done = {(e.task, e.episode, e.actor): e.success for e in recorded_below(what.out, meta)}
    parent = multiprocessing.parent_process()
    env: TabletopEnv | None = None
    for i, (task, episode, actor) in enumerate(jobs(what)):
        if i % what.workers != index:
            continue
        if parent is not None and not parent.is_alive():  # it was killed: no one reads what is recorded here
            break
        if (task, episode, actor) not in done:
            if env is None or env.task.name != task:
                if env is not None:
                    env.close()
                env = SUITE.make(task, image_size=policy.spec.image_size)
            ticks, success = record_features(env, policy, episode, actor, memories if actor == "remembers" else ())
            writer.add(task, episode, actor, ticks, success)
            done[task, episode, actor] = success
        messages.put(done[task, episode, actor])
    writer.close()
    messages.put(END)
