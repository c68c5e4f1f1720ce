"""An episode as it happened, and what a verifier judged it to be."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from vlamem.memory.success.experience.episode import Segment
from vlamem.memory.success.experience.layout import Layout


@dataclass(frozen=True)
class EncodedObservation:
    """What the policy saw before an action.

    Attributes:
        tick: control step, the number of actions before it.
        key: [K], of the policy's encoding.
        proprioception: [P].
        planned: [H, A], the chunk that the policy planned here; None when it planned none.
    """

    tick: int
    key: Float[np.ndarray, "K"]
    proprioception: Float[np.ndarray, "P"]
    planned: Float[np.ndarray, "H A"] | None


@dataclass(frozen=True)
class Trace:
    """An episode as it happened.

    Attributes:
        identity, instruction, meaning: as in Episode.
        observations: at every re-plan, and the last one after the end when it was encoded.
        actions: [T, A], executed.
        used: ids of the stored segments that retrieved priors were made of.
        offset: [A], what was added to what the policy proposed; None where that is not known or changed between plans.
    """

    identity: str
    instruction: str
    meaning: Float[np.ndarray, "C"] | None
    observations: tuple[EncodedObservation, ...]
    actions: Float[np.ndarray, "T A"]
    used: Int[np.ndarray, "U"]
    offset: Float[np.ndarray, "A"] | None = None

    def segments(self, layout: Layout, progress: Float[np.ndarray, "T1"], first: int, last: int) -> tuple[Segment, ...]:
        """Segments that begin at an observation from tick `first` to before `last`.

        Nothing executed from `last` on is kept: there a chunk goes on as it was planned, and where no plan is known the
        segment is left out.
        """
        found = []
        for seen in self.observations:
            if not first <= seen.tick < last:
                continue
            chunk = self.actions[seen.tick : min(last, seen.tick + layout.horizon)]
            missing = layout.horizon - len(chunk)
            if missing:
                if seen.planned is None:
                    continue
                chunk = np.concatenate([chunk, seen.planned[-missing:]])
            found.append(
                Segment(
                    seen.tick,
                    float(progress[seen.tick]),
                    seen.key,
                    seen.proprioception,
                    np.asarray(chunk, np.float32),
                )
            )
        return tuple(found)


@dataclass(frozen=True)
class Verdict:
    """What a verifier judged an episode to be.

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

    @property
    def success(self) -> bool | None:
        """True or False as judged; None where the outcome is unknown."""
        return None if self.outcome == "unknown" else self.outcome == "success"
