"""Arms of the bench: the fitted gate, what it is compared with, and what is done to it."""

from vlamem.sim.bench.memory_panel.arms import PanelArm

FITTED = "fitted"
SAME_RATE = ("random", "periodic")
"""Gates that write as often as the fitted one did in closed loop; they are played after it."""

ARMS = (
    PanelArm(FITTED, "fitted to demonstrations", "GATE", skills=True, main=True),
    PanelArm("alone", "policy alone", "none", skills=True, main=True),
    PanelArm("oracle", "oracle instruction", "oracle", main=True),
    PanelArm("sentences", "trained on answering sentences", "aura"),
    PanelArm("other", "fitted, memory of another episode", "GATE", {"ablation": "swap"}),
    PanelArm("random", "fitted, random writes at its rate", "GATE?gate=random"),
    PanelArm("periodic", "fitted, periodic writes at its rate", "GATE?gate=periodic"),
)
