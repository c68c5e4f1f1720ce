"""AURA-Mem and its controls on a frozen policy in closed loop; writes docs/results/memory_panel.md, resumable by arm.

Example: vlamem bench memory-panel --features data/features --workers 2
         vlamem bench memory-panel --arms alone aura oracle --tasks recall_colour --episodes 20
         vlamem bench memory-panel --preset smoke
"""

import shlex

from tqdm import tqdm

from vlamem.scripts.config import complain, load_config
from vlamem.sim.bench.memory_panel_options import PanelOptions


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    options = load_config(PanelOptions, "bench_memory_panel", arguments, __doc__ or "").sized()
    from vlamem.sim.bench.memory_panel import PanelStoppedError, run
    from vlamem.sim.recording import EpisodeRecord

    command = shlex.join(["vlamem", "bench", "memory-panel", *arguments])
    with tqdm(unit="episode") as bar:

        def begin(title: str, done: int, planned: int) -> None:
            bar.reset(planned)
            bar.set_description(title)
            bar.update(done)

        def progress(record: EpisodeRecord) -> None:
            bar.update()

        try:
            page, twin = run(options, command, begin, progress)
        except PanelStoppedError as error:
            complain("bench memory-panel", f"{error}; the same command continues")
            return 1
    print(f"{page}\n{twin}")
    return 0
