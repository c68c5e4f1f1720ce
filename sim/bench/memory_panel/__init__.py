"""AURA-Mem and its controls in closed loop."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.memory_panel.options import PanelOptions

BENCH = Bench(
    name="memory-panel",
    summary="AURA-Mem and its controls on a frozen policy in closed loop",
    description="""\
AURA-Mem and its controls on a frozen policy in closed loop; writes docs/results/memory_panel.md, resumable by arm.

Controls are trained once, into OUT/controls, beside a mark of the gate and of what they were trained with; with another
gate, rate or training they are refused. Those without a mark are taken when their own files name the same training.

Example: vlamem bench memory-panel --features data/features --workers 2
         vlamem bench memory-panel --arms alone aura oracle --tasks recall_colour --episodes 20
         vlamem bench memory-panel --arms aura --extra delay chunk --page memory_panel_axes --add-to memory_panel
         vlamem bench memory-panel --preset smoke""",
    options=PanelOptions,
    run="vlamem.sim.bench.memory_panel.run:run",
)

__all__ = ["BENCH", "PanelOptions"]
