"""Demonstrations as training data for a memory that is taught by a frozen policy's own loss.

No answer is read: of a recording's columns, only z, the sentence that the policy was told and the demonstrated actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.memory.train.conditioning import Conditioned, read_conditioning
from vlamem.memory.train.features import FeatureEpisode, Features, FeaturesError, open_features, parts_of
from vlamem.memory.weights import TrainedFor

__all__ = ["Demonstration", "DemonstrationData", "Episodes", "Loss", "Moments", "choice_weight"]

_FOLDS = 10
_HELD_OUT, _CALIBRATION = 9, 8
"""Of ten episodes in a row, by their number: one is held out for the report, one for the confidence."""
_CHOICES = 95.0
"""Percentile of the doubt at which a tick counts half: a choice takes a few ticks of an episode."""


class Moments(NamedTuple):
    """M ticks at which the frozen policy's loss is asked for, each with what it takes.

    Attributes:
        z: [M, D].
        context: [M, C], the vector of the sentence told.
        packed: [M, S], the rest of the conditioning.
        chunk: [M, H, A], demonstrated.
    """

    z: Float[np.ndarray, "M D"]
    context: Float[np.ndarray, "M C"]
    packed: Float[np.ndarray, "M S"]
    chunk: Float[np.ndarray, "M H A"]

    @classmethod
    def join(cls, parts: "Sequence[Moments]") -> "Moments":
        """All of them, one after the other."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@runtime_checkable
class Loss(Protocol):
    """A frozen policy's imitation loss at M moments under a residual each, and its gradient by the residual."""

    def __call__(
        self, moments: Moments, residual: Float[np.ndarray, "M C"], seed: int
    ) -> tuple[Float[np.ndarray, "M"], Float[np.ndarray, "M C"]]:
        """Loss and gradient; an equal seed draws equal noise."""
        ...


class Episodes(NamedTuple):
    """B whole episodes of T ticks, time first, each held at its last tick to the end.

    Attributes:
        zs: [T, B, D + C], z beside the vector of the sentence told.
        inside: [T, B], False behind an episode's end.
    """

    zs: Float[np.ndarray, "T B F"]
    inside: Bool[np.ndarray, "T B"]


