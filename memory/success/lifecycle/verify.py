"""Who says that an episode succeeded. Nothing is stored without a verifier's word.

Published: unverified memory takes 92.4 down to 87.6, verified lifts it to 94.4 (Retrieve-then-Steer).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from vlamem.memory.success.lifecycle.critic import ProgressCritic
    from vlamem.memory.success.lifecycle.recorder import Trace


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of an episode.

    Attributes:
        outcome: "unknown" stores nothing.
        verifier: its name.
        confidence: 0 to 1.
        peak: number of actions after which progress was highest; what came later is not stored.
        progress: [T + 1], before the first action and after each, 0 to 1.
    """

    outcome: Literal["success", "failure", "unknown"]
    verifier: str
    confidence: float
    peak: int
    progress: Float[np.ndarray, "T1"]


class Verifier(Protocol):
    """Judges a finished episode."""

    def verify(self, trace: "Trace", success: bool | None = None) -> Verdict:
        """The verdict; `success` is what the environment or an operator says, None when no one does."""
        ...


def time_to_success(length: int, peak: int) -> Float[np.ndarray, "T1"]:
    """Progress where nothing else is known of a success: the share of the time until its peak, 1 from there on."""
    return np.minimum(np.arange(length + 1) / max(1, peak), 1.0)


def _of_word(name: str, confidence: float, trace: "Trace", success: bool | None) -> Verdict:
    length = len(trace.actions)
    if success is None:
        return Verdict("unknown", name, 0.0, 0, np.zeros(length + 1))
    if success:
        return Verdict("success", name, confidence, length, time_to_success(length, length))
    return Verdict("failure", name, confidence, 0, np.zeros(length + 1))


class PredicateVerifier:
    """The simulator's own check of success, which ends the episode; progress is time to success."""

    def verify(self, trace: "Trace", success: bool | None = None) -> Verdict:
        """Raises nothing; without a word of the simulator the outcome is unknown."""
        return _of_word("predicate", 1.0, trace, success)


class OperatorVerifier:
    """A person's label. Without a label the episode is not stored.

    Attributes:
        confidence: how far the label is trusted, 0 to 1.
        name: of the operator, kept with the episode.
    """

    def __init__(self, confidence: float = 1.0, name: str = "operator") -> None:
        self.confidence, self.name = confidence, name

    def verify(self, trace: "Trace", success: bool | None = None) -> Verdict:
        """As labelled; unknown without a label."""
        return _of_word(self.name, self.confidence, trace, success)


class CriticVerifier:
    """A learned progress critic: success when progress reaches its calibrated threshold, stored up to the peak.

    Attributes:
        critic: trained for this policy.
        failures: whether episodes far below the threshold are stored as failures.
    """

    def __init__(self, critic: "ProgressCritic", failures: bool = True) -> None:
        self.critic, self.failures = critic, failures

    def verify(self, trace: "Trace", success: bool | None = None) -> Verdict:
        """Reads the trace alone: what the environment says is not looked at."""
        length = len(trace.actions)
        if not trace.seen or not length:
            return Verdict("unknown", "critic", 0.0, 0, np.zeros(length + 1))
        ticks = np.array([s.tick for s in trace.seen])
        told = self.critic.progress(
            np.stack([s.key for s in trace.seen]), np.stack([s.proprioception for s in trace.seen])
        )
        progress = np.interp(np.arange(length + 1), ticks, told)
        peak = int(ticks[np.argmax(told)])
        if told.max() >= self.critic.threshold and peak > 0:
            return Verdict("success", "critic", float(self.critic.precision), peak, progress)
        if self.failures and told.max() < self.critic.failure_threshold:
            return Verdict("failure", "critic", 1.0 - float(told.max()), 0, progress)
        return Verdict("unknown", "critic", 0.0, peak, progress)


class TrustAll:
    """Takes every episode for a success: the unverified control arm, for benchmarks alone."""

    def verify(self, trace: "Trace", success: bool | None = None) -> Verdict:
        """Success, whatever happened."""
        return _of_word("none", 0.0, trace, True)
