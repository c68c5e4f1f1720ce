"""The bench of faults: each part in turn; figures are of what was measured."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlamem.core.bench import Page, Progress
from vlamem.core.pages import render
from vlamem.deploy.bench.processes import ServerProcess
from vlamem.sim.bench.faults.flips import Flips, flip
from vlamem.sim.bench.faults.fuzz import Fuzzed, fuzz_files, fuzz_wire, send_malformed, totals
from vlamem.sim.bench.faults.kill_controllers import kill_controllers
from vlamem.sim.bench.faults.kill_fits import kill_fits
from vlamem.sim.bench.faults.killed import Killed
from vlamem.sim.bench.faults.kills import kill_imports, kill_prunes, kill_recordings, kill_servers
from vlamem.sim.bench.faults.kinds import KINDS
from vlamem.sim.bench.faults.neighbour import beside_neighbours
from vlamem.sim.bench.faults.options import FaultsOptions, Sizes
from vlamem.sim.bench.faults.stalls import Stalls, measure_stalls
from vlamem.sim.bench.faults.start import start_seconds
from vlamem.sim.results.statistics import wilson95

_CHEAP = 5
"""So many times as often as those that simulate are killed those that begin quickly."""
_UPDATES = 300
"""Of a training that is killed: it takes longer than a checkpoint is apart from the next."""
_ROLLOUT = ("--tasks", "touch", "--policy", "tiny", "--episodes", "12", "--workers", "1")


class Measured(NamedTuple):
    """One figure: its value, what is behind it, its interval where it is a share."""

    value: float
    n: int | None
    ci95: tuple[float, float] | None = None


@dataclass
class Found:
    """What was measured; a part that a preset leaves out is empty or None.

    Attributes:
        flips: by kind of file.
        fuzzed: by reader.
        stalls: of the controller.
        killed: by verb.
        malformed, ended: messages to a server that ran, and servers that ended of them.
        p99_ms: of a robot's replies, alone and beside neighbours.
        start_s: processor time of reading labels, and of opening a memory.
    """

    flips: list[Flips] = field(default_factory=list)
    fuzzed: list[Fuzzed] = field(default_factory=list)
    stalls: Stalls | None = None
    killed: list[Killed] = field(default_factory=list)
    malformed: int = 0
    ended: int = 0
    p99_ms: tuple[float, float] | None = None
    start_s: tuple[float, float] | None = None


def run(options: FaultsOptions, command: str, progress: Progress) -> Page:
    """Measures everything, and gives the page. Raises BenchError when a process does not do its part."""
    folder = options.folder / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    with _quiet("vlamem.memory"):  # of samples it warns that they are small, or damaged
        found = measure(options, folder, progress.say)
    text = render("vlamem.sim.bench.faults", "page.md.j2", found=found, kinds=KINDS, sizes=options.sizes)
    return Page("faults", text, figures(found, options.sizes), options.page_folder, {"seed": options.seed})


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Nothing of a logger is printed inside; what listens below it still hears, and it is as it was afterwards."""
    logger, nowhere = logging.getLogger(name), logging.NullHandler()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)
        logger.propagate = before


def measure(options: FaultsOptions, folder: Path, say: Callable[[str], None]) -> Found:
    """Every part, one after the other. Raises BenchError when a process does not do its part."""
    sizes, found = options.sizes, Found()
    for kind in KINDS:
        if kind.sample is not None:
            place = folder / "flips" / kind.name.replace("/", "-").replace("*", "-")
            found.flips.append(flip(kind, place, sizes.flips, options.seed))
    say(f"flips: {sum(f.silent for f in found.flips)} read as something else")
    found.fuzzed = [fuzz_wire(sizes.fuzzed, options.seed), *fuzz_files(folder, sizes.fuzzed, options.seed)]
    say(f"fuzzed: {totals(found.fuzzed)[1]} tracebacks")
    found.start_s = start_seconds(folder / "start", sizes.labels, sizes.segments)
    say(f"start: {found.start_s[0]:.2f} and {found.start_s[1]:.2f} s")
    found.stalls = measure_stalls(folder / "stalls", sizes.stalls, sizes.longest_stall_s, options.seed)
    say(f"stalls: {found.stalls.stale} stale commands")
    for verb in options.verbs:
        if killed := _kill(verb, folder / verb, sizes.kills, options.seed, say):
            found.killed.append(killed)
            say(f"{verb}: {killed.survived} of {killed.kills} kills survived, {killed.lost} lost")
    if sizes.malformed:
        _abuse(options, folder / "abused", found)
        say(f"a server that runs: {found.malformed} wrong messages, p99 {found.p99_ms} ms")
    return found


