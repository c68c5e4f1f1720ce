"""What the transfer bench compares."""

from dataclasses import replace

from vlamem.sim.bench.deployment.arms import MAIN, Arm, Verification
from vlamem.sim.bench.transfer.options import TransferBench

POLICY, ELITE = (replace(arm, title=title) for arm, title in zip(MAIN, ("policy alone", "elite prior"), strict=False))
"""As in the deployment bench; the elite prior verifies by the critic."""


def main_arms(bench: TransferBench) -> tuple[Arm, ...]:
    """Played under every condition."""
    return POLICY, _residual("residual", "residual prior", "predicate", bench)


def control_arms(bench: TransferBench) -> tuple[Arm, ...]:
    """Those of the bench's control arms, played under the conditions of the controls."""
    known = {
        "critic": _residual("critic", "residual prior, verified by the critic", "critic", bench),
        "unverified": _residual("unverified", "residual prior, every trial passed", "none", bench),
        "elite": ELITE,
    }
    return tuple(known[name] for name in bench.control_arms)


def _residual(name: str, title: str, verification: Verification, bench: TransferBench) -> Arm:
    return Arm(name, title, verification=verification, prior="residual", explore=bench.explore)
