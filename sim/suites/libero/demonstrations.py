"""Demonstrations by LIBERO's scripted experts, as sparse frames with privileged labels (policies/tiny/frames.py).

Every step is simulated, about every third is rendered. Now and then the hand is pushed away for a few steps, so that
the frames show how to recover. Initial states are those of the split "train", never the benchmark's stored ones.
"""

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE
from vlamem.policies.tiny.frames import OBJECT_SLOTS, FramesMeta, FramesWriter, Goal
from vlamem.sim.suites.disturbance import Disturbance, bursts
from vlamem.sim.suites.libero import SUITES
from vlamem.sim.suites.libero.pick_place import PickAndPlace
from vlamem.sim.suites.libero.render import CAMERAS
from vlamem.sim.suites.protocol import NoExpertError
from vlamem.sim.suites.tabletop.demonstrations import HORIZON, chunks, plan

if TYPE_CHECKING:
    from vlamem.sim.record.collect import Collection
    from vlamem.sim.suites.libero.env import LiberoEnv

PUSHES = Disturbance(share=0.4, every=40.0, ticks=(2, 5), strength=0.8)
_NUMBER = re.compile(r"_\d+$")
_NOUNS = {
    "akita_black_bowl": "black bowl",
    "glazed_rim_porcelain_ramekin": "ramekin",
    "cookies": "cookie box",
    "wooden_cabinet": "wooden cabinet",
    "flat_stove": "stove",
    "white_yellow_mug": "yellow and white mug",
    "porcelain_mug": "white mug",
    "black_book": "book",
    "desk_caddy": "caddy",
}


def noun(thing: str) -> str:
    """What sentences call an object of the benchmark: "alphabet_soup_1" is "alphabet soup"."""
    kind = _NUMBER.sub("", thing)
    return _NOUNS.get(kind, kind.replace("_", " "))


def _kinds(suite: str) -> tuple[str, ...]:
    """Names of everything that stands in the suite's scenes, read from its task files."""
    from vlamem.sim.suites.libero.assets import find_paths

    found: set[str] = set()
    for task in SUITES[suite].tasks:
        text = find_paths().task_file(suite, task).read_text(encoding="utf-8")
        for block in re.findall(r"\(:(?:objects|fixtures)([^)]*)\)", text):
            found |= {noun(name) for name in re.findall(r"(\w+)\s+-", block)}
    return tuple(sorted(found - {"main table", "table", "floor", "kitchen table", "living room table", "study table"}))


def frames_meta(suite: str, command: str, image_size: int) -> FramesMeta:
    """Names and sizes of what `record` makes. Raises LiberoMissingError without the benchmark."""
    kinds = _kinds(suite)
    tasks = SUITES[suite].tasks
    return FramesMeta(
        tasks=tuple(tasks),
        goals=tuple(Goal(name, info.instructions) for name, info in tasks.items()),
        values=tuple(f"{kind} {axis}" for kind in kinds for axis in "xyz"),
        colours=("",),
        shapes=kinds,
        references=tuple((0, i, (f"the {kind}",)) for i, kind in enumerate(kinds)),
        image_size=image_size,
        horizon=HORIZON,
        cameras=tuple(CAMERAS),
        spec=repr(OSC_POSE),
        command=command,
    )


