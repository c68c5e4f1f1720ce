"""Batches of recorded features: episodes laid end to end for training, and whole held-out ones for validation.

The memory reads [z, context of the policy's instruction]. Its targets are the expert's chunk, and the residual to the
context of the oracle instruction, which tells the answer. Skills are part of every batch: there the residual is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.seeding import stream
from vlamem.memory.train.features import FeatureEpisode, Features, FeaturesError
from vlamem.memory.train.losses import Batch, Targets

HELD_OUT = 10
"""One layout in ten is held out."""


@dataclass(frozen=True)
class Scales:
    """Standard deviations by which targets are divided in training, so that both kinds of error are of size 1."""

    context: float
    chunk: float


@dataclass(frozen=True)
class TargetOptions:
    """What a memory is to propose, and how its rows are made.

    Attributes:
        context, chunk: which of the two.
        skill_weight: weight of a tick of a skill beside a tick of a memory task at which the answer is needed.
        long: share of the rows that are streams without an end: rounds of the tasks that ask again and again, hardly
            ever reset. A memory whose training carries its state from batch to batch learns there to write over what
            hundreds of rounds left behind. No row where no such task was recorded.
        keep: chance in those rows that a round starts without a reset; in the others every episode starts with one.
        noise: standard deviation of what is added to z in training, in units of each entry's own; scenes are few, and
            without it the head learns them by heart and does without the memory.
        answers: whether, in training alone, the oracle instruction is a target as a choice among all that the policy
            knows, too: instructions that differ little in the policy's context are else learned last.
        weights: of single tasks, by name: how often one is drawn beside the others, which count 1. A count or an order
            is learned from more episodes than a colour.
    """

    context: bool = True
    chunk: bool = True
    skill_weight: float = 0.2
    long: float = 0.2
    keep: float = 0.97
    noise: float = 0.15
    answers: bool = True
    weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.answers and not self.context:
            object.__setattr__(self, "answers", False)
        if not (self.context or self.chunk):
            raise ValueError("nothing to learn: a memory proposes a chunk, a context or both")


@dataclass(frozen=True)
class Row:
    """T ticks of one row, all [T, ...]; `query` is 1 where the answer can be known from memory alone."""

    feature: Float[np.ndarray, "T D"]
    weight: Float[np.ndarray, "T"]
    residual: Float[np.ndarray, "T C"]
    chunk: Float[np.ndarray, "T H A"]
    goal: Int[np.ndarray, "T 2"]
    query: Int[np.ndarray, "T"]


class TrainingSet:
    """Recorded episodes as rows for a memory."""

    def __init__(self, recordings: Sequence[Features], options: TargetOptions, tasks: Sequence[str] = ()) -> None:
        """`tasks`: only these; all that were recorded when empty.

        Raises FeaturesError for a task without episodes, and for weights that name no task or leave none to draw.
        """
        self.options, self.contexts = options, recordings[0].contexts
        self.meta = recordings[0].meta
        found: dict[str, list[tuple[Features, FeatureEpisode]]] = {}
        for features in recordings:
            for episode in features.episodes:
                found.setdefault(episode.task, []).append((features, episode))
        missing = [t for t in tasks if t not in found]
        if missing:
            raise FeaturesError(f"no features of task {missing[0]!r}: recorded are {', '.join(sorted(found))}")
        self.tasks = tuple(t for t in sorted(found) if not tasks or t in tasks)
        self.recorded = {t: found[t] for t in self.tasks}
        whole = {t: [e for e in found[t] if e[1].episode % HELD_OUT != HELD_OUT - 1] for t in self.tasks}
        self.training = {t: [part for e in whole[t] for part in _rounds(*e)] for t in self.tasks}
        self.held_out = {t: [e for e in found[t] if e[1].episode % HELD_OUT == HELD_OUT - 1] for t in self.tasks}
        self.streams = tuple(t for t in self.tasks if len(self.training[t]) > len(whole[t]))
        if not all(self.training.values()):
            empty = next(t for t in self.tasks if not self.training[t])
            raise FeaturesError(f"task {empty!r} has no episode to train on: record more of it")
        weights = dict(options.weights)
        for name in weights:
            if name not in self.tasks:
                raise FeaturesError(f"weight of unknown task {name!r}: there are {', '.join(self.tasks)}")
        self._weights = {t: weights.get(t, 1.0) for t in self.tasks}
        for drawn in (self.tasks, self.streams):
            if drawn and not any(self._weights[t] for t in drawn):
                raise FeaturesError(f"every one of {', '.join(drawn)} has weight 0: give one of them more")
        self.feature_size = self.meta.feature_size + self.meta.context_size

    @property
    def canonical(self) -> Float[np.ndarray, "G C"]:
        """The policy's conditioning for the first paraphrase of each goal."""
        return self.contexts[:, 0]

    @property
    def _paraphrases(self) -> int:
        """Of training: all but the last, or the only one, as of a dataset."""
        return max(1, int(self.contexts.shape[1]) - 1)

    @cached_property
    def scales(self) -> Scales:
        """Standard deviation of the residuals and of the chunks at ticks that count.

        Where no tick needs another instruction, all residuals are 0 and their unit is the distance between two
        instructions. Raises FeaturesError where there is one instruction alone and a context is a target.
        """
        rows = [self._sample(t, stream(0, "scales", t, i)) for t in self.tasks for i in range(8)]
        residuals = np.concatenate([r.residual[r.query > 0] for r in rows])
        chunks = np.concatenate([r.chunk[r.weight > 0] for r in rows])
        if not residuals.any():
            residuals = np.sqrt(2.0) * (self.canonical - self.canonical.mean(axis=0))  # of two drawn independently
        context = float(np.sqrt(np.mean(residuals**2)))
        if context == 0 and self.options.context:
            raise FeaturesError(
                f"no tick of {', '.join(self.tasks)} asks for a memory and the policy knows one sentence alone: there "
                "is no context to propose, record more tasks or use --targets chunk"
            )
        return Scales(context, float(np.std(chunks)))

    def row(self, features: Features, episode: FeatureEpisode, paraphrase: int) -> Row:
        """One episode under one `paraphrase` of the policy's instruction."""
        t = features.ticks(episode)
        goal = np.asarray(t.goal, np.int64)
        own = self.contexts[goal[:, 0], paraphrase]
        z = np.asarray(t.z, np.float32)
        if not np.isfinite(z).all():
            raise FeaturesError(
                f"episode {episode.episode} of task {episode.task!r} ({episode.actor}) has features that are not "
                "finite: record it again"
            )
        skill = goal[:, 0] == goal[:, 1]
        weight = np.where(skill, self.options.skill_weight, t.asked).astype(np.float32)
        residual = np.where(skill[:, None], 0.0, self.canonical[goal[:, 1]] - own).astype(np.float32)
        feature = np.concatenate([z, own], axis=1)
        return Row(feature, weight, residual, np.asarray(t.chunk, np.float32), goal, np.asarray(t.asked, np.int64))

    def _sample(self, task: str, rng: np.random.Generator) -> Row:
        episodes = self.training[task]
        features, episode = episodes[int(rng.integers(len(episodes)))]
        return self.row(features, episode, int(rng.integers(self._paraphrases)))

    def batch(self, ticks: int, rows: int, rng: np.random.Generator) -> Batch:
        """`rows` rows of `ticks` ticks: tasks as often as their weights say, laid end to end, the last one cut."""
        return self.targets(*self.labelled(ticks, rows, rng))

    def labelled(self, ticks: int, rows: int, rng: np.random.Generator) -> tuple[list[Row], np.ndarray]:
        """The rows of a batch and their resets [T, B]."""
        long = round(self.options.long * rows) if self.streams else 0
        made = [self._filled(ticks, rng, i < long) for i in range(rows)]
        return [self._noisy(row, rng) for row, _ in made], np.stack([reset for _, reset in made], axis=1)

    @cached_property
    def _spread(self) -> Float[np.ndarray, "D"]:
        rows = [self._sample(t, stream(0, "spread", t, i)) for t in self.tasks for i in range(8)]
        spread: np.ndarray = np.concatenate([r.feature for r in rows])[:, : self.meta.feature_size].std(axis=0)
        return spread

    def _noisy(self, row: Row, rng: np.random.Generator) -> Row:
        size = (len(row.feature), self.meta.feature_size)
        row.feature[:, : size[1]] += self.options.noise * self._spread * rng.standard_normal(size, dtype=np.float32)
        return row

    def targets(self, rows: Sequence[Row], resets: np.ndarray) -> Batch:
        """Rows of equal length as a batch, time first, targets divided by their scales."""
        options, scales = self.options, self.scales

        def stacked(name: str) -> Any:  # NumPy: the compiled update takes it as it is
            return np.stack([getattr(r, name) for r in rows], axis=1)

        made: Any = resets
        return Batch(
            stacked("feature"),
            made,
            Targets(
                stacked("weight"),
                chunk=stacked("chunk") / scales.chunk if options.chunk else None,
                context=stacked("residual") / scales.context if options.context else None,
                answer=stacked("goal")[..., 1].astype(np.int32) if options.answers else None,
            ),
        )

    def _filled(self, ticks: int, rng: np.random.Generator, long: bool) -> tuple[Row, np.ndarray]:
        parts, reset, at = [], np.zeros(ticks, bool), 0
        tasks = self.streams if long else self.tasks
        while at < ticks:
            part = self._sample(self._drawn(tasks, rng), rng)
            reset[at] = not (long and rng.random() < self.options.keep)
            parts.append(part)
            at += len(part.weight)
        return _cut(parts, ticks), reset

    def _drawn(self, tasks: Sequence[str], rng: np.random.Generator) -> str:
        if not self.options.weights:
            return tasks[int(rng.integers(len(tasks)))]
        chances = np.array([self._weights[t] for t in tasks])
        return tasks[int(rng.choice(len(tasks), p=chances / chances.sum()))]

    def once(self, ticks: int, rng: np.random.Generator) -> list[Row]:
        """Recorded episodes as they are met in use: whole, each at most once, every task in turn, about `ticks` ticks.

        All of them where they are fewer; held out or not, whatever their tasks' weights, and without noise.
        """
        left = {t: [episodes[i] for i in rng.permutation(len(episodes))] for t, episodes in self.recorded.items()}
        rows: list[Row] = []
        while ticks > 0 and any(left.values()):
            for task in self.tasks:
                if left[task] and ticks > 0:
                    features, episode = left[task].pop()
                    rows.append(self.row(features, episode, len(rows) % self._paraphrases))
                    ticks -= len(rows[-1].weight)
        return rows

    def whole(self, task: str, most: int, ticks: int) -> list[Row]:
        """Up to `most` held-out episodes of a task, each padded to `ticks` with weight 0; longer ones are cut."""
        rows = []
        for i, (features, episode) in enumerate(self.held_out[task][:most]):
            row = self.row(features, episode, i % self._paraphrases)
            short = ticks - len(row.weight)
            padded = [
                np.concatenate([x, np.repeat(x[-1:], short, axis=0)]) if short > 0 else x[:ticks] for x in _all(row)
            ]
            row = Row(*padded)
            if short > 0:
                row.weight[-short:] = 0
                row.query[-short:] = 0
            rows.append(row)
        return rows


def _rounds(features: Features, episode: FeatureEpisode) -> list[tuple[Features, FeatureEpisode]]:
    """An episode that asks several times, each time for what it has just shown, as one part a question.

    A row ends before a long episode does: of a stream, only the first question would ever be trained on.
    """
    query = np.asarray(features.ticks(episode).asked, bool)
    ends = [int(t) + 1 for t in np.flatnonzero(query[:-1] & ~query[1:])]
    edges = [0, *ends, episode.ticks]
    return [
        (features, replace(episode, first=episode.first + start, ticks=end - start))
        for start, end in pairwise(edges)
        if len(edges) == 2 or query[start:end].any()
    ]


def _all(row: Row) -> list[np.ndarray]:
    return [row.feature, row.weight, row.residual, row.chunk, row.goal, row.query]


def _cut(parts: list[Row], ticks: int) -> Row:
    return Row(*(np.concatenate(columns)[:ticks] for columns in zip(*map(_all, parts), strict=True)))
