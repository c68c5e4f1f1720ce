"""Verifiers: who judges whether an episode succeeded. Nothing is stored without a verdict.

Published: unverified memory takes 92.4 down to 87.6, verified lifts it to 94.4 (Retrieve-then-Steer).
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlamem.memory.success.experience.trace import Trace, Verdict

if TYPE_CHECKING:
    from vlamem.memory.success.lifecycle.critic import ProgressCritic


@runtime_checkable
class Verifier(Protocol):
    """Judges a finished episode."""

    def verify(self, trace: Trace, success: bool | None = None) -> Verdict:
        """The verdict; `success` is what the environment or an operator reports, None when neither does."""
        ...


def time_to_success(length: int, peak: int) -> Float[np.ndarray, "T1"]:
    """Progress where nothing else is known of a success: the share of the time until its peak, 1 from there on."""
    return np.minimum(np.arange(length + 1) / max(1, peak), 1.0)


def _reported(name: str, confidence: float, trace: Trace, success: bool | None) -> Verdict:
    length = len(trace.actions)
    if success is None:
        return Verdict("unknown", name, 0.0, 0, np.zeros(length + 1))
    if success:
        return Verdict("success", name, confidence, length, time_to_success(length, length))
    return Verdict("failure", name, confidence, 0, np.zeros(length + 1))


class PredicateVerifier:
    """The environment's own success predicate, which ends the episode; progress is time to success."""

    def verify(self, trace: Trace, success: bool | None = None) -> Verdict:
        """As the environment reports; unknown when it reports nothing."""
        return _reported("predicate", 1.0, trace, success)


class OperatorVerifier:
    """A person's label. Without a label the episode is not stored.

    Attributes:
        confidence: how far the label is trusted, 0 to 1.
        name: of the operator, kept with the episode.
    """

    def __init__(self, confidence: float = 1.0, name: str = "operator") -> None:
        self.confidence, self.name = confidence, name

    def verify(self, trace: Trace, success: bool | None = None) -> Verdict:
        """As labelled; unknown without a label."""
        return _reported(self.name, self.confidence, trace, success)


class CriticVerifier:
    """A learned progress critic: success when progress reaches its calibrated threshold, stored up to the peak.

    Attributes:
        critic: trained for this policy.
        failures: whether episodes far below the threshold are stored as failures.
    """

    def __init__(self, critic: "ProgressCritic", failures: bool = True) -> None:
        self.critic, self.failures = critic, failures

    def verify(self, trace: Trace, success: bool | None = None) -> Verdict:
        """Judges the trace alone; `success` is ignored."""
        length = len(trace.actions)
        if not trace.observations or not length:
            return Verdict("unknown", "critic", 0.0, 0, np.zeros(length + 1))
        ticks = np.array([o.tick for o in trace.observations])
        estimated = self.critic.progress(
            np.stack([o.key for o in trace.observations]), np.stack([o.proprioception for o in trace.observations])
        )
        progress = np.interp(np.arange(length + 1), ticks, estimated)
        peak = int(ticks[np.argmax(estimated)])
        if estimated.max() >= self.critic.threshold and peak > 0:
            return Verdict("success", "critic", float(self.critic.precision), peak, progress)
        if self.failures and estimated.max() < self.critic.failure_threshold:
            return Verdict("failure", "critic", 1.0 - float(estimated.max()), 0, progress)
        return Verdict("unknown", "critic", 0.0, peak, progress)


class TrustAll:
    """Takes every episode for a success: the unverified control arm, for benchmarks alone."""

    def verify(self, trace: Trace, success: bool | None = None) -> Verdict:
        """Success, whatever happened."""
        return _reported("none", 0.0, trace, True)
