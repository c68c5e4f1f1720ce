"""Collects what happens in an episode, and makes of it what may be stored."""

import uuid
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from vlamem.memory.success.episode import Episode, Segment
from vlamem.memory.success.layout import Layout
from vlamem.memory.success.lifecycle.verify import Verdict


@dataclass(frozen=True)
class Seen:
    """A tick at which the policy was asked: what it saw, and the chunk that it planned (None when it planned none)."""

    tick: int
    key: Float[np.ndarray, "K"]
    proprioception: Float[np.ndarray, "P"]
    planned: Float[np.ndarray, "H A"] | None


@dataclass(frozen=True)
class Trace:
    """An episode as it happened.

    Attributes:
        identity, instruction, meaning: as in Episode.
        seen: ticks at which the policy was asked, and the last one after the end when it was observed.
        actions: [T, A], executed.
        used: ids of the stored segments that priors were made of.
    """

    identity: str
    instruction: str
    meaning: Float[np.ndarray, "C"] | None
    seen: tuple[Seen, ...]
    actions: Float[np.ndarray, "T A"]
    used: Int[np.ndarray, "U"]

    def segments(self, layout: Layout, progress: Float[np.ndarray, "T1"], first: int, last: int) -> tuple[Segment, ...]:
        """Segments that begin at an asked tick from `first` to before `last`.

        Nothing executed from `last` on is kept: there a chunk goes on as it was planned, and where no plan is known the
        segment is left out.
        """
        found = []
        for seen in self.seen:
            if not first <= seen.tick < last:
                continue
            chunk = self.actions[seen.tick : min(last, seen.tick + layout.horizon)]
            missing = layout.horizon - len(chunk)
            if missing:
                if seen.planned is None:
                    continue
                chunk = np.concatenate([chunk, seen.planned[-missing:]])
            found.append(
                Segment(seen.tick, float(progress[seen.tick]), seen.key, seen.proprioception, np.float32(chunk))  # type: ignore[arg-type]  # an array of that type
            )
        return tuple(found)


@dataclass
class EpisodeRecorder:
    """Records one robot; in a vectorised run there is one for each row.

    Attributes:
        layout: sizes of what is recorded.
        failure_segments: how many of the last segments before a failure are kept.
    """

    layout: Layout
    failure_segments: int = 4
    _identity: str = field(default="", init=False)
    _instruction: str = field(default="", init=False)
    _meaning: Float[np.ndarray, "C"] | None = field(default=None, init=False)
    _seen: list[Seen] = field(default_factory=list, init=False)
    _actions: list[np.ndarray] = field(default_factory=list, init=False)
    _used: list[np.ndarray] = field(default_factory=list, init=False)

    def begin(
        self, instruction: str, identity: str | None = None, meaning: Float[np.ndarray, "C"] | None = None
    ) -> None:
        """Forgets the episode before and begins another; a random identity is drawn when none is given."""
        self._identity, self._instruction, self._meaning = identity or uuid.uuid4().hex, instruction, meaning
        self._seen, self._actions, self._used = [], [], []

    def observe(
        self,
        key: Float[np.ndarray, "K"],
        proprioception: Float[np.ndarray, "P"],
        planned: Float[np.ndarray, "H A"] | None = None,
        used: Int[np.ndarray, "U"] | None = None,
    ) -> None:
        """What the policy sees before the next action, the chunk it plans now, and the stored segments behind it."""
        plan = None if planned is None else np.array(planned, np.float32)
        self._seen.append(
            Seen(len(self._actions), np.array(key, np.float32), np.array(proprioception, np.float32), plan)
        )
        if used is not None:
            self._used.append(np.asarray(used, np.int64))

    def act(self, action: Float[np.ndarray, "A"]) -> None:
        """The action that was executed, in the policy's normalised action space."""
        self._actions.append(np.array(action, np.float32))

    def trace(self) -> Trace:
        """The episode until now."""
        actions = np.stack(self._actions) if self._actions else np.zeros((0, self.layout.action_size), np.float32)
        used = np.unique(np.concatenate(self._used)) if self._used else np.zeros(0, np.int64)
        return Trace(self._identity, self._instruction, self._meaning, tuple(self._seen), actions, used)

    def finish(self, verdict: Verdict, made: float, trace: Trace | None = None) -> Episode | None:
        """What may be stored of the episode under a verdict; None when nothing may.

        Of a success the prefix up to the progress peak; of a failure the last segments before its end.
        """
        trace = trace or self.trace()
        if verdict.outcome == "unknown" or not len(trace.actions):
            return None
        if verdict.outcome == "success":
            segments = trace.segments(self.layout, verdict.progress, 0, verdict.peak)
        else:
            segments = trace.segments(self.layout, verdict.progress, 0, len(trace.actions))[-self.failure_segments :]
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