@dataclass(frozen=True)
class Demonstration:
    """One demonstration of T ticks, at N of which the policy's conditioning is known.

    Attributes:
        task, episode: what it is.
        z: [T, D].
        told: [T], index of the sentence that the policy is told.
        tick: [N], those with a conditioning and half a chunk or more before the end.
        weight: [N], 0 to 1, how much each is a moment of choice; see `choice_weight`.
        chunk: [N, H, A], demonstrated from there on.
        packed: [N, S], memory-mapped.
    """

    task: str
    episode: int
    z: Float[np.ndarray, "T D"]
    told: Int[np.ndarray, "T"]
    tick: Int[np.ndarray, "N"]
    weight: Float[np.ndarray, "N"]
    chunk: Float[np.ndarray, "N H A"]
    packed: Float[np.ndarray, "N S"]

    def drawn(
        self, count: int, even: float, calm: Float[np.ndarray, "N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "count"]:
        """Indices of `count` ticks: a share `even` of them as often as `calm` says, the rest as often as their weights.

        `calm` is above 0 everywhere.
        """
        alike = calm / calm.sum()
        chance = even * alike + (1 - even) * (self.weight / self.weight.sum() if self.weight.any() else alike)
        return np.sort(rng.choice(len(self.tick), count, p=chance / chance.sum()))


def choice_weight(doubt: Float[np.ndarray, "N"], unit: float) -> Float[np.ndarray, "N"]:
    """0 to 1 by how much the bare policy's samples disagree: 1/2 at `unit`, quadratic far below it."""
    weight: Float[np.ndarray, N] = doubt**2 / (doubt**2 + max(unit, 1e-9) ** 2)
    return weight


class DemonstrationData:
    """All demonstrations of some recordings, by task: to train on, for the confidence, and held out.

    Attributes:
        meta, contexts: of the recordings.
        tasks: in alphabetical order.
        training, calibration, held_out: episodes by task.
        longest: ticks of the longest episode.
    """

    def __init__(self, folders: Sequence[Path], tasks: Sequence[str] = (), used_with: TrainedFor | None = None) -> None:
        """`tasks`: only these; all that were recorded when empty.

        Raises FeaturesError for recordings that are missing, of another policy or without conditioning, and for too few
        episodes of a task to hold some out.
        """
        opened = open_features(folders, used_with)
        self.meta, self.contexts = opened[0].meta, opened[0].contexts
        found = [
            (features, episode, read_conditioning(part, episode))
            for part, features in zip((p for folder in folders for p in parts_of(folder)), opened, strict=True)
            for episode in features.episodes
            if not tasks or episode.task in tasks
        ]
        missing = sorted(set(tasks) - {e.task for _, e, _ in found})
        if missing:
            raise FeaturesError(f"no demonstration of {', '.join(missing)}: record it first")
        doubt = np.concatenate([rows.doubt for _, _, rows in found])
        self.unit = float(np.percentile(doubt, _CHOICES))
        self.tasks = tuple(sorted({e.task for _, e, _ in found}))
        self._all = [_demonstration(*part, self.unit) for part in found]
        self.longest = max(len(e.z) for e in self._all)
        self.training = self._fold(lambda fold: fold not in (_HELD_OUT, _CALIBRATION))
        self.calibration = self._fold(lambda fold: fold == _CALIBRATION)
        self.held_out = self._fold(lambda fold: fold == _HELD_OUT)
        for task in self.tasks:
            if not (self.training[task] and self.calibration[task] and len(self.held_out[task]) > 1):
                raise FeaturesError(
                    f"task {task!r} has {sum(e.task == task for e in self._all)} demonstrations: 20 or more in a row "
                    "are needed, to train on some and hold others out"
                )

    @property
    def feature_size(self) -> int:
        """What the memory reads: D of z, and C of the sentence."""
        return self.meta.feature_size + self.meta.context_size

    @property
    def wordings(self) -> int:
        """Paraphrases of training: all but the last, or the only one."""
        return max(1, int(self.contexts.shape[1]) - 1)

    @cached_property
    def spread(self) -> Float[np.ndarray, "D"]:
        """Standard deviation of each entry of z."""
        spread: np.ndarray = np.concatenate([e.z for e in self._all]).std(axis=0)
        return spread

    def sample(self, rows: int, rng: np.random.Generator) -> list[Demonstration]:
        """`rows` episodes to train on, every task as often."""
        first = int(rng.integers(len(self.tasks)))
        kept = [self.training[self.tasks[(first + i) % len(self.tasks)]] for i in range(rows)]
        return [episodes[int(rng.integers(len(episodes)))] for episodes in kept]

    def episodes(self, demonstrations: Sequence[Demonstration], wordings: Sequence[int]) -> Episodes:
        """Demonstrations under a wording each, as rows."""
        rows = [
            np.concatenate([e.z, self.contexts[e.told, w]], axis=1)
            for e, w in zip(demonstrations, wordings, strict=True)
        ]
        held = [np.concatenate([x, np.repeat(x[-1:], self.longest - len(x), axis=0)]) for x in rows]
        inside = np.arange(self.longest)[:, None] < np.array([len(x) for x in rows])
        return Episodes(np.stack(held, axis=1).astype(np.float32), inside)

    def moments(self, episode: Demonstration, at: Int[np.ndarray, "P"], wording: int) -> Moments:
        """Conditioned ticks of a demonstration, indices into its `tick`, under a wording of its sentence."""
        ticks = episode.tick[at]
        told = self.contexts[episode.told[ticks], wording]
        return Moments(episode.z[ticks], told, np.asarray(episode.packed[at]), episode.chunk[at])

    def _fold(self, chosen: Callable[[int], bool]) -> dict[str, list[Demonstration]]:
        kept = [e for e in self._all if chosen(e.episode % _FOLDS)]
        return {task: [e for e in kept if e.task == task] for task in self.tasks}


def _demonstration(features: Features, episode: FeatureEpisode, rows: Conditioned, unit: float) -> Demonstration:
    columns = features.ticks(episode)
    most = episode.ticks - features.meta.chunk[0] // 2  # what follows the end was not demonstrated
    kept = int(np.searchsorted(rows.tick, most, side="right"))
    tick = np.asarray(rows.tick[:kept], np.int64)
    return Demonstration(
        episode.task,
        episode.episode,
        np.asarray(columns.z, np.float32),
        np.asarray(columns.goal[:, 0], np.int64),
        tick,
        choice_weight(np.asarray(rows.doubt[:kept]), unit),
        np.asarray(columns.chunk[tick], np.float32),
        rows.packed[:kept],
    )
