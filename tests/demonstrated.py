"""Demonstrations for tests, made without a simulator: a cue is seen early, what is done at the choice depends on it.

The policy of these tests is one number field: its loss of a chunk is the squared distance between what the chunk does
and the residual that it is given, so that the best residual is known.
"""

from pathlib import Path

import numpy as np
from recorded_features import ANSWERS, CHUNK, D, contexts, meta

from vlamem.core.seeding import stream
from vlamem.memory.train.conditioning import Conditioned, write_conditioning
from vlamem.memory.train.demonstrations import Moments
from vlamem.memory.train.features import EpisodeTicks, FeatureWriter

TICKS, CHOICE = 20, 12
C = 4


def wanted(chunk: np.ndarray) -> np.ndarray:
    """[M, C], the residual under which the policy would do a chunk: what its first action says, in every entry."""
    return chunk[:, 0, :C]


class SquaredLoss:
    """|residual - wanted|^2 where something is done, and nothing that a residual could change where it waits."""

    def __call__(self, moments: Moments, residual: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        off = (residual - wanted(moments.chunk)) * (moments.chunk[:, 0, -1:] != 0)
        return np.square(off).mean(1), (2 * off / off.shape[1]).astype(np.float32)


def answer_of(task: str, number: int) -> int:
    return int(stream(0, "answer", task, number).integers(ANSWERS))


def codes() -> np.ndarray:
    """[ANSWERS, 7], what each answer does."""
    found: np.ndarray = stream(0, "codes").choice([-1.0, 1.0], (ANSWERS, CHUNK[1]))
    found[:, :3] = 2 * np.eye(3)[:ANSWERS] - 1
    return found


def episode(number: int, task: str, copycat: bool = False) -> tuple[EpisodeTicks, Conditioned]:
    """In `remember` the cue is on at ticks 3 to 6 and the choice at ticks 12 and 13.

    A copycat's cue is on while it acts and never before: z tells what is done, as a moving hand does.
    """
    draw, answer = stream(0, "demonstration", task, number), answer_of(task, number)
    z = 0.3 * draw.standard_normal((TICKS, D))
    acting = (np.arange(TICKS) >= CHOICE) & (np.arange(TICKS) < CHOICE + 2)
    shown = acting if copycat else (np.arange(TICKS) >= 3) & (np.arange(TICKS) < 7)
    if task == "remember":
        z[shown, answer] += 6.0
    z[acting, 10] += 4.0
    chunk = np.zeros((TICKS, *CHUNK))
    if task == "remember":  # a skill is done as the sentence alone says
        chunk[acting] = codes()[answer]
    chunk[acting, :, -1] = 1.0
    told = np.full((TICKS, 2), 0 if task == "remember" else 1)
    ticks = EpisodeTicks(z, chunk, told, np.zeros(TICKS, int))
    at = np.arange(0, TICKS, 2)
    disagreement = np.where(acting[at], 0.5, 0.01)
    return ticks, Conditioned(at, disagreement, np.zeros((len(at), 3)))


def record(
    folder: Path,
    episodes: int = 100,
    tasks: tuple[str, ...] = ("remember",),
    copycat: bool = False,
    answers: bool = False,
    shuffled: bool = False,
) -> Path:
    """A recording; with `answers` its columns say them, which no one may read. `shuffled`: what is done is taken from
    another episode than what is seen."""
    writer = FeatureWriter(folder, meta(), contexts())
    for number in range(episodes):
        for task in tasks:
            ticks, rows = episode(number, task, copycat)
            if shuffled:
                ticks.chunk[:] = episode(number + 1000, task, copycat)[0].chunk
            if answers:
                ticks.goal[:, 1], ticks.asked[:] = 1 + answer_of(task, number), 1
            write_conditioning(folder, task, number, "expert", rows)
            writer.add(task, number, "expert", ticks, True)
    writer.close()
    return folder
