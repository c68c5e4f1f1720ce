"""Records demonstrations that teach a memory through a frozen policy's own loss: features, and what the policy read.

Nothing that is recorded tells the answer: both sentences of a tick are the one that the policy is told, `asked` is 0
everywhere, and a chunk is what the expert did next, whatever signal came meanwhile. While the robot moves not every
tick is rendered, but the one at which it sets out is. z is interpolated between those that are: held, it would stand
still for ticks at a time, and a gate that learned on it writes twice as often in use.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.memory.runner import MemoryRunner
from vlamem.memory.train.conditioning import Conditioned, write_conditioning
from vlamem.memory.train.features import EpisodeTicks, FeatureWriter, recorded_below
from vlamem.policies.choice import disagreement
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.protocol import FrozenPolicy, Teachable
from vlamem.policies.registry import find_policy, load_policy
from vlamem.policies.teaching import PolicyLoss
from vlamem.sim.record.corrections import ACTOR as CORRECTED
from vlamem.sim.record.corrections import FIRST, record_correction
from vlamem.sim.record.features import expert_chunks, features_meta, marks_of
from vlamem.sim.record.processes import record_in_processes
from vlamem.sim.suites.disturbance import Disturbance, bursts, pushed
from vlamem.sim.suites.tabletop.demonstrations import plan
from vlamem.sim.suites.tabletop.language import all_goals

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.env import TabletopEnv

ACTOR = "expert"
_STILL = 0.15
"""Largest translation or rotation of an action of a robot that waits."""


@dataclass(frozen=True)
class DemonstrationCollection:
    """What to record.

    Attributes:
        policy: as in `--policy`.
        episodes: demonstrations by task.
        out: directory; each process writes `worker-<i>` below it, and in its `conditioning` what the policy read.
        workers: processes.
        stride: ticks between two rendered ones while the robot moves; all are while it waits, and when it sets out.
        idle_stride: ticks between two of which the conditioning is kept, while the robot waits.
        command: written into the meta.
        corrections: rollouts of the policy by task, in which the expert takes over now and then.
        memory: of the policy in these, as in `--memory`.
    """

    policy: str
    episodes: Mapping[str, int]
    out: Path
    workers: int = 1
    stride: int = 2
    idle_stride: int = 3
    command: str = "vlamem collect --features --conditioning"
    corrections: Mapping[str, int] = field(default_factory=dict)
    memory: str = "none"


def record_demonstration(
    env: "TabletopEnv", policy: FrozenPolicy, episode: int, stride: int = 2, idle_stride: int = 3
) -> tuple[EpisodeTicks, Conditioned, bool]:
    """One demonstration of split "train", now and then pushed off its way, and whether it succeeded.

    Raises ValueError for a policy that is not Teachable, or reads several observations.
    """
    if not isinstance(policy, Teachable):
        raise ValueError(f"policy '{policy.spec.name}' gives no gradient of its loss: leave out --conditioning")
    if policy.history > 1:
        raise ValueError(
            f"policy '{policy.spec.name}' reads {policy.history} observations at once, and not every tick is rendered: "
            "record a LeRobotDataset (vlamem collect --format lerobot) and give it to 'vlamem fit'"
        )
    task = env.task
    rng = stream(0, "teach", task.name, episode)
    env.render_on_step = False
    env.reset(options={"episode": episode, "split": "train"})
    shoves = bursts(rng, Disturbance(), 1200)
    index = {goal: i for i, goal in enumerate(all_goals())}
    seen: dict[int, Observation] = {}
    kept: list[int] = []
    goals: list[int] = []
    expert: list[np.ndarray] = []
    waited = True
    while task.status == "running":
        action, now = env.expert_action(), task.now
        waits = float(np.abs(action[:6]).max()) < _STILL
        # where it sets out it chooses, and nothing but a memory tells where to: a tick later the hand has told
        sets_out, waited = waited and not waits, waits
        if not seen or waits or sets_out or now - max(seen) >= stride:
            full = env.observe()
            images = {name: full[name][None] for name in policy.spec.cameras}
            seen[now] = Observation(images, full["proprioception"][None], (task.goal(False).sentence(0),))
            if not kept or sets_out or now - kept[-1] >= (idle_stride if waits else stride):
                kept.append(now)
        goals.append(index[task.goal(False)])
        expert.append(action)
        env.step(pushed(action, env.action_spec, shoves, now))
    at = np.array(sorted(seen))
    encoding = policy.encode(Observation.stack([seen[tick] for tick in at]))
    told = np.stack([goals, goals], axis=1)
    chunks = expert_chunks(np.array(expert), [(0, 0)] * len(expert), policy.spec.horizon)
    columns = EpisodeTicks(_interpolated(encoding.z, at, len(expert)), chunks, told, np.zeros(len(expert), bool))
    chosen = encoding.rows(np.searchsorted(at, kept))
    packed = Conditioned(np.array(kept), disagreement(policy, chosen, rng).astype(np.float32), policy.pack(chosen))
    return columns, packed, task.status == "success"


def _interpolated(z: Float[np.ndarray, "N D"], at: Int[np.ndarray, "N"], ticks: int) -> Float[np.ndarray, "T D"]:
    """z of every tick, linear between those at `at` and held after the last."""
    every = np.arange(ticks)
    before = np.searchsorted(at, every, side="right") - 1
    after = np.minimum(before + 1, len(at) - 1)
    share = (every - at[before]) / np.maximum(at[after] - at[before], 1)
    made: np.ndarray = z[before] + share[:, None].astype(np.float32) * (z[after] - z[before])
    return made


def collect_demonstrations(what: DemonstrationCollection, progress: Callable[[int, int], None]) -> None:
    """Records what is missing; `progress(recorded, unsuccessful)` after every episode.

    An episode in which the expert fails is left out: no demonstrator hands it in. Raises ValueError for a policy that
    gives no gradient of its loss, RecordingError when a process dies, and what `find_policy` raises.
    """
    PolicyLoss(load_policy(find_policy(what.policy)))
    record_in_processes(_work, what, what.workers, progress)


def collect_here(what: DemonstrationCollection) -> None:
    """Records what is missing in this process, for a handful of episodes; raises what `find_policy` raises."""
    _work(replace(what, workers=1), 0, SimpleQueue())


def _work(what: DemonstrationCollection, index: int, messages: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from vlamem.sim.suites.tabletop import SUITE

    source = find_policy(what.policy)
    policy = load_policy(source)
    memories: tuple[MemoryRunner, ...] = ()
    marks = "none"
    if what.memory != "none":
        names = parse_memories((what.memory,))
        memories, marks = load_memories(names, policy, source.sha256, 1), marks_of(names)
    meta = features_meta(policy, source.sha256, what.command, memory=marks)
    contexts = np.stack([policy.context_of(list(g)) for g in meta.goals])
    folder = what.out / f"worker-{index}"
    done = {(e.task, e.episode) for e in recorded_below(what.out, meta)}
    parent = multiprocessing.parent_process()
    with ExitStack() as opened:
        writer = FeatureWriter(folder, meta, contexts)
        opened.callback(writer.close)
        envs: dict[str, TabletopEnv] = {}
        jobs = [*plan(what.episodes, index, what.workers), *plan(what.corrections, index, what.workers, FIRST)]
        for task, episode in jobs:
            if parent is not None and not parent.is_alive():  # it was killed: no one reads what is recorded here
                break
            succeeded = (task, episode) in done
            if not succeeded:
                if task not in envs:  # kept to the end: to make one takes as long as to play in it
                    envs[task] = SUITE.make(task, image_size=policy.spec.image_size)
                    opened.callback(envs[task].close)
                env, actor = envs[task], ACTOR if episode < FIRST else CORRECTED
                made: tuple[EpisodeTicks, Conditioned | None, bool]
                if actor == ACTOR:
                    made = record_demonstration(env, policy, episode, what.stride, what.idle_stride)
                else:
                    made = record_correction(env, task, meta.goals, policy, memories, episode, what.stride)
                ticks, rows, succeeded = made
                if succeeded and rows is not None:
                    write_conditioning(folder, task, episode, actor, rows)
                    writer.add(task, episode, actor, ticks, succeeded)
            messages.put(succeeded)
