"""Success memories on disk: inspect, verify, export, import, prune, calibrate and plot them.

Example: vlamem memory info runs/kitchen.db
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from vlamem.scripts.config import complain, parse

if TYPE_CHECKING:
    from vlamem.memory.success import Layout, SuccessMemory, SuccessStore

COMMANDS = {
    "info": "origins, numbers of episodes and segments, calibration",
    "verify": "check every page, row and checksum, and the index against them; --salvage saves what can be read",
    "export": "write one origin's episodes into a safetensors file",
    "import": "store the episodes of a safetensors file or a LeRobotDataset",
    "prune": "delete segments down to a number",
    "calibrate": "measure the similarity from which on two states call for the same actions, plot and store it",
    "sync": "carry episodes to and from the PostgreSQL of a fleet of robots",
    "fleet": "make that database, let robots in, revoke or list them",
    "show": "plot stored trajectories and keys in two dimensions",
}
_USAGE = "usage: vlamem memory COMMAND FILE [options]\n\n{lines}\n\n{doc}"


@dataclass(frozen=True)
class Of:
    """One success memory."""

    file: tyro.conf.Positional[str]
    """Store of the memory: a path, or sqlite:PATH."""
    origin: int | None = None
    """Which origin, as numbered by 'info'; needed only where there are several."""


@dataclass(frozen=True)
class Verify(Of):
    """What to check."""

    salvage: Path | None = None
    """New database for what can still be read."""


@dataclass(frozen=True)
class Export(Of):
    """What to write."""

    to: Path = Path("memory.safetensors")
    """File to write."""


@dataclass(frozen=True)
class Import:
    """What to import."""

    file: tyro.conf.Positional[str]
    """Store, a path or sqlite:PATH; made when missing."""
    source: tyro.conf.Positional[Path]
    """An exported memory, or a LeRobotDataset (folder or hub id)."""
    admit: bool = False
    """Admit another policy's or robot's experience; it is kept apart."""
    policy: str = ""
    """Policy that the memory is for, needed for a LeRobotDataset: its encoder computes the keys."""
    stride: int = 8
    """Control steps between two segments of a LeRobotDataset, as between two plans."""
    all_succeed: bool = False
    """Take every episode of a LeRobotDataset for a success; by its next.success otherwise."""
    observation: Literal["", "libero"] = ""
    """How the observations of a LeRobotDataset are read: libero for lerobot's LIBERO and a policy of this project."""
    reward_succeeds: bool = False
    """Take a last next.reward above 0 for a success; a reward alone says nothing otherwise, it may be a shaped one."""


@dataclass(frozen=True)
class Prune(Of):
    """What to delete."""

    most: int = 0
    """Segments of successes that stay, and again of failures."""
    eviction: str = "utility"
    """Policy that chooses which go: utility, fifo or random."""
    dry_run: bool = False
    """Print how many would go, delete nothing."""


@dataclass(frozen=True)
class Calibrate(Of):
    """How to calibrate."""

    reach: float = 0.5
    """Warped distance per step within which two chunks are alike [action units]."""
    precision: float = 0.9
    """Share of pairs of states above the threshold whose chunks are alike."""
    plot: Path | None = None
    """PNG of the two distributions; beside the database when not given."""
    seed: int = 0
    """Of the pairs that are drawn, where there are too many."""


@dataclass(frozen=True)
class Show(Of):
    """What to plot."""

    plot: Path | None = None
    """PNG; beside the database when not given."""
    episodes: int = 40
    """Most trajectories to plot, the newest."""


def main(arguments: list[str]) -> int:
    """Runs `vlamem memory COMMAND`. 0: done. 1: 'verify' found damage. 2: wrong input."""
    lines = "\n".join(f"  {name:<10} {line}" for name, line in COMMANDS.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE.format(lines=lines, doc=(__doc__ or "").strip()))
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(COMMANDS)}"
        print(f"vlamem memory: unknown command '{name}': {hint}", file=sys.stderr)
        return 2
    return int(globals()[f"_{name}"](rest))


