"""Records an episode as it happens, and cuts what may be stored of it."""

import uuid
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from vlamem.memory.success.experience.episode import Episode
from vlamem.memory.success.experience.layout import Layout
from vlamem.memory.success.experience.trace import EncodedObservation, Trace, Verdict

FAILURE_SEGMENTS = 4
"""Last segments before a failure that are kept."""


def verified_episode(
    trace: Trace, verdict: Verdict, layout: Layout, made: float, failure_segments: int = FAILURE_SEGMENTS
) -> Episode | None:
    """What may be stored of an episode under a verdict; None when nothing may.

    Of a success the prefix up to the progress peak; of a failure the last segments before its end.

    Args:
        trace: of the episode.
        verdict: on it.
        layout: of the memory that it is for.
        made: time of the episode [s since 1970].
        failure_segments: how many of the last segments before a failure are kept.
    """
    if verdict.outcome == "unknown" or not len(trace.actions):
        return None
    if verdict.outcome == "success":
        segments = trace.segments(layout, verdict.progress, 0, verdict.peak)
    else:
        segments = trace.segments(layout, verdict.progress, 0, len(trace.actions))[-failure_segments:]
    if not segments:
        return None
    return Episode(
        trace.identity,
        trace.instruction,
        verdict.outcome,
        verdict.verifier,
        verdict.confidence,
        made,
        segments,
        trace.meaning,
    )


@dataclass
class EpisodeRecorder:
    """Records one robot; in a vectorised run there is one for each row.

    Attributes:
        layout: sizes of what is recorded.
        failure_segments: how many of the last segments before a failure are kept.
    """

    layout: Layout
    failure_segments: int = FAILURE_SEGMENTS
    _identity: str = field(default="", init=False)
    _instruction: str = field(default="", init=False)
    _meaning: Float[np.ndarray, "C"] | None = field(default=None, init=False)
    _observations: list[EncodedObservation] = field(default_factory=list, init=False)
    _actions: list[np.ndarray] = field(default_factory=list, init=False)
    _used: list[np.ndarray] = field(default_factory=list, init=False)
    _offsets: list[np.ndarray] = field(default_factory=list, init=False)

    def begin(
        self, instruction: str, identity: str | None = None, meaning: Float[np.ndarray, "C"] | None = None
    ) -> None:
        """Forgets the episode before and begins another; a random identity is drawn when none is given."""
        self._identity, self._instruction, self._meaning = identity or uuid.uuid4().hex, instruction, meaning
        self._observations, self._actions, self._used, self._offsets = [], [], [], []

    def observe(
        self,
        key: Float[np.ndarray, "K"],
        proprioception: Float[np.ndarray, "P"],
        planned: Float[np.ndarray, "H A"] | None = None,
        used: Int[np.ndarray, "U"] | None = None,
        offset: Float[np.ndarray, "A"] | None = None,
    ) -> None:
        """What the policy sees before the next action, the chunk it plans now, the stored segments behind it, and what
        was added to what the policy proposed, where that is known."""
        plan = None if planned is None else np.array(planned, np.float32)
        self._observations.append(
            EncodedObservation(
                len(self._actions), np.array(key, np.float32), np.array(proprioception, np.float32), plan
            )
        )
        if used is not None:
            self._used.append(np.asarray(used, np.int64))
        if offset is not None:
            self._offsets.append(np.asarray(offset, np.float64))

    def act(self, action: Float[np.ndarray, "A"]) -> None:
        """The action that was executed, in the policy's normalised action space."""
        self._actions.append(np.array(action, np.float32))

    def trace(self) -> Trace:
        """The episode until now."""
        actions = np.stack(self._actions) if self._actions else np.zeros((0, self.layout.action_size), np.float32)
        used = np.unique(np.concatenate(self._used)) if self._used else np.zeros(0, np.int64)
        one = all((offset == self._offsets[0]).all() for offset in self._offsets)
        offset = self._offsets[0] if self._offsets and one else None
        return Trace(self._identity, self._instruction, self._meaning, tuple(self._observations), actions, used, offset)

    def finish(self, verdict: Verdict, made: float, trace: Trace | None = None) -> Episode | None:
        """What may be stored of the episode (or of `trace`) under a verdict; see `verified_episode`."""
        return verified_episode(trace or self.trace(), verdict, self.layout, made, self.failure_segments)