def _kill(verb: str, folder: Path, kills: int, seed: int, say: Callable[[str], None]) -> Killed | None:
    if verb == "import":
        return kill_imports(folder, _CHEAP * kills, seed)
    if verb == "prune":
        return kill_prunes(folder, _CHEAP * kills, seed)
    if verb == "serve":
        return kill_servers(folder, _CHEAP * kills, seed, say)
    if verb == "control":
        return _kill_controllers(folder, kills, seed, say)
    if verb == "fit":
        return kill_fits(folder, min(kills, 10), _UPDATES, seed)
    if verb == "rollout":
        return kill_recordings(verb, _ROLLOUT, folder, "episodes.jsonl", min(kills, 10), seed)
    if verb == "collect":
        words = ("--features", "--tasks", "touch", "--episodes", "6", "--rollouts", "6", "--workers", "1")
        return kill_recordings(verb, words, folder, "episodes.jsonl", min(kills, 6), seed)
    raise ValueError(f"verb '{verb}': expected import, prune, rollout, collect, fit, serve or control")


def _kill_controllers(folder: Path, kills: int, seed: int, say: Callable[[str], None]) -> Killed:
    server = ServerProcess(["--policy", "tiny", "--memory", "aura", "--threads", "1"], folder / "server")
    try:
        server.start()
        labels = folder / "server" / "state" / "labels.jsonl"
        return kill_controllers(folder, f"ws://127.0.0.1:{server.port}", labels, kills, seed, say)
    finally:
        server.kill()


def _abuse(options: FaultsOptions, folder: Path, found: Found) -> None:
    server = ServerProcess(["--policy", "tiny", "--memory", "aura", "--threads", "1"], folder)
    try:
        server.start()
        uri = f"ws://127.0.0.1:{server.port}"
        found.malformed = send_malformed(uri, options.sizes.malformed, options.seed)
        found.p99_ms = beside_neighbours(uri, options.sizes.frames)
        began = (folder / "server.log").read_text(errors="replace").count("serving on")
        found.ended = began - 1
        server.stop()
    finally:
        server.kill()


def figures(found: Found, sizes: Sizes) -> dict[str, Measured]:
    """Every figure of the page; those that were not measured are left out."""
    flips, (fuzzed, tracebacks) = found.flips, totals(found.fuzzed)
    changed = sum(f.detected + f.harmless + f.silent + f.unnamed + f.tracebacks for f in flips)
    made = {
        "bitflips_undetected": Measured(sum(f.silent for f in flips), changed),
        "bitflips_unnamed": Measured(sum(f.unnamed for f in flips), changed),
        "bitflips_tracebacks": Measured(sum(f.tracebacks for f in flips), changed),
        "fuzzed": Measured(fuzzed + found.malformed, None),
        "fuzzed_unnamed": Measured(sum(f.unnamed for f in found.fuzzed), fuzzed),
        "fuzzed_tracebacks": Measured(tracebacks, fuzzed),
    }
    if found.killed:
        kills, survived = sum(k.kills for k in found.killed), sum(k.survived for k in found.killed)
        made["kills_survived"] = Measured(survived, kills)
        made["kills_survived_share"] = Measured(survived / kills, kills, wilson95(survived, kills))
        made["acknowledged_lost"] = Measured(
            sum(k.lost for k in found.killed), sum(k.acknowledged for k in found.killed)
        )
    if found.malformed:
        made["servers_ended"] = Measured(found.ended, found.malformed)
    if found.p99_ms:
        made["neighbour_p99_ratio"] = Measured(found.p99_ms[1] / found.p99_ms[0], None)
    if found.stalls:
        made["stale_commands"] = Measured(found.stalls.stale, found.stalls.commands)
        made["moved_after_stop"] = Measured(found.stalls.moved_after_stop, len(found.stalls.stop_ms))
        for name, times in (("stop_ms", found.stalls.stop_ms), ("silent_ms", found.stalls.silent_ms)):
            if times:
                made[f"{name}_p50"] = Measured(float(np.median(times)), len(times))
                made[f"{name}_p99"] = Measured(float(np.percentile(times, 99)), len(times))
    if found.start_s:
        made["start_labels_s"] = Measured(found.start_s[0], None)
        made["start_segments_s"] = Measured(found.start_s[1], None)
        if (sizes.labels, sizes.segments) == (300_000, 100_000):
            made["start_seconds_300k"] = Measured(sum(found.start_s), None)
    return {name: Measured(float(m.value), m.n, m.ci95) for name, m in made.items()}
