"""AURA-Mem and its controls on a frozen policy in closed loop; writes docs/results/memory_panel.md, resumable by arm.

Example: vlamem bench memory-panel --features data/features --workers 2
         vlamem bench memory-panel --arms alone aura oracle --tasks recall_colour --episodes 20
         vlamem bench memory-panel --preset smoke
"""

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from vlamem.scripts.config import complain, load_config


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench memory-panel`."""

    preset: Literal["full", "smoke"]
    """smoke: two tasks, three arms and two episodes of each, about a minute, to show that everything runs."""
    policy: str
    """tiny (shipped) or a .safetensors file."""
    gate: str
    """shipped, or a weights file of 'vlamem train-gate'."""
    features: tuple[Path, ...]
    """Recordings to train the controls on; without any, controls that are trained are left out."""
    tasks: tuple[str, ...]
    """Memory tasks, and skills as a control that nothing is harmed."""
    arms: tuple[str, ...]
    """Names of arms; all when none is given."""
    episodes: int
    """Episodes a task of the main arms: alone, aura, oracle, always."""
    fewer: int
    """Episodes a task of the other arms."""
    extra: tuple[str, ...]
    """Axes: delay, chunk, noise."""
    axis_baselines: tuple[str, ...]
    """Arms that are played on the axes beside AURA-Mem."""
    updates: int
    """Training updates of each control."""
    out: Path
    """Run folders of the arms; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    workers: int
    """Processes."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    from vlamem.sim.bench.memory_panel import PanelOptions, PanelStoppedError, run
    from vlamem.sim.recording import EpisodeRecord

    args = load_config(Args, "bench_memory_panel", arguments, __doc__ or "")
    if args.preset == "smoke":
        args = replace(
            args, tasks=("recall_colour", "touch"), arms=("alone", "aura", "oracle"), episodes=2, fewer=2, extra=()
        )
    command = shlex.join(["vlamem", "bench", "memory-panel", *arguments])
    given = {f.name: getattr(args, f.name) for f in fields(args) if f.name != "preset"}
    with tqdm(unit="episode") as bar:

        def begin(title: str, done: int, planned: int) -> None:
            bar.reset(planned)
            bar.set_description(title)
            bar.update(done)

        def progress(record: EpisodeRecord) -> None:
            bar.update()

        try:
            page, twin = run(PanelOptions(**given, command=command), begin, progress)
        except PanelStoppedError as error:
            complain("bench memory-panel", f"{error}; the same command continues")
            return 1
    print(f"{page}\n{twin}")
    return 0
