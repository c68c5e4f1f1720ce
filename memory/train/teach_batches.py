"""Batches of demonstrations to teach a memory on: which episodes, which of their ticks, and what the memory reads.

A batch depends on its update, the seed and the shares of the tasks alone. The next one is made in a thread while the
policy and the memory compute: reading what a policy read at some hundred ticks takes a quarter of an update.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.seeding import integer_seed, stream
from vlamem.memory.train.demonstrations import (
    Demonstration,
    DemonstrationData,
    Episodes,
    Loss,
    Moments,
    foreseeable,
    loss_units,
)  # fmt: skip
from vlamem.memory.train.loop import risen
from vlamem.memory.train.teach_options import TeachOptions

__all__ = ["BareLoss", "Batch", "Batches", "followed"]


class Batch(NamedTuple):
    """What one update takes: B episodes, at P ticks of each of which the policy's loss is asked for; M is B P.

    Attributes:
        zs, inside: see `Episodes`; z has noise and is moved towards another scene.
        ticks: [P, B].
        moments: M of them, row after row.
        task: [B], its number.
        weight: [M], of choice.
        bare: [M], the bare policy's loss.
    """

    zs: Float[np.ndarray, "T B F"]
    inside: Bool[np.ndarray, "T B"]
    ticks: Int[np.ndarray, "P B"]
    moments: Moments
    task: Int[np.ndarray, "B"]
    weight: Float[np.ndarray, "M"]
    bare: Float[np.ndarray, "M"]


class BareLoss:
    """What the bare policy's loss is at every moment of the demonstrations to train on.

    Attributes:
        units: [tasks], its mean at moments of choice; of a task without any, a share of the largest.
    """

    def __init__(self, data: DemonstrationData, loss: Loss, seed: int) -> None:
        self._tasks, mean = data.tasks, []
        self._bare: dict[tuple[str, int], np.ndarray] = {}
        for task in data.tasks:
            weighed, total = 0.0, 1e-9
            for e in data.training[task]:
                moments = data.moments(e, np.arange(len(e.tick)), 0)
                noise = integer_seed(seed, "teach", "bare", e.task, e.episode)
                self._bare[e.task, e.episode], _ = loss(moments, np.zeros_like(moments.context), noise)
                weighed += float(e.weight @ self._bare[e.task, e.episode])
                total += float(e.weight.sum())
            mean.append(weighed / total)
        self.units = loss_units(np.array(mean))

    def of(self, episode: Demonstration) -> Float[np.ndarray, "N"]:
        """At each conditioned tick of an episode."""
        return self._bare[episode.task, episode.episode]

    def foreseeable(self, episode: Demonstration) -> Float[np.ndarray, "N"]:
        """0 to 1 at each conditioned tick of an episode, see `demonstrations.foreseeable`."""
        return foreseeable(self.of(episode), float(self.units[self._tasks.index(episode.task)]))


class Batches:
    """Makes the batch of each update; to be used as a context, which ends its thread."""

    def __init__(self, data: DemonstrationData, bare: BareLoss, how: TeachOptions) -> None:
        self._data, self._bare, self._how = data, bare, how
        self._scenes, self._spread = data.scenes, data.spread  # made here, not by two threads at once
        self._ahead: tuple[int, Mapping[str, float], Future[Batch]] | None = None
        self._thread = ThreadPoolExecutor(1, "batches")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def at(self, update: int, shares: Mapping[str, float]) -> Batch:
        """The batch of an update, in which a task comes as often as its share says."""
        made = None
        if self._ahead is not None and self._ahead[:2] == (update, shares):
            made = self._ahead[2].result()
        found = self._make(update, shares) if made is None else made
        self._ahead = (update + 1, shares, self._thread.submit(self._make, update + 1, shares))
        return found

    def _make(self, update: int, shares: Mapping[str, float]) -> Batch:
        data, how = self._data, self._how
        rng = stream(how.seed, "teach", "batch", update)
        drawn = data.sample(how.rows, rng, shares)
        words = [int(w) for w in rng.integers(data.wordings, size=how.rows)]
        uniform = how.uniform[0] + risen(how.widen, update / how.train.updates) * (how.uniform[1] - how.uniform[0])
        at = [e.draw(how.moments, uniform, self._bare.foreseeable(e), rng) for e in drawn]
        moments = Moments.join([data.moments(e, a, w) for e, a, w in zip(drawn, at, words, strict=True)])
        rows = data.episodes(drawn, words)
        return Batch(
            self._augmented(rows, drawn, rng),
            rows.inside,
            np.stack([e.tick[a] for e, a in zip(drawn, at, strict=True)], axis=1),
            moments,
            np.array([data.tasks.index(e.task) for e in drawn]),
            np.concatenate([e.weight[a] for e, a in zip(drawn, at, strict=True)]),
            np.concatenate([self._bare.of(e)[a] for e, a in zip(drawn, at, strict=True)]),
        )

    def _augmented(
        self, episodes: Episodes, drawn: list[Demonstration], rng: np.random.Generator
    ) -> Float[np.ndarray, "T B F"]:
        """What the memory reads, its scene moved towards another one and with noise on it."""
        part = episodes.zs[..., : self._data.meta.feature_size]
        others = np.stack([self._scenes[e.task][rng.integers(len(self._scenes[e.task]))] for e in drawn])
        share = self._how.scene_shift * rng.random((len(drawn), 1))
        part += (share * (others - np.stack([e.z.mean(axis=0) for e in drawn]))).astype(np.float32)
        part += self._how.feature_noise * self._spread * rng.standard_normal(part.shape, dtype=np.float32)
        return episodes.zs


def followed(
    gain: Float[np.ndarray, "tasks"], batch: Batch, error: Float[np.ndarray, "M"]
) -> Float[np.ndarray, "tasks"]:
    """The running mean of each task's gain at moments of choice, a share of the bare loss, after a batch."""
    after = gain.copy()
    task = batch.task.repeat(len(error) // len(batch.task))
    for i in np.unique(task):
        mine = task == i
        had = float(batch.weight[mine] @ batch.bare[mine])
        if had > 0:
            saved = float(batch.weight[mine] @ (batch.bare - error)[mine]) / had
            after[i] += 0.05 * (np.clip(saved, -1, 1) - gain[i])
    return after
