"""AURA-Mem and its controls on a frozen policy in closed loop; writes docs/results/memory_panel.md, resumable by arm.

Controls are trained once, into OUT/controls, beside a mark of the gate and of what they were trained with; with another
gate, rate or training they are refused. Those without a mark are taken when their own files name the same training.

Example: vlamem bench memory-panel --features data/features --workers 2
         vlamem bench memory-panel --arms alone aura oracle --tasks recall_colour --episodes 20
         vlamem bench memory-panel --arms aura --extra delay chunk --page memory_panel_axes --add-to memory_panel
         vlamem bench memory-panel --preset smoke
"""

import shlex

from vlamem.scripts.bars import play_with_bar
from vlamem.scripts.config import load_config
from vlamem.sim.bench.memory_panel.options import PanelOptions


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    options = load_config(PanelOptions, "bench memory-panel", arguments, __doc__ or "").sized()
    from vlamem.sim.bench.memory_panel.run import run

    command = shlex.join(["vlamem", "bench", "memory-panel", *arguments])
    return play_with_bar("bench memory-panel", lambda begin, progress: run(options, command, begin, progress))
