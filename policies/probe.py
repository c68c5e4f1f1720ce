"""What a policy's feature carries: linear probes on recorded observations, one line a tap."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from vlamem.core.observation import Observation
from vlamem.policies.protocol import FrozenPolicy

FOLDS = 5
_RIDGE = 0.01
_WARM = 2


class ProbeError(ValueError):
    """A recording that cannot be probed; the message says what is missing."""


@dataclass(frozen=True)
class Recording:
    """Observations with what a probe is to find in them.

    Attributes:
        observations: batches of rows, in order.
        cue: [N], class of what must be remembered while it can be seen, -1 elsewhere.
        progress: [N], share of the episode that has passed, 0 to 1.
        episode: [N], which episode a row is of; a probe is never tested on an episode that it was trained on.
    """

    observations: Sequence[Observation]
    cue: Int[np.ndarray, "N"]
    progress: Float[np.ndarray, "N"]
    episode: Int[np.ndarray, "N"]


@dataclass(frozen=True)
class ProbeResult:
    """What a linear probe finds in a feature, cross-validated over episodes.

    Attributes:
        tap: where the feature is read.
        size: of the feature.
        milliseconds: of reading the feature of one row, median: what a memory's tick costs.
        plan_milliseconds: of a chunk for one row from its observation, median: what a plan costs without a memory.
        cue: accuracy of the cue's class, 0 to 1, over `cue_n` frames.
        chance: share of the commonest class.
        cue_p: of a number right this high by chance (one-sided binomial; frames of an episode are not independent).
        cue_n: frames in which the cue can be seen.
        proprioception, progress: R^2, 1 is all and 0 is nothing.
        n: frames.
    """

    tap: str
    size: int
    milliseconds: float
    plan_milliseconds: float
    cue: float
    chance: float
    cue_p: float
    cue_n: int
    proprioception: float
    progress: float
    n: int


def probe(policy: FrozenPolicy, recording: Recording, tap: str) -> ProbeResult:
    """Encodes every observation and probes the feature.

    Raises ProbeError with fewer than FOLDS episodes, or when the cue has one class alone.
    """
    episodes = np.unique(recording.episode)
    if len(episodes) < FOLDS:
        raise ProbeError(f"{len(episodes)} episodes cannot be split {FOLDS} ways: record {FOLDS} or more")
    seen = recording.cue >= 0
    if len(np.unique(recording.cue[seen])) < 2:
        raise ProbeError(
            f"the cue has {len(np.unique(recording.cue[seen]))} class: record more episodes, or another cue"
        )
    z = np.concatenate([policy.encode(obs).z for obs in recording.observations]).astype(np.float64)
    states = [obs.proprioception for obs in recording.observations]
    body = np.concatenate([s if s.ndim == 2 else s[:, -1] for s in states]).astype(np.float64)
    cue = recording.cue[seen]
    guessed = _held_out(z[seen], np.eye(int(cue.max()) + 1)[cue], recording.episode[seen]).argmax(1)
    right, chance = int((guessed == cue).sum()), float(np.bincount(cue).max() / len(cue))
    body = body[:, body.std(0) > 1e-6]
    where = _r2(body, _held_out(z, body, recording.episode))
    when = recording.progress[:, None].astype(np.float64)
    return ProbeResult(
        tap,
        z.shape[1],
        *_milliseconds(policy, recording.observations[0]),
        right / len(cue),
        chance,
        float(stats.binomtest(right, len(cue), chance, alternative="greater").pvalue),
        len(cue),
        where,
        _r2(when, _held_out(z, when, recording.episode)),
        len(z),
    )


def _held_out(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], group: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n k"]:
    """Ridge predictions for each row by a probe that was trained on other episodes."""
    fold = np.searchsorted(np.unique(group), group) % FOLDS
    found = np.zeros_like(y, dtype=np.float64)
    for number in range(FOLDS):
        test = fold == number
        if not test.any() or test.all():
            continue
        mean, spread = x[~test].mean(0), x[~test].std(0)
        scaled = (x - mean) / np.maximum(spread, 1e-6 + 1e-3 * spread.max())
        known, centre = scaled[~test], y[~test].mean(0)
        kernel = known @ known.T
        ridge = _RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
        found[test] = scaled[test] @ known.T @ np.linalg.solve(kernel + ridge, y[~test] - centre) + centre
    return found


def _r2(y: Float[np.ndarray, "n k"], guessed: Float[np.ndarray, "n k"]) -> float:
    """Share of the variance explained, averaged over components."""
    error, spread = ((y - guessed) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    return float((1 - error / np.maximum(spread, 1e-12)).mean())


def _milliseconds(policy: FrozenPolicy, obs: Observation) -> tuple[float, float]:
    """Median times of reading the feature of one row, and of a chunk from its observation without a memory.

    The two begin anew each: what a policy does in `encode` and what it leaves to `sample` differs between policies.
    """
    one = Observation({n: i[:1] for n, i in obs.images.items()}, obs.proprioception[:1], obs.instruction[:1])
    noise = np.zeros((1, policy.spec.horizon, policy.spec.action.size), np.float32)
    ticks, plans = [], []
    for _ in range(_WARM + 7):
        began = time.perf_counter()
        _ = policy.encode(one).z
        ticks.append(1e3 * (time.perf_counter() - began))
        began = time.perf_counter()
        policy.sample(policy.encode(one), noise)
        plans.append(1e3 * (time.perf_counter() - began))
    return float(np.median(ticks[_WARM:])), float(np.median(plans[_WARM:]))
