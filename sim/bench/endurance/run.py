"""What memory that outlives power loss costs in bytes written: the page docs/results/endurance.md.

Three arms play the same event stream, each in a process of its own, and make their memory durable before the next tick.
Bytes are those that the operating system sent to the device.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.bench import Page, Progress
from vlamem.core.pages import render
from vlamem.memory.weights import WeightsError, load_weights
from vlamem.sim.bench.endurance.arms import EPISODE, features, kill_and_recover
from vlamem.sim.bench.endurance.options import EnduranceBench
from vlamem.sim.bench.endurance.plots import written_over_ticks
from vlamem.sim.results.pages import Figure

TITLES = {"aura": "AURA, learned gate", "always": "the same memory, always writing", "kv": "growing KV log"}
"""Of the arms, in the order of the page."""


def shipped_weights() -> Path:
    """The trained gate of the synthetic benchmark that comes with vlamem."""
    with resources.as_file(resources.files("vlamem.memory.designs.aura") / "learned_gate.safetensors") as path:
        return path


def run(options: EnduranceBench, command: str, progress: Progress) -> Page:
    """Plays the arms at the same time, kills and recovers, draws the plot, and gives the page.

    Raises WeightsError when the weights do not fit, OSError when the operating system does not count bytes.
    """
    weights = options.weights or shipped_weights()
    if not weights.exists():
        raise WeightsError(f"{weights} is missing: 'vlamem bench synthetic' trains the gate, or name a file")
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        zs, events = features(options.ticks)
        np.save(folder / "stream.npy", zs)
        np.save(folder / "events.npy", events)
        arms = _played(folder, weights, progress.say)
        recovered = 0
        for i in range(options.kills):
            recovered += kill_and_recover(folder / f"kill{i}.journal", i, 0.02 + 0.01 * (i % 20))
        progress.say(f"recovered exactly after {recovered} of {options.kills} kills")
    if min(arm["bytes"] for arm in arms) == 0 and arms[0]["writes"]:
        raise OSError(
            f"{options.folder} is on a file system whose writes the operating system does not count: no figures can "
            "be had there, name another --folder"
        )
    options.page_folder.mkdir(parents=True, exist_ok=True)
    written_over_ticks(arms, options.page_folder / "endurance.png")
    header, _ = load_weights(weights)
    given = {"gate": header.command, "file_system": _file_system(options.folder)}
    return page_of(arms, recovered, options, given)


def _played(folder: Path, weights: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """What each arm did, in the order of TITLES."""
    words = [sys.executable, "-m", "vlamem.sim.bench.endurance.arms", "play"]
    running = [
        subprocess.Popen([*words, arm, str(folder), str(weights)], stdout=subprocess.PIPE, text=True) for arm in TITLES
    ]
    found = []
    for arm, child in zip(TITLES, running, strict=True):
        out, _ = child.communicate()
        if child.returncode != 0:
            for other in running:
                other.kill()
            raise OSError(f"arm {arm} ended with status {child.returncode}: its error is above")
        result = json.loads(out)
        report(f"{arm}: {result['writes']} writes, {result['bytes'] / 1e6:.1f} MB in {result['seconds']:.0f} s")
        found.append(result)
    return found


def _file_system(folder: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [m for m in mounts if folder.resolve().is_relative_to(m[1])]
    return max(inside, key=lambda m: len(m[1]))[2]


def page_of(arms: Sequence[dict[str, Any]], recovered: int, options: EnduranceBench, given: dict[str, Any]) -> Page:
    """The page of the arms, in the order of TITLES, and of how many kills left exactly the last persisted state."""
    aura, always, kv = arms
    figures = {
        "bytes_aura": Figure(aura["bytes"], options.ticks),
        "bytes_always": Figure(always["bytes"], options.ticks),
        "bytes_kv": Figure(kv["bytes"], options.ticks),
        "always_over_aura": Figure(always["bytes"] / max(1, aura["bytes"])),
        "kv_over_aura": Figure(kv["bytes"] / max(1, aura["bytes"])),
        "writes_aura": Figure.rate(aura["writes"], options.ticks),
        "p_write_event_aura": Figure.rate(aura["on_events"], aura["events"]),
        "recovered_after_kill": Figure.rate(recovered, options.kills),
    }
    text = render(
        "vlamem.sim.bench.endurance",
        "page.md.j2",
        arms=arms,
        aura=aura,
        titles=TITLES,
        options=options,
        episode=EPISODE,
        recovered=recovered,
    )
    return Page("endurance", text, figures, options.page_folder, given)
