"""Demonstrations as training data for a memory that is taught by a frozen policy's own loss.

No answer is read: of a recording's columns, only z, the sentence that the policy was told and the demonstrated actions.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.memory.train.conditioning import Conditioned, read_conditioning
from vlamem.memory.train.features import FeatureEpisode, Features, FeaturesError, open_features, parts_of
from vlamem.memory.weights import TrainedFor

__all__ = [
    "Demonstration", "DemonstrationData", "Episodes", "Loss", "Moments", "choice_weight", "foreseeable", "loss_units",
]  # fmt: skip

log = logging.getLogger(__name__)
_FOLDS = 10
_HELD_OUT, _CALIBRATION = 9, 8
"""Of ten demonstrations of a task in a row, one is held out for the report, one for the confidence."""
_LEAST = 2 * _FOLDS
"""Fewest demonstrations of a task: two to hold out for the report."""
_LEAST_UNIT = 0.25
"""Least unit of a task's loss, as a share of the largest: where the policy knows everything there is hardly any."""
_CHOICES = 95.0
"""Percentile of the disagreement at which a tick counts half: a choice takes a few ticks of an episode."""


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

    def draw(
        self, count: int, uniform: float, foreseeable: Float[np.ndarray, "N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "count"]:
        """Indices of `count` ticks: a share `uniform` of them from the whole episode, as often as `foreseeable` says,
        the rest as often as their weights of choice.

        `foreseeable` is above 0 everywhere.
        """
        whole = foreseeable / foreseeable.sum()
        chance = uniform * whole + (1 - uniform) * (self.weight / self.weight.sum() if self.weight.any() else whole)
        return np.sort(rng.choice(len(self.tick), count, p=chance / chance.sum()))


def loss_units(bare: Float[np.ndarray, "tasks"]) -> Float[np.ndarray, "tasks"]:
    """What each task's loss is measured in: the bare policy's at choices; of a task with hardly any, a share of the
    largest."""
    found: Float[np.ndarray, tasks] = np.maximum(bare, max(_LEAST_UNIT * float(bare.max()), 1e-6))
    return found


def foreseeable(bare: Float[np.ndarray, "N"], unit: float | Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """0 to 1 by the bare policy's loss: near 0 where it is far more than at a choice, `unit`. What came next could not
    be foreseen there, as before a signal to go, and its loss teaches nothing."""
    found: Float[np.ndarray, N] = unit**2 / (unit**2 + bare**2)
    return found


def choice_weight(disagreement: Float[np.ndarray, "N"], unit: float) -> Float[np.ndarray, "N"]:
    """0 to 1 by how much the bare policy's samples disagree: 1/2 at `unit`, quadratic far below it."""
    weight: Float[np.ndarray, N] = disagreement**2 / (disagreement**2 + max(unit, 1e-9) ** 2)
    return weight


class DemonstrationData:
    """All demonstrations of some recordings, by task: to train on, for the confidence, and held out.

    Attributes:
        meta, contexts: of the recordings.
        tasks: in alphabetical order.
        training, calibration, held_out: episodes by task.
        longest: ticks of the longest episode.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        tasks: Sequence[str] = (),
        used_with: TrainedFor | None = None,
        most: int | None = None,
    ) -> None:
        """`tasks`: only these; all that were recorded when empty. `most`: the first so many of each task.

        Raises FeaturesError for recordings that are missing, of another policy or without conditioning, and for too few
        episodes of a task to hold some out.
        """
        opened = open_features(folders, used_with)
        self.meta, self.contexts = opened[0].meta, opened[0].contexts
        found: dict[str, list[tuple[Features, FeatureEpisode, Conditioned]]] = {}
        for part, features in zip((p for folder in folders for p in parts_of(folder)), opened, strict=True):
            for episode in features.episodes:
                if not tasks or episode.task in tasks:
                    rows = read_conditioning(part, episode)
                    found.setdefault(episode.task, []).append((features, episode, rows))
        for task, kept in found.items():
            found[task] = [one for one in kept if _long_enough(*one)]
        for kept in found.values():  # in the order of their numbers, whichever process recorded them
            kept.sort(key=lambda one: one[1].episode)
            del kept[len(kept) if most is None else most :]
        missing = sorted(set(tasks) - found.keys())
        if missing:
            raise FeaturesError(f"no demonstration of {', '.join(missing)}: record it first")
        for task, kept in found.items():
            if len(kept) < _LEAST:
                cut = "" if most is None or most >= _LEAST else f"; at most {most} of each were asked for"
                raise FeaturesError(
                    f"task {task!r} has {len(kept)} demonstrations: {_LEAST} or more are needed, to train on some and "
                    f"hold others out{cut}"
                )
        everywhere = np.concatenate([rows.disagreement for kept in found.values() for _, _, rows in kept])
        if not everywhere.any():
            raise FeaturesError(
                f"samples of policy '{self.meta.policy.policy}' agree at every recorded tick: it shows no moment of "
                "choice to train a memory at; train one with 'vlamem train-gate --targets chunk'"
            )
        self.unit = float(np.percentile(everywhere, _CHOICES))
        self.tasks = tuple(sorted(found))
        self._by_task = {task: [_demonstration(*part, self.unit) for part in found[task]] for task in self.tasks}
        self.longest = max(len(e.z) for kept in self._by_task.values() for e in kept)
        self.training = self._fold(lambda fold: fold not in (_HELD_OUT, _CALIBRATION))
        self.calibration = self._fold(lambda fold: fold == _CALIBRATION)
        self.held_out = self._fold(lambda fold: fold == _HELD_OUT)

    @property
    def count(self) -> dict[str, int]:
        """Demonstrations by task, those held out included."""
        return {task: len(kept) for task, kept in self._by_task.items()}

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
        spread: np.ndarray = np.concatenate([e.z for kept in self._by_task.values() for e in kept]).std(axis=0)
        return spread

    @cached_property
    def scenes(self) -> dict[str, Float[np.ndarray, "E D"]]:
        """Mean z of each demonstration to train on, by task: what stays while things happen."""
        return {task: np.stack([e.z.mean(axis=0) for e in kept]) for task, kept in self.training.items()}

    @cached_property
    def choice(self) -> dict[str, float]:
        """0 to 1 by task: how clear a moment of choice its demonstrations to train on have, in the mean."""
        return {task: float(np.mean([e.weight.max() for e in kept])) for task, kept in self.training.items()}

    def sample(
        self, rows: int, rng: np.random.Generator, shares: Mapping[str, float] | None = None
    ) -> list[Demonstration]:
        """`rows` demonstrations to train on; one of a task comes as often as its share says, all alike without."""
        every = [e for kept in self.training.values() for e in kept]
        up_to = np.cumsum([1.0 if shares is None else shares[e.task] for e in every])
        # spread over the list, so that no batch lacks a task by chance
        first = rng.random()
        at = ((np.arange(rows) + rng.random(rows)) / rows + first) % 1.0
        found = np.searchsorted(up_to, at * up_to[-1], side="right")
        return [every[min(int(i), len(every) - 1)] for i in found]

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
        return {task: [e for i, e in enumerate(kept) if chosen(i % _FOLDS)] for task, kept in self._by_task.items()}


def _long_enough(features: Features, episode: FeatureEpisode, rows: Conditioned) -> bool:
    """Whether half a chunk or more was demonstrated after one of its rows; said in the log where it was not."""
    enough = bool(rows.tick[0] <= episode.ticks - features.meta.chunk[0] // 2)
    if not enough:
        log.warning(
            "demonstration %d of %r shows less than half a chunk of %d control steps: it is left out",
            episode.episode, episode.task, features.meta.chunk[0],
        )  # fmt: skip
    return enough


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
        choice_weight(np.asarray(rows.disagreement[:kept]), unit),
        np.asarray(columns.chunk[tick], np.float32),
        rows.packed[:kept],
    )
