"""A memory that says nothing says why: at opening, and once after many abstentions in a row."""

import logging
from collections.abc import Sequence

import numpy as np

from vlamem.memory.success.retrieve.prior import Prior

_LOG = logging.getLogger(__name__)
FEW = 10
"""Segments below which a memory is unlikely to have something like the present state."""
PATIENCE = 50
"""Abstentions in a row after which the reason is told."""


def opening_note(name: str, segments: int, calibrated: bool, threshold: float) -> str:
    """What will happen with a memory that is hardly ready, in one line; "" for one that is."""
    found = []
    if segments < FEW:
        found.append(
            f"holds {segments} segments of successes: it abstains until an episode near the present state was verified"
        )
    if not calibrated:
        found.append(
            f"has no calibration: it speaks from the default similarity of {threshold:.4g}, which was not measured for "
            "this policy; run 'vlamem memory calibrate' when it has some episodes"
        )
    return f"success memory {name} " + "; it ".join(found) if found else ""


class AbstentionWatch:
    """Counts decisions in a row without a proposal; the first time that they are PATIENCE it tells why."""

    def __init__(self, name: str) -> None:
        self._name, self._silent, self._nearest, self._told = name, 0, -np.inf, False

    def saw(self, priors: Sequence[Prior], segments: int, threshold: float) -> None:
        """Takes the priors of one decision."""
        for prior in priors:
            if prior.chunk is not None:
                self._silent, self._nearest = 0, -np.inf
                continue
            self._silent += 1
            self._nearest = max(self._nearest, prior.similarity)
            if self._silent >= PATIENCE and not self._told:
                self._told = True
                _LOG.warning(self._why(prior, segments, threshold))

    def _why(self, prior: Prior, segments: int, threshold: float) -> str:
        said = f"success memory {self._name} has abstained {self._silent} times in a row: "
        if not segments or self._nearest == -np.inf:
            return said + f"none of its {segments} segments is a success of this instruction"
        if prior.why == "disagree":
            return said + "what succeeded near this state disagrees"
        return said + (
            f"the nearest of its {segments} segments has similarity {self._nearest:.4f}, it speaks from "
            f"{threshold:.4f} on; in states that do not recur a residual prior (?prior=residual) can help"
        )
