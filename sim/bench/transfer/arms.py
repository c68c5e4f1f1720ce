"""What the transfer bench compares."""

from dataclasses import replace

from vlamem.sim.bench.deployment.arms import MAIN, Arm
from vlamem.sim.bench.transfer.options import TransferBench

POLICY, ELITE = (replace(arm, title=title) for arm, title in zip(MAIN, ("policy alone", "elite prior"), strict=False))
"""As in the deployment bench."""


def main_arms(bench: TransferBench) -> tuple[Arm, ...]:
    """Played under every condition."""
    return POLICY, Arm("residual", "residual prior", prior="residual", explore=bench.explore)


def control_arms(bench: TransferBench) -> tuple[Arm, ...]:
    """Played under the conditions of the controls: the elite prior, and a residual prior whose verifier passes every
    trial, so that outcomes tell it nothing."""
    title = "residual prior, every trial passed"
    unverified = Arm("unverified", title, verification="none", prior="residual", explore=bench.explore)
    return ELITE, unverified