def _opened(given: Of, writes: bool = False, calibrated: bool = True) -> "SuccessMemory":
    """The memory of the given origin, `calibrated` by what it stores or not, where nothing is written unless it
    `writes`. Raises StoreError when it is missing, or one of several and not chosen."""
    from vlamem.memory.success import MemoryOptions, StoreError, SuccessMemory, open_store

    store = open_store(given.file, read_only=True)
    origins = store.origins()
    store.close()
    if not origins:
        raise StoreError(f"{given.file} is empty: no episode was ever stored in it")
    chosen = [o for o in origins if given.origin in (None, o[0])]
    if len(chosen) != 1:
        known = ", ".join(f"{i} ({o.robot})" for i, o, _ in origins)
        raise StoreError(f"{given.file} holds origins {known}: choose one with --origin")
    options = MemoryOptions(calibrated=calibrated, read_only=not writes)
    return SuccessMemory(given.file, chosen[0][1], chosen[0][2], options)


def _beside(file: str, ending: str) -> Path:
    """A file beside the store, named after it."""
    from vlamem.memory.success.store import split_address

    location = Path(split_address(file)[1])
    return location.with_name(f"{location.stem}{ending}")


def _info(arguments: list[str]) -> int:
    from vlamem.memory.success import open_store

    given = parse(Of, "memory info", arguments, COMMANDS["info"])
    store = open_store(given.file, read_only=True)
    print(f"{given.file}: {store.bytes() / 1e6:.2f} MB, {len(store.instructions())} instructions")
    for number, origin, layout in store.origins():
        counts = store.counts(number)
        print(
            f"origin {number}: policy {origin.policy}, weights {origin.weights}, normaliser {origin.normaliser}, "
            f"robot {origin.robot}\n"
            f"  keys of {layout.key_size}, proprioception of {layout.proprioception_size}, chunks of "
            f"{layout.horizon} x {layout.action_size}\n"
            f"  successes: {counts['success_episodes']} episodes, {counts['success_segments']} segments; "
            f"failures: {counts['failure_episodes']} episodes, {counts['failure_segments']} segments; "
            f"trials of a residual prior: {counts['trials']}"
        )
        if counts["trials"]:
            print(f"  {_known(store, number, layout)}")
        body = store.calibration(number)
        if body is None:
            print("  not calibrated: 'vlamem memory calibrate' measures its threshold")
        else:
            from vlamem.memory.success import Calibration

            found = Calibration.from_json(body)
            print(
                f"  calibrated: threshold {found.threshold:.5f}, precision {found.precision:.3f} on {found.pairs} pairs"
            )
    store.close()
    return 0


def _known(store: "SuccessStore", origin: int, layout: "Layout") -> str:
    """What the trials of an origin say of the next one, in a line."""
    from vlamem.memory.success.retrieve import ResidualOptions, residual_prior

    found = residual_prior(store.trials(origin), layout, ResidualOptions(), explore=False)
    if not found.offset.any():
        return f"no correction: {found.why}"
    offset = ", ".join(f"{x:+.2f}" for x in found.offset if x)
    return (
        f"correction {offset}: {100 * found.expected:.0f} % of trials are expected to be verified with it, "
        f"{100 * found.alone:.0f} % without"
    )


def _verify(arguments: list[str]) -> int:
    from vlamem.memory.success import StoreDamagedError
    from vlamem.memory.success.store import SALVAGERS, split_address

    given = parse(Verify, "memory verify", arguments, COMMANDS["verify"])
    try:
        with _opened(given) as memory:
            print(f"{given.file}: {memory.verify()} segments, all as they were written")
        status = 0
    except StoreDamagedError as error:
        complain("memory verify", str(error))
        status = 1
    if given.salvage is not None:
        scheme, location = split_address(given.file)
        saved = SALVAGERS.get(scheme)(location, given.salvage)
        print(
            f"{given.salvage}: {saved.segments} segments of {saved.episodes} episodes and {saved.trials} trials saved, "
            f"{len(saved.lost)} segments lost"
            + " (trials after these cannot be read)" * saved.trials_cut
            + (
                f" (ids {', '.join(map(str, saved.lost[:20]))}{', ...' if len(saved.lost) > 20 else ''})"
                * bool(saved.lost)
            )
        )
    return status


def _export(arguments: list[str]) -> int:
    from vlamem.memory.success.store import export

    given = parse(Export, "memory export", arguments, COMMANDS["export"])
    with _opened(given) as memory:
        count, trials = export(memory.store, memory.origin, given.to), len(memory.store.trials(memory.origin))
        print(f"{given.to}: {count} segments, {trials} trials")
    return 0


