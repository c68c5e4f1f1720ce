"""Demonstrations by the scripted experts, recorded as sparse frames with privileged labels.

Every tick is simulated, about every third is rendered: the chunk of a frame comes from all ticks, and rendering is
most of the cost. Now and then the hand is pushed away for a few ticks, or a policy acts for a while, so that the frames
show how to recover, from a policy's own mistakes too.
"""

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy
from vlamem.policies.tiny.frames import FramesMeta, FramesWriter
from vlamem.policies.tiny.frames import Goal as FramesGoal
from vlamem.sim.suites.disturbance import Disturbance, bursts
from vlamem.sim.suites.tabletop.env import TabletopEnv
from vlamem.sim.suites.tabletop.language import REFERENCE_COLOURS, REFERENCE_SHAPES, all_goals, references
from vlamem.sim.suites.tabletop.render import CAMERAS
from vlamem.sim.suites.tabletop.task import CATEGORIES, VALUES
from vlamem.sim.suites.tabletop.tasks import TASKS, make_task

if TYPE_CHECKING:
    from vlamem.sim.record.collect import Collection

HORIZON = 16
_GOALS = all_goals()
_GOAL_INDEX = {goal: i for i, goal in enumerate(_GOALS)}


VISITS = Disturbance(share=1.0, every=20.0, ticks=(8, 49))
"""When and how long a visiting policy acts."""


class Visitor:
    """A policy that acts for a while within a demonstration: the expert then goes on from the states it leads to."""

    execute = 8
    """Actions of a chunk that are carried out before the next plan."""

    def __init__(self, policy: FrozenPolicy) -> None:
        self._policy = policy
        self._queue: list[np.ndarray] = []

    def leave(self) -> None:
        """The expert has taken over: what is left of the chunk is dropped."""
        self._queue = []

    def act(self, env: TabletopEnv, rng: np.random.Generator) -> Float[np.ndarray, "7"]:
        """The policy's next action under the oracle instruction."""
        if not self._queue:
            seen, spec = env.observe(), self._policy.spec
            goal = env.task.goal(True)
            obs = Observation(
                {name: seen[name][None] for name in CAMERAS},
                seen["proprioception"][None],
                (str(rng.choice(goal.training_sentences)),),
            )
            noise = rng.standard_normal((1, spec.horizon, spec.action.size), dtype=np.float32)
            chunk = self._policy.sample(self._policy.encode(obs), noise)[0]
            self._queue = list(np.clip(chunk[: self.execute], -1.0, 1.0))
        return self._queue.pop(0)


def frames_meta(command: str, image_size: int = 84) -> FramesMeta:
    """Names and sizes of what `record` makes."""
    return FramesMeta(
        tasks=tuple(TASKS),
        goals=tuple(
            FramesGoal(g.key, tuple(g.training_sentences), (g.sentence(-1),), oracle=bool(g.words)) for g in _GOALS
        ),
        categories=CATEGORIES,
        values=VALUES,
        colours=REFERENCE_COLOURS,
        shapes=REFERENCE_SHAPES,
        references=tuple((c, s, tuple(p)) for c, s, p in references()),
        image_size=image_size,
        horizon=HORIZON,
        cameras=tuple(CAMERAS),
        spec=repr(OSC_POSE),
        command=command,
    )


def record(
    env: TabletopEnv,
    episode: int,
    *,
    stride: int = 3,
    idle_stride: int = 6,
    disturbance: Disturbance | None = None,
    visitor: Visitor | None = None,
    split: str = "train",
) -> dict[str, np.ndarray] | None:
    """One demonstration as the columns of FramesMeta, or None when the expert did not succeed.

    Args:
        env: the task; its own sentence and the oracle's are both recorded.
        stride: a frame is kept every so many ticks while the expert acts.
        idle_stride: the same while it waits.
        disturbance: how the hand is pushed away, or when and how long a visitor acts.
        visitor: acts in place of the pushes.
    """
    task = env.task
    rng = stream(0, "demonstration", task.name, split, episode)
    push = disturbance or Disturbance()
    shoves = bursts(rng, push, 1200)
    env.render_on_step = False
    env.reset(options={"episode": episode, "split": split})
    rows: list[dict[str, Any]] = []
    actions: list[np.ndarray] = []
    oracle: list[int] = []
    pushed: list[bool] = []
    phase: list[tuple[bool, int]] = []
    phase_of_stride = int(rng.integers(stride))
    while task.status == "running":
        now = task.now
        action = env.expert_action()
        own = task.goal(False)
        oracle.append(_GOAL_INDEX[task.goal(True)])
        phase.append((task.go, oracle[-1]))
        offset = next((o for first, last, o in shoves if first <= now < last), None)
        if visitor is not None and offset is None:
            visitor.leave()
        pushed.append(offset is not None)
        idle = float(np.abs(action[:6]).max()) < 0.15
        if offset is None and (now + phase_of_stride) % (idle_stride if idle else stride) == 0:
            rows.append(_row(env, _GOAL_INDEX[own], oracle[-1]))
        actions.append(action)
        command = action.copy()
        if offset is not None and visitor is not None:
            command = visitor.act(env, rng)
        elif offset is not None:
            command[:3] = np.clip(command[:3] + offset, -1.0, 1.0)
        env.step(command)
    if task.status != "success" or not rows:
        return None
    table_chunks, valid = chunks([int(r["tick"]) for r in rows], np.array(actions), pushed, phase)
    table = {name: np.stack([r[name] for r in rows]) for name in rows[0]}
    table["chunk"], table["chunk_valid"] = table_chunks, valid
    table["episode"] = np.full(len(rows), episode, np.int32)
    return table


