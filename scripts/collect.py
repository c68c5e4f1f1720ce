"""`vlamem collect`: records demonstrations by the scripted experts."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlamem.scripts.config import complain, load_config

if TYPE_CHECKING:
    from tqdm import tqdm

_HELP = """Records demonstrations by the scripted experts, resumable: started again, it goes on where it stopped.

example: vlamem collect --tasks touch recall_colour --episodes 100 --out data/frames --workers 2
         vlamem collect --features --tasks memory --episodes 30 --rollouts 30 --out data/features/played --workers 2
         vlamem collect --features --memory aura --tasks memory --episodes 0 --rollouts 60 --out data/features/mistakes
         vlamem collect --features --frames data/frames/worker-0 --tasks recall_colour touch --out data/features/frames
         vlamem collect --suite libero_object --features --frames data/libero/worker-0 --out data/features/libero
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem collect`."""

    suite: str
    """tabletop, or a LIBERO suite: libero_object, libero_spatial, libero_goal, libero_10, libero_90."""
    tasks: tuple[str, ...]
    """Task names, or "skills", "memory", "all"."""
    episodes: int
    """Demonstrations a task; with --features the --rollouts are played besides, 60 a task if nothing else is said."""
    share: tuple[str, ...]
    """Another number for single tasks, e.g. touch=2500 push=1600."""
    first: int
    """Number of the first episode (frames only); a second recording of other episodes begins where the first ended."""
    visit: str | None
    """Policy that acts for a while in every episode before the expert goes on (tabletop frames only); null for none."""
    out: Path
    """Directory to record into."""
    format: Literal["frames", "lerobot"]
    """frames: sparse frames with privileged labels, for `vlamem pretrain`. lerobot: LeRobotDataset v3, every tick."""
    size: int
    """Image height and width [pixels]."""
    stride: int
    """A frame every so many ticks while the expert acts (frames only)."""
    idle_stride: int
    """A frame every so many ticks while it waits (frames only)."""
    workers: int
    """Processes (frames and features)."""
    features: bool
    """Record the features of a frozen policy at every tick instead, for `vlamem train-gate`."""
    policy: str
    """Policy whose features are recorded."""
    rollouts: int
    """Episodes a task that the policy plays itself, beside those of --episodes; 0 for none (features only)."""
    memory: str
    """What it remembers with in them, as in `vlamem rollout --memory`; none: it is told the answer (features only)."""
    frames: tuple[Path, ...]
    """Directories of frames: encode what is recorded there instead of playing it anew (features only)."""

    def __post_init__(self) -> None:
        if self.suite != "tabletop" and not self.suite.startswith("libero_"):
            raise ValueError(f"suite '{self.suite}' has no scripted experts to record: choose tabletop or libero_...")
        if self.suite != "tabletop" and self.format != "frames":
            raise ValueError(f"suite '{self.suite}' is recorded as frames only: leave out --format")
        if self.suite != "tabletop" and self.visit is not None:
            raise ValueError(f"no policy visits episodes of suite '{self.suite}': leave out --visit {self.visit}")
        if self.suite != "tabletop" and self.features and not self.frames:
            raise ValueError(
                f"no episodes of suite '{self.suite}' are played for features: record demonstrations without "
                "--features, and name their folders with --features --frames"
            )


def _episodes(args: Args) -> dict[str, int]:
    from vlamem.sim.suites.registry import load_suite, select_tasks

    suite = load_suite(args.suite)
    names = [n for n in select_tasks(suite, args.tasks) if suite.tasks[n].kind != "oracle"]
    episodes = dict.fromkeys(names, args.episodes)
    for entry in args.share:
        name, _, number = entry.partition("=")
        if name not in episodes or not number.isdigit():
            raise ValueError(f"--share {entry}: expected TASK=NUMBER with a task of this recording: {', '.join(names)}")
        episodes[name] = int(number)
    return episodes


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when all demonstrations are there, 1 when a worker died."""
    from tqdm import tqdm

    args = load_config(Args, "collect", arguments, _HELP)
    from vlamem.sim.record.processes import RecordingError

    episodes = _episodes(args)
    command = shlex.join(["vlamem", "collect", *arguments])
    played = args.features and not args.frames
    total = sum(episodes.values()) + (len(episodes) * args.rollouts if played else 0)
    with tqdm(total=total, unit="episode", desc="features" if args.features else "demonstrations") as bar:
        try:
            if args.features:
                _features(args, episodes, bar, command)
            elif args.format == "lerobot":
                from vlamem.sim.suites.tabletop.lerobot_dataset import write_lerobot

                write_lerobot(episodes, args.out, args.size, _show(bar))
            else:
                _frames(args, episodes, bar, command)
        except RecordingError as error:
            complain("collect", str(error))
            return 1
    return 0


def _frames(args: Args, episodes: dict[str, int], bar: "tqdm[Any]", command: str) -> None:
    from vlamem.sim.record.collect import Collection, collect

    what = Collection(
        episodes=episodes,
        out=args.out,
        image_size=args.size,
        stride=args.stride,
        idle_stride=args.idle_stride,
        workers=args.workers,
        first=args.first,
        visit=args.visit,
        command=command,
    )
    if args.suite == "tabletop":
        collect(what, _show(bar))
        return
    from vlamem.sim.suites.libero.demonstrations import work

    collect(what, _show(bar), partial(work, suite=args.suite), tuple(episodes))


def _features(args: Args, episodes: dict[str, int], bar: "tqdm[Any]", command: str) -> None:
    from vlamem.sim.record.features import FeatureCollection, collect_features

    if args.frames:
        from vlamem.sim.record.frames import FrameCollection, encode_frames

        bar.set_description("features of frames")
        what = FrameCollection(args.policy, args.frames, episodes, args.out, command, args.suite)
        encode_frames(what, _show(bar))
        return
    rollouts = dict.fromkeys(episodes, args.rollouts)
    recording = FeatureCollection(args.policy, episodes, rollouts, args.out, args.workers, command, args.memory)
    collect_features(recording, _show(bar))


def _show(bar: "tqdm[Any]") -> Callable[[int, int], None]:
    def progress(recorded: int, unsuccessful: int) -> None:
        bar.update(recorded + unsuccessful - bar.n)
        bar.set_postfix(unsuccessful=unsuccessful)

    return progress