def _import_dataset(given: Import) -> int:
    import time

    from vlamem.memory.success.runner import open_success
    from vlamem.policies.lerobot.dataset import DatasetReader
    from vlamem.policies.lerobot.dataset_learning import commit_dataset
    from vlamem.policies.registry import find_policy, load_policy, weights_hash

    if not given.policy:
        raise ValueError("a LeRobotDataset has no keys of its own: name the policy that computes them with --policy")
    if given.all_succeed and given.reward_succeeds:
        raise ValueError("--all-succeed and --reward-succeeds say two things about success: leave one of them out")
    source = find_policy(given.policy)
    policy = load_policy(source)
    view = None
    if given.observation:
        from vlamem.sim.suites.libero.from_lerobot import LiberoView

        view = LiberoView(policy.spec.image_size)
    success: bool | Literal["reward"] | None = True if given.all_succeed else None
    reader = DatasetReader(str(given.source), "reward" if given.reward_succeeds else success, view)
    with open_success(given.file, policy, weights_hash(policy, source), admit=given.admit).memory as memory:
        stored, left = commit_dataset(reader, policy, memory, given.stride, time.time())
    print(f"{given.file}: {stored} episodes stored, {left} left out (failed, of unknown outcome, or unusable)")
    return 0


def _import(arguments: list[str]) -> int:
    from vlamem.memory.success.store import import_snapshot, open_store, read_snapshot

    given = parse(Import, "memory import", arguments, COMMANDS["import"])
    if given.source.suffix != ".safetensors" and not given.source.is_file():
        return _import_dataset(given)
    read_snapshot(given.source)  # before a database is made for nothing
    store = open_store(given.file)
    try:
        done = import_snapshot(store, given.source, admit=given.admit)
    finally:
        store.close()
    print(f"{given.file}: {done.segments} segments stored, {done.known} episodes were there and stay as they are")
    return 0


def _prune(arguments: list[str]) -> int:
    import numpy as np

    from vlamem.memory.success.lifecycle.capacity import victims

    given = parse(Prune, "memory prune", arguments, COMMANDS["prune"])
    with _opened(given, writes=not given.dry_run) as memory:
        gone = np.concatenate(
            [
                victims(index, len(index) - given.most, given.eviction, memory.retrieve.threshold)
                for index in (memory.successes, memory.failures)
            ]
        )
        if not given.dry_run:
            memory.prune(gone)
        left = len(memory.successes) + len(memory.failures)
        print(f"{given.file}: {len(gone)} segments {'would go' if given.dry_run else 'deleted'}, {left} are there")
    return 0


def _calibrate(arguments: list[str]) -> int:
    import numpy as np

    from vlamem.memory.success import calibrate
    from vlamem.memory.success.plots import plot_calibration

    given = parse(Calibrate, "memory calibrate", arguments, COMMANDS["calibrate"])
    with _opened(given, writes=True, calibrated=False) as memory:  # one that cannot be used is replaced, too
        stored = [s for s in memory.store.segments(memory.origin) if s.outcome == "success"]
        layout = memory.layout
        found = calibrate(
            layout,
            np.array([s.segment.key for s in stored]).reshape(-1, layout.key_size),
            np.array([s.segment.proprioception for s in stored]).reshape(-1, layout.proprioception_size),
            np.array([s.segment.chunk for s in stored]).reshape(-1, layout.horizon, layout.action_size),
            [s.episode for s in stored],
            [s.instruction for s in stored],
            given.reach,
            given.precision,
            seed=given.seed,
        )
        memory.recalibrate(found)
    path = plot_calibration(found, given.plot or _beside(given.file, "-calibration.png"))
    keys = "as they are" if found.centre is None else "centred"
    print(
        f"threshold {found.threshold:.5f}, keys {keys}, proprioception weighs {found.proprioception_weight:g}: "
        f"{100 * found.precision:.1f} % of pairs above it are alike, {100 * found.coverage:.1f} % of alike pairs are "
        f"above it ({found.pairs} pairs, {found.alike} alike)\n{path}"
    )
    if found.precision < given.precision:
        complain("memory calibrate", f"no threshold reaches a precision of {given.precision}: store more episodes")
    return 0


def _sync(arguments: list[str]) -> int:
    from vlamem.scripts.memory_sync import sync

    return sync(arguments, COMMANDS["sync"])


def _fleet(arguments: list[str]) -> int:
    from vlamem.scripts.memory_sync import fleet

    return fleet(arguments, COMMANDS["fleet"])


def _show(arguments: list[str]) -> int:
    from vlamem.memory.success.plots import plot_memory

    given = parse(Show, "memory show", arguments, COMMANDS["show"])
    with _opened(given) as memory:
        path = plot_memory(memory, given.plot or _beside(given.file, ".png"), given.episodes)
    print(path)
    return 0