def _row(env: TabletopEnv, own: int, oracle: int) -> dict[str, Any]:
    seen = env.observe()
    task, scene = env.task, env.scene
    target, destination = task.target(scene), task.destination(scene)
    return {
        **{name: seen[name] for name in CAMERAS},
        "proprioception": seen["proprioception"],
        "goal": np.array([own, oracle if oracle != own else -1], np.int32),
        "categories": np.array(task.categories(scene), np.int8),
        "values": np.array(task.values(scene), np.float32),
        "objects": task.objects(scene),
        "target": np.full(3, np.nan, np.float32) if target is None else target.astype(np.float32),
        "destination": np.full(3, np.nan, np.float32) if destination is None else destination.astype(np.float32),
        "tick": np.int32(task.now),
        "task": np.int16(list(TASKS).index(task.name)),
    }


def chunks(
    ticks: list[int], actions: np.ndarray, pushed: list[bool], phase: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Chunks from each tick on; entries after a push began or something unforeseeable happened are not valid."""
    table = np.zeros((len(ticks), HORIZON, actions.shape[1]), np.float32)
    valid = np.zeros((len(ticks), HORIZON), bool)
    for i, tick in enumerate(ticks):
        for h in range(min(HORIZON, len(actions) - tick)):
            if pushed[tick + h] or phase[tick + h] != phase[tick]:
                break
            table[i, h], valid[i, h] = actions[tick + h], True
        last = int(valid[i].sum())
        table[i, last:] = table[i, max(last - 1, 0)]
    return table, valid


def plan(episodes: Mapping[str, int], worker: int, workers: int, first: int = 0) -> Iterator[tuple[str, int]]:
    """The (task, episode) pairs of one worker, from episode `first` on.

    Tasks are interleaved, so that a part of the whole is a fair sample.
    """
    turns = sorted((e / n, name, first + e) for name, n in episodes.items() for e in range(n))
    for i, (_, name, episode) in enumerate(turns):
        if i % workers == worker:
            yield name, episode


def work(what: "Collection", index: int, messages: Any) -> None:
    """Body of a recording process: its share of the episodes, those that are there already left out."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    names = list(TASKS)
    env: TabletopEnv | None = None
    visitor, disturbance = None, Disturbance()
    if what.visit is not None:
        visitor, disturbance = Visitor(load_policy(find_policy(what.visit))), VISITS
    writer = FramesWriter(what.out / f"worker-{index}", frames_meta(what.command, what.image_size), what.shard_frames)
    done = writer.episodes_done()
    with writer:
        for name, episode in plan(what.episodes, index, what.workers, what.first):
            if (names.index(name), episode) in done:
                messages.put(True)
                continue
            if env is not None and env.task.name != name:
                env.close()
                env = None
            env = env or TabletopEnv(make_task(name, {})[0], image_size=what.image_size)
            frames = record(
                env,
                episode,
                stride=what.stride,
                idle_stride=what.idle_stride,
                disturbance=disturbance,
                visitor=visitor,
            )
            if frames is not None:
                writer.add_episode(frames)
            messages.put(frames is not None)


def labels(env: TabletopEnv) -> dict[str, int]:
    """Privileged labels of this moment by name; 0 where there is nothing to see."""
    names = (name for name, _ in CATEGORIES)
    return dict(zip(names, env.task.categories(env.scene), strict=True))