def record(
    env: "LiberoEnv", meta: FramesMeta, episode: int, *, stride: int = 3, disturbance: Disturbance = PUSHES
) -> dict[str, np.ndarray] | None:
    """One demonstration as the columns of `meta`, or None when the expert did not succeed.

    Raises NoExpertError for a task without one.
    """
    rng = stream(0, "demonstration", env.suite, env.info.name, episode)
    shoves = bursts(rng, disturbance, env.info.max_steps)
    env.render_on_step = False
    env.reset(options={"episode": episode, "split": "train"})
    rows: list[dict[str, Any]] = []
    actions: list[np.ndarray] = []
    pushed: list[bool] = []
    first_kept = int(rng.integers(stride))
    while env.status == "running":
        action = env.expert_action()
        offset = next((o for first, last, o in shoves if first <= env.now < last), None)
        pushed.append(offset is not None)
        if offset is None and (env.now + first_kept) % stride == 0:
            rows.append(_row(env, meta))
        actions.append(action)
        command = action.copy()
        if offset is not None:
            command[:3] = np.clip(command[:3] + offset, -1.0, 1.0)
        env.step(command)
    if env.status != "success" or not rows:
        return None
    table = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    ticks = [int(row["tick"]) for row in rows]
    table["chunk"], table["chunk_valid"] = chunks(ticks, np.array(actions), pushed, [0] * len(actions))
    table["episode"] = np.full(len(rows), episode, np.int32)
    return table


def _row(env: "LiberoEnv", meta: FramesMeta) -> dict[str, Any]:
    seen = env.observe()
    simulation = env.simulation
    where = {name: simulation.thing(name) - simulation.origin for name in simulation.things}
    names = [noun(name) for name in where]
    values = np.full((len(meta.shapes), 3), np.nan, np.float32)
    objects = np.full((OBJECT_SLOTS, 5), -1.0, np.float32)
    for slot, (kind, position) in enumerate(zip(names, where.values(), strict=True)):
        if names.count(kind) == 1:
            values[meta.shapes.index(kind)] = position
        if slot < OBJECT_SLOTS:
            objects[slot] = (0, meta.shapes.index(kind), *position)
    task = meta.tasks.index(env.info.name)
    return {
        **{camera: seen[camera] for camera in CAMERAS},
        "proprioception": seen["proprioception"],
        "goal": np.array([task, -1], np.int32),
        "categories": np.zeros(0, np.int8),
        "values": values.reshape(-1),
        "objects": objects,
        "target": _target(env),
        "destination": _destination(env),
        "tick": np.int32(env.now),
        "task": np.int16(task),
    }


def _target(env: "LiberoEnv") -> np.ndarray:
    """Where the hand is about to go: to the thing, and once it is held to where it belongs."""
    skill = env.expert.skill
    if not isinstance(skill, PickAndPlace):
        return np.full(3, np.nan, np.float32)
    position = skill.place.position() if skill.holds() else env.simulation.thing(skill.thing)
    return np.asarray(position - env.simulation.origin, np.float32)


def _destination(env: "LiberoEnv") -> np.ndarray:
    """Where the thing at hand belongs, known from the first frame on."""
    skill = env.expert.skill
    if not isinstance(skill, PickAndPlace):
        return np.full(3, np.nan, np.float32)
    return np.asarray(skill.place.position() - env.simulation.origin, np.float32)


def work(what: "Collection", index: int, messages: Any) -> None:
    """Body of a recording process: its share of the episodes, those that are there already left out.

    A task without an expert is left out with a line that says which part of its goal is missing.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    suite = what.suite
    meta = frames_meta(suite, what.command, what.image_size)
    env: LiberoEnv | None = None
    writer = FramesWriter(what.out / f"worker-{index}", meta, what.shard_frames)
    done = writer.episodes_done()
    turns = plan(what.episodes, index, what.workers, what.first)
    shares = sorted(turns, key=lambda share: meta.tasks.index(share[0]))
    beyond: set[str] = set()
    with writer:
        for name, episode in shares:  # task by task: a scene takes seconds to build
            if name in beyond:
                messages.put(False)
                continue
            if (meta.tasks.index(name), episode) in done:
                messages.put(True)
                continue
            if env is None or env.info.name != name:
                if env is not None:
                    env.close()
                env = SUITES[suite].make(name, image_size=what.image_size)
            try:
                frames = record(env, meta, episode, stride=what.stride)
            except NoExpertError as error:
                print(f"left out: {error}", file=sys.stderr, flush=True)
                beyond.add(name)
                frames = None
            if frames is not None:
                writer.add_episode(frames)
            messages.put(frames is not None)
