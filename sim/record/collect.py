"""Records many demonstrations with several processes, resumable: what a killed run finished is kept.

Each suite has a loop of its own for its demonstrations, beside the one of rollouts: an expert acts and is now and then
pushed away, no policy plays that would need rows and chunks, and each kept frame has privileged labels of the suite.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlamem.core.registry import load_attribute
from vlamem.policies.registry import find_policy
from vlamem.sim.record.processes import record_in_processes
from vlamem.sim.suites.registry import DEFAULT_SUITE, load_suite


@dataclass(frozen=True)
class Collection:
    """What to record.

    Attributes:
        episodes: demonstrations per task.
        first: number of the first episode; a second recording of other episodes begins where the first one ended.
        out: directory; each worker writes `worker-<i>` below it.
        image_size: S [pixels].
        stride, idle_stride: a frame every so many ticks while the expert acts, and while it waits.
        visit: policy that acts for a while in every episode, so that the expert shows how to go on; None for none.
        workers: processes.
        shard_frames: frames a shard; an unfinished shard is lost when the process is killed.
        command: written into the frames' meta.
        suite: of the tasks.
    """

    episodes: Mapping[str, int]
    out: Path
    image_size: int = 84
    stride: int = 3
    idle_stride: int = 6
    workers: int = 2
    shard_frames: int = 2048
    first: int = 0
    visit: str | None = None
    command: str = "vlamem collect"
    suite: str = DEFAULT_SUITE


def collect(what: Collection, progress: Callable[[int, int], None]) -> None:
    """Records what is missing; `progress(recorded, unsuccessful)` is called after every episode.

    Raises ValueError for an unknown task, a suite without demonstrations or no workers, RecordingError when a process
    dies.
    """
    suite = load_suite(what.suite)
    for name, episodes in what.episodes.items():
        if name not in suite.tasks:
            raise ValueError(f"unknown task '{name}': choose from {', '.join(suite.tasks)}")
        if episodes < 1:
            raise ValueError(f"{name}: {episodes} episodes; expected 1 or more")
    if suite.recorder.demonstrations is None:
        raise ValueError(f"suite '{suite.name}' has no scripted experts to record")
    if what.visit is not None:
        find_policy(what.visit)
    record_in_processes(load_attribute(suite.recorder.demonstrations), what, what.workers, progress)
