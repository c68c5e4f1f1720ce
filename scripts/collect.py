"""`vlamem collect`: records demonstrations by scripted experts, and what a policy does."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlamem.scripts.config import complain, load_config

if TYPE_CHECKING:
    from tqdm import tqdm

    from vlamem.sim.suites.protocol import Suite

_HELP = """Records demonstrations by scripted experts, or what a policy does; started again, it goes on where it was.

example: vlamem collect --tasks touch recall_colour --episodes 100 --out data/frames --workers 2
         vlamem collect --features --tasks memory --episodes 30 --rollouts 30 --out data/features/played --workers 2
         vlamem collect --features --conditioning --tasks memory --episodes 200 --out data/demonstrations
         vlamem collect --features --conditioning --memory aura:gate.safetensors --tasks memory --episodes 0 \
           --rollouts 60 --out data/corrections
         vlamem collect --features --memory aura --tasks memory --episodes 0 --rollouts 60 --out data/features/mistakes
         vlamem collect --features --frames data/frames/worker-0 --tasks recall_colour touch --out data/features/frames
         vlamem collect --suite libero_object --features --frames data/libero/worker-0 --out data/features/libero
         vlamem collect --suite my_task:SUITE --format lerobot --tasks all --episodes 50 --out data/mine
         vlamem collect --suite my_task:SUITE --format lerobot --actor checkpoints/act --tasks all --out data/played
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem collect`."""

    suite: str
    """tabletop, a LIBERO suite, or one of your own as package.module:SUITE."""
    tasks: tuple[str, ...]
    """Task names, or "skills", "memory", "all"."""
    episodes: int
    """Demonstrations a task; with --features the --rollouts are played besides, 60 a task by default."""
    share: tuple[str, ...]
    """Another number for single tasks, e.g. touch=2500 push=1600."""
    first: int
    """Number of the first episode (frames only); a second recording of other episodes begins where the first ended."""
    visit: str | None
    """Policy that acts for a while in every demonstration, in suites that let one; null for none."""
    out: Path
    """Directory to record into."""
    format: Literal["frames", "lerobot"]
    """frames: sparse frames with privileged labels, for `vlamem pretrain`. lerobot: LeRobotDataset v3, every tick."""
    actor: str
    """Who acts: expert, whose failures are left out, or a policy, whose failures are kept (lerobot only)."""
    size: int
    """Image height and width [pixels]."""
    cameras: tuple[str, ...]
    """Cameras whose pictures are recorded; all when none is given (lerobot only)."""
    parameters: tuple[str, ...]
    """Task parameters as name=value, e.g. visible_cue=true (lerobot only)."""
    disturbed: bool
    """Push the hand off its way now and then, so that it is shown how to recover (lerobot only)."""
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
    """Episodes a task that the policy plays itself, beside those of --episodes; 0 for none (features only). With
    --conditioning and a --memory the expert takes over in them now and then."""
    memory: str
    """What a policy that acts remembers with, as in `vlamem rollout --memory`; with --features none means the oracle
    instruction."""
    frames: tuple[Path, ...]
    """Directories of frames: encode what is recorded there instead of playing it anew (features only)."""
    conditioning: bool
    """Demonstrations alone, without any answer, and what the policy reads at them, for `vlamem fit` (features only)."""


def _check(args: Args, suite: "Suite") -> None:
    """Raises ValueError for what the suite has no recorder of."""
    can, name = suite.recorder, suite.name
    if args.format != "lerobot" and (args.cameras or args.parameters or args.disturbed or args.actor != "expert"):
        raise ValueError(
            "--actor, --cameras, --parameters and --disturbed are of --format lerobot: leave them out, or add it"
        )
    if args.format == "lerobot" and args.features:
        raise ValueError("--features and --format lerobot are two recordings: leave one out")
    if args.format != "lerobot" and not args.features and args.memory != "none":
        raise ValueError(f"--memory {args.memory}: no policy acts in frames, leave it out")
    if args.visit is not None and not can.visits:
        raise ValueError(f"no policy visits episodes of suite '{name}': leave out --visit {args.visit}")
    if args.features and not args.frames and not can.features:
        raise ValueError(
            f"no episodes of suite '{name}' are played for features, since its experts do not act in every state: "
            "record demonstrations without --features, and name their folders with --features --frames, or record a "
            "LeRobotDataset with --format lerobot, which 'vlamem fit' reads"
        )
    if args.conditioning and (not args.features or args.frames):
        raise ValueError("--conditioning records demonstrations with --features, without --frames")
    if args.conditioning and suite.name != "tabletop":
        raise ValueError(
            f"--conditioning records the tabletop suite, not '{name}': give 'vlamem fit' a LeRobotDataset of it"
        )
    if not args.features and args.format == "frames" and can.demonstrations is None:
        raise ValueError(
            f"suite '{name}' is not recorded as frames: add --format lerobot for a LeRobotDataset of it, or --features "
            "for a policy's features"
        )


def _episodes(args: Args, suite: "Suite") -> dict[str, int]:
    from vlamem.sim.suites.registry import select_tasks

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
    from vlamem.core.locks import one_writer
    from vlamem.sim.record.processes import RecordingError
    from vlamem.sim.suites.registry import load_suite

    suite = load_suite(args.suite)
    _check(args, suite)
    episodes = _episodes(args, suite)
    command = shlex.join(["vlamem", "collect", *arguments])
    played = args.features and not args.frames
    corrected = args.conditioning and args.memory != "none"
    total = sum(episodes.values())
    if played and (corrected or not args.conditioning):
        total += len(episodes) * args.rollouts
    what = "features" if args.features else "demonstrations"
    with one_writer(args.out), tqdm(total=total, unit="episode", desc=what) as bar:
        try:
            if args.features:
                _features(args, episodes, bar, command)
            elif args.format == "lerobot":
                _dataset(args, episodes, suite, bar)
            else:
                _frames(args, episodes, bar, command)
        except RecordingError as error:
            complain("collect", str(error))
            return 1
    return 0


def _dataset(args: Args, episodes: dict[str, int], suite: "Suite", bar: "tqdm[Any]") -> None:
    from vlamem.core.registry import load_attribute
    from vlamem.sim.record.dataset import DatasetCollection, collect_dataset
    from vlamem.sim.suites.parameters import task_parameters

    parameters, own = task_parameters(args.parameters), suite.recorder.lerobot
    if own is not None and args.actor == "expert" and args.memory == "none":  # it knows more than any suite has
        load_attribute(own)(episodes, args.out, args.size, _show(bar), args.cameras, parameters, args.disturbed)
        return
    what = DatasetCollection(
        episodes, args.out, args.suite, args.actor, args.memory, args.size, args.cameras, parameters, args.disturbed
    )
    collect_dataset(what, _show(bar))


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
        suite=args.suite,
    )
    collect(what, _show(bar))


def _features(args: Args, episodes: dict[str, int], bar: "tqdm[Any]", command: str) -> None:
    from vlamem.sim.record.features import FeatureCollection, collect_features

    rollouts = dict.fromkeys(episodes, args.rollouts)
    if args.frames:
        from vlamem.sim.record.frames import FrameCollection, encode_frames

        bar.set_description("features of frames")
        what = FrameCollection(args.policy, args.frames, episodes, args.out, command, args.suite)
        encode_frames(what, _show(bar))
        return
    if args.conditioning:
        from vlamem.sim.record.demonstrations import DemonstrationCollection, collect_demonstrations

        corrections = {} if args.memory == "none" else rollouts
        wanted = DemonstrationCollection(
            args.policy, episodes, args.out, args.workers, command=command, corrections=corrections, memory=args.memory
        )
        collect_demonstrations(wanted, _show(bar))
        return
    recording = FeatureCollection(
        args.policy, episodes, rollouts, args.out, args.workers, command, args.memory, args.suite
    )
    collect_features(recording, _show(bar))


def _show(bar: "tqdm[Any]") -> Callable[[int, int], None]:
    def progress(recorded: int, unsuccessful: int) -> None:
        bar.update(recorded + unsuccessful - bar.n)
        bar.set_postfix(unsuccessful=unsuccessful)

    return progress
