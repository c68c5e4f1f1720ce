"""Records many demonstrations with several processes, resumable: what a killed run finished is kept."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlamem.policies.registry import find_policy, load_policy
from vlamem.policies.tiny.frames import FramesWriter
from vlamem.sim.record.processes import END, record_in_processes
from vlamem.sim.suites.tabletop.demonstrations import Disturbance, Visitor, frames_meta, plan, record
from vlamem.sim.suites.tabletop.tasks import TASKS

VISITS = Disturbance(share=1.0, every=20.0, ticks=(8, 49))
"""When and how long a visiting policy acts."""


@dataclass(frozen=True)
class Collection:
    """What to record.

    Attributes:
        episodes: demonstrations per task.
        first: number of the first episode; a second recording of other episodes begins where the first one ended.
        out: directory; each worker writes `worker-<i>` below it.
        image_size: S [pixels].
        stride, idle_stride: a frame every so many ticks while the expert acts, and while it waits.
        disturbance: how the hand is pushed away.
        visit: policy that acts for a while in every episode, so that the expert shows how to go on; None for none.
        workers: processes.
        shard_frames: frames a shard; an unfinished shard is lost when the process is killed.
        command: written into the frames' meta.
    """

    episodes: Mapping[str, int]
    out: Path
    image_size: int = 84
    stride: int = 3
    idle_stride: int = 6
    disturbance: Disturbance = field(default_factory=Disturbance)
    workers: int = 2
    shard_frames: int = 2048
    first: int = 0
    visit: str | None = None
    command: str = "vlamem collect"


def collect(
    what: Collection,
    progress: Callable[[int, int], None],
    work: Callable[[Collection, int, Any], None] | None = None,
    known: Sequence[str] = tuple(TASKS),
) -> None:
    """Records what is missing; `progress(recorded, unsuccessful)` is called after every episode.

    Another suite gives its tasks as `known` and the body of its processes as `work`.

    Raises ValueError for an unknown task or no workers, RecordingError when a process dies.
    """
    for name, episodes in what.episodes.items():
        if name not in known:
            raise ValueError(f"unknown task '{name}': choose from {', '.join(known)}")
        if episodes < 1:
            raise ValueError(f"{name}: {episodes} episodes; expected 1 or more")
    if what.visit is not None:
        find_policy(what.visit)
    record_in_processes(work or _work, what, what.workers, progress)


def _work(what: Collection, index: int, messages: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from vlamem.sim.suites.tabletop import SUITE
    from vlamem.sim.suites.tabletop.env import TabletopEnv

    names = list(TASKS)
    env: TabletopEnv | None = None
    visitor, disturbance = None, what.disturbance
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
            env = env or SUITE.make(name, image_size=what.image_size)
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
    messages.put(END)
