"""Training batches from frames: rows drawn by task, a wording of the goal, named objects, and shifted images."""

import queue
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlamem.core.seeding import stream
from vlamem.policies.tiny.frames import Frames, FramesError
from vlamem.policies.tiny.language import PAD, UNKNOWN, Tokeniser
from vlamem.policies.tiny.model import patches
from vlamem.policies.tiny.normaliser import Normaliser

NAMING = ("touch {}", "pick up {}", "push {}", "find {}")
MOVING = ("put {} on {}", "pick up {} and place it on {}", "move {} to {}", "bring {} to {}")


@dataclass(frozen=True)
class BatchOptions:
    """How batches are drawn.

    Attributes:
        size: frames of a batch.
        shift: largest random shift of an image in pixels.
        word_dropout: share of words that read as unknown.
        references: named objects per frame, each an extra sentence whose object's position is supervised.
        pairs: extra sentences per frame that bring one named object to another; both positions are supervised, so that
            the network learns which of a sentence's two colours is which.
        balance: 0 draws every task equally often, 1 as often as it was recorded.
        task_weights: factors on the share of tasks, by name; 1 for the rest.
    """

    size: int = 192
    shift: int = 2
    word_dropout: float = 0.08
    references: int = 1
    pairs: int = 1
    balance: float = 0.5
    task_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Tensors of B frames; R = B * (references + pairs) extra sentences; sentences are given once each and indexed.

    Positions are in units of the normaliser's label_scale; nan and -1 mark what is not to be trained on.
    """

    cameras: list[Tensor]
    proprioception: Tensor
    chunk: Tensor
    valid: Tensor
    words: Tensor
    goal: Tensor
    target: Tensor
    destination: Tensor
    named: Tensor
    named_position: Tensor
    named_destination: Tensor
    categories: Tensor
    values: Tensor


def is_held_out(task: NDArray[np.integer[Any]], episode: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Whether each frame's episode, about one in twenty, is kept from training."""
    pairs = np.stack([task.astype(np.int64), episode.astype(np.int64)], 1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    kept = np.array([zlib.crc32(f"{t} {e}".encode()) % 20 == 0 for t, e in unique.tolist()])
    return np.asarray(kept[inverse.reshape(-1)])


class Batches:
    """Draws training or held-out batches; batch number i of a seed is always the same."""

    def __init__(
        self,
        frames: Frames,
        tokeniser: Tokeniser,
        normaliser: Normaliser,
        options: BatchOptions,
        seed: int,
        held_out: bool = False,
        held_out_wording: bool = False,
    ) -> None:
        """Raises FramesError when no frame is on the wanted side of the split, or a task weight names no task."""
        self.frames, self.normaliser, self.options, self.seed = frames, normaliser, options, seed
        self._training = not held_out
        columns = frames.columns
        aside = is_held_out(columns["task"], columns["episode"])
        self.rows = np.flatnonzero(aside == held_out)
        if not len(self.rows):
            raise FramesError(f"no {'held-out' if held_out else 'training'} episode in these frames: record more")
        for name in options.task_weights:
            if name not in frames.meta.tasks:
                raise FramesError(f"task weight for unknown task {name!r}: there are {', '.join(frames.meta.tasks)}")
        self._by_task = [(t, self.rows[columns["task"][self.rows] == t]) for t in range(len(frames.meta.tasks))]
        self._by_task = [(t, rows) for t, rows in self._by_task if len(rows)]
        share = [
            options.task_weights.get(frames.meta.tasks[t], 1.0) * len(rows) ** options.balance
            for t, rows in self._by_task
        ]
        self._share = np.array(share) / np.sum(share)
        goals = [g.held_out if held_out_wording and g.held_out else g.paraphrases for g in frames.meta.goals]
        named = [[n.format(p) for p in phrases for n in NAMING] for _, _, phrases in frames.meta.references]
        phrases = [p for _, _, p in frames.meta.references]
        moves = [[m.format(a, b) for a in one for b in other for m in MOVING] for one in phrases for other in phrases]
        self._goals, self._named = _ragged(goals, 0), _ragged(named, sum(map(len, goals)))
        self._moves = _ragged(moves, sum(map(len, [*goals, *named])))
        self._words = tokeniser([s for group in [*goals, *named, *moves] for s in group])
        self._colour = np.array([c for c, _, _ in frames.meta.references], np.float32)
        self._shape = np.array([s for _, s, _ in frames.meta.references], np.float32)

    def batch(self, number: int) -> Batch:
        """Batch number `number`: the rows are drawn anew each time, the images shifted when training."""
        rng = stream(self.seed, "batch" if self._training else "held-out batch", number)
        size = self.options.size
        task = rng.choice(len(self._by_task), size, p=self._share)
        rows = np.array([self._by_task[t][1][rng.integers(len(self._by_task[t][1]))] for t in task])
        return self.of_rows(rows, rng)

    def of_rows(self, rows: NDArray[np.integer[Any]], rng: np.random.Generator) -> Batch:
        """The batch of these frames."""
        columns, n = self.frames.columns, len(rows)
        goals = columns["goal"][rows]
        oracle = (rng.random(n) < 0.5) & (goals[:, 1] >= 0)
        only = goals[:, 1] < 0
        sentence = self._draw(self._goals, np.where(oracle, goals[:, 1], goals[:, 0]), rng)
        labelled = (oracle | only)[:, None]
        target = np.where(labelled, columns["target"][rows], np.nan)
        destination = np.where(labelled, columns["destination"][rows], np.nan)
        named, position, goal_position = self._name_objects(columns["objects"][rows], rng)
        used, index = np.unique(np.concatenate([sentence, named]), return_inverse=True)
        words = self._words[used]
        if self._training and self.options.word_dropout:
            lost = (rng.random(words.shape) < self.options.word_dropout) & (words != PAD)
            words = np.where(lost, UNKNOWN, words)
        scale = self.normaliser.label_scale
        return Batch(
            cameras=[self._images(c, rows, rng) for c in self.frames.meta.cameras],
            proprioception=torch.from_numpy(self.normaliser.proprioception(columns["proprioception"][rows])),
            chunk=torch.from_numpy(columns["chunk"][rows]),
            valid=torch.from_numpy(columns["chunk_valid"][rows]),
            words=torch.from_numpy(words),
            goal=torch.from_numpy(index[:n]),
            target=torch.from_numpy((target / scale).astype(np.float32)),
            destination=torch.from_numpy((destination / scale).astype(np.float32)),
            named=torch.from_numpy(index[n:]),
            named_position=torch.from_numpy((position / scale).astype(np.float32)),
            named_destination=torch.from_numpy((goal_position / scale).astype(np.float32)),
            categories=torch.from_numpy(columns["categories"][rows].astype(np.int64)),
            values=torch.from_numpy((columns["values"][rows] / scale).astype(np.float32)),
        )

    def prefetched(self, start: int, depth: int = 3) -> Iterator[Batch]:
        """Batches from number `start` on, without end, made in a second thread."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(depth)
        stop = threading.Event()

        def put(item: Batch | BaseException) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.2)
                except queue.Full:
                    continue

        def work() -> None:
            number = start
            while not stop.is_set():
                try:
                    put(self.batch(number))
                except BaseException as error:  # carried to the training thread, which raises it
                    return put(error)
                number += 1

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def _images(self, camera: str, rows: NDArray[np.integer[Any]], rng: np.random.Generator) -> Tensor:
        """Patches, uint8; while training each image is shifted by a few pixels, its edge repeated."""
        images = self.frames.images(camera, rows)
        shift = self.options.shift
        if self._training and shift:
            size = images.shape[1]
            padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
            for image, wide, (dy, dx) in zip(
                images, padded, rng.integers(0, 2 * shift + 1, (len(rows), 2)), strict=True
            ):
                image[:] = wide[dy : dy + size, dx : dx + size]
        return patches(images)

    def _name_objects(
        self, objects: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Sentence numbers, positions and destinations [m] of random objects that one noun phrase singles out.

        The first `references` sentences a frame name one object, the next `pairs` two; nan where there is none.
        """
        n, single = len(objects), self.options.references
        sentences = single + self.options.pairs
        sentence = np.zeros((sentences, n), np.int64)
        position, destination = np.full((2, sentences, n, 3), np.nan, np.float32)
        if len(self._colour):
            colour, shape = objects[:, None, :, 0], objects[:, None, :, 1]
            fits = (colour >= 0) & ((colour == self._colour[:, None]) | (self._colour[:, None] < 0))
            fits &= (shape == self._shape[:, None]) | (self._shape[:, None] < 0)
            unique = fits.sum(2) == 1
            slot = fits.argmax(2)
            each = np.arange(n)
            alike = ((colour >= 0) & (colour == self._colour[:, None])).sum(2) > 1
            wanted = unique * (1.0 + 2.0 * (alike & (self._shape >= 0)))  # its shape alone tells it from another thing
            for i in range(sentences):
                chosen, other = np.argsort(-rng.random(unique.shape) * wanted, 1)[:, :2].T
                first, second = unique[each, chosen], unique[each, other] & unique[each, chosen]
                position[i] = np.where(first[:, None], objects[each, slot[each, chosen], 2:], np.nan)
                if i < single:
                    sentence[i] = self._draw(self._named, chosen, rng)
                    continue
                destination[i] = np.where(second[:, None], objects[each, slot[each, other], 2:], np.nan)
                sentence[i] = self._draw(self._moves, chosen * len(self._colour) + other, rng)
        return sentence.reshape(-1), position.reshape(-1, 3), destination.reshape(-1, 3)

    @staticmethod
    def _draw(
        groups: NDArray[np.int64], group: NDArray[np.integer[Any]], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        first, count = groups[group].T
        return np.asarray(first + (rng.random(len(group)) * count).astype(np.int64))


def sentences_of(frames: Frames) -> list[str]:
    """Every sentence that training may use; held-out wordings are not among them."""
    goals = [s for g in frames.meta.goals for s in g.paraphrases]
    phrases = [p for _, _, group in frames.meta.references for p in group]
    return [*goals, *(n.format(p) for p in phrases for n in NAMING), *(m.format(p, p) for p in phrases for m in MOVING)]


def _ragged(groups: list[tuple[str, ...]] | list[list[str]], start: int) -> NDArray[np.int64]:
    """[groups, 2]: number of the first sentence of each group, and how many it has."""
    counts = np.array([len(g) for g in groups], np.int64)
    first = start + np.cumsum(counts) - counts
    return np.stack([first, counts], 1) if len(groups) else np.zeros((0, 2), np.int64)
