"""Residual priors: one correction of every command of the policy, learned from which trials a verifier passed.

A bias of the actuator, a moved camera or a table of another height makes the same error in every state, so that what
corrects it holds in states that were never seen. Each trial is played with one offset added to the translations that
the policy commands. How success depends on the offset is modelled as a Gaussian curve of unknown centre, widths and
height, whose posterior is drawn by Markov chain Monte Carlo. While there is much to learn the next offset is a draw of
the centre (Thompson sampling), later the offset of the highest expected success, or none where none promises more than
the policy alone.

Sources: residual policies on a fixed controller (Johannink et al., arXiv 1812.03201); Thompson sampling (Russo et al.,
arXiv 1707.02038); the affine-invariant ensemble sampler (Goodman and Weare, 2010).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import stream
from vlamem.memory.success.experience.layout import Layout
from vlamem.memory.success.experience.records import StoredTrial

_WALKERS = 64
_DRAWS = 2048
"""Draws of the prior, of which the walkers are taken by their posterior."""
_FLOOR = 1e-3
"""Least chance of either outcome: the curve is a model."""


@dataclass(frozen=True)
class ResidualOptions:
    """How a residual prior is learned.

    Attributes:
        explore: trials that are played to learn; after them the best offset is played.
        control: one of this many of these is played without an offset.
        patience: exploring trials after which the search is given up when no trial was verified as a success.
        recent: trials that are looked at, the newest: a place can change.
        reach: standard deviation of the prior of the best offset [action units].
        width: median of the prior of how far from it an offset may lie [action units].
        gain: expected success above the policy alone, 0 to 1, from which on an offset is played.
        steps: of the chain.
        seed: of the draws.
    """

    explore: int = 80
    control: int = 8
    patience: int = 24
    recent: int = 300
    reach: float = 0.15
    width: float = 0.2
    gain: float = 0.03
    steps: int = 80
    seed: int = 0

    def __post_init__(self) -> None:
        if self.explore < 0 or self.recent < 1 or self.control < 2 or self.steps < 1 or self.patience < 1:
            raise ValueError(
                f"explore {self.explore}, control {self.control}, patience {self.patience}, recent {self.recent}, "
                f"steps {self.steps}: expected 0 or more trials to explore, 2 or more for control, and 1 or more of "
                "the others"
            )
        if min(self.reach, self.width) <= 0 or not 0 <= self.gain < 1:
            raise ValueError(
                f"reach {self.reach}, width {self.width}, gain {self.gain}: expected lengths above 0 and a gain of 0 "
                "to 1"
            )


@dataclass(frozen=True)
class Residual:
    """What is added to the policy's commands in the next trial.

    Attributes:
        offset: [A], 0 outside the translations, and everywhere where the memory abstains.
        trials, verified: behind it.
        expected: success that the model expects with it, 0 to 1, in units of what the verifier passes.
        alone: the same without an offset.
        why: "explore", "control", "best", or the reason of abstention: "no gain", "nothing verified".
    """

    offset: Float[np.ndarray, "A"]
    trials: int
    verified: int
    expected: float
    alone: float
    why: str


def translations(layout: Layout) -> list[int]:
    """Places of the action entries that an offset may change: the first linear part."""
    start = 0
    for part in layout.parts:
        if part.kind == "linear":
            return list(range(start, start + part.size))
        start += part.size
    return []


def residual_prior(trials: Sequence[StoredTrial], layout: Layout, options: ResidualOptions, explore: bool) -> Residual:
    """The offset of the next trial, a function of the trials before it.

    With `explore` the first `options.explore` trials are played to learn; without, only what is known is used.
    """
    at = translations(layout)
    none = np.zeros(layout.action_size)
    verified = np.array([t.outcome == "success" for t in trials[-options.recent :]], float)
    count, passed = len(trials), int(verified.sum())
    exploring = explore and count < options.explore
    if count >= options.patience and not passed:
        return Residual(none, count, 0, 0.0, 0.0, "nothing verified")
    if exploring and count % options.control == 0:
        return Residual(none, count, passed, 0.0, 0.0, "control")
    if not count and not exploring:
        return Residual(none, 0, 0, 0.0, 0.0, "no gain")
    rng = stream(options.seed, "residual", count)
    tried = np.array([t.offset[at] for t in trials[-options.recent :]], float).reshape(-1, len(at))
    drawn = posterior(tried, verified, options, rng)
    centres = drawn[:, 1 : 1 + len(at)]
    candidates = np.concatenate([np.zeros((1, len(at))), centres.mean(axis=0)[None], centres])
    expected = success_at(drawn, candidates)
    alone = float(expected[0])
    best = int(rng.integers(2, len(candidates))) if exploring else int(np.argmax(expected))
    if not exploring and expected[best] < alone + options.gain:
        return Residual(none, count, passed, alone, alone, "no gain")
    offset = none.copy()
    offset[at] = np.clip(candidates[best], -1.0, 1.0)
    return Residual(offset, count, passed, float(expected[best]), alone, "explore" if exploring else "best")


def posterior(
    tried: Float[np.ndarray, "N d"],
    verified: Float[np.ndarray, "N"],
    options: ResidualOptions,
    rng: np.random.Generator,
) -> Float[np.ndarray, "W 1+2d"]:
    """Draws of (logit of the height, centre, log widths) of the curve, given offsets and whether each trial passed."""
    d = tried.shape[1]
    start = np.concatenate(
        [
            rng.normal(1.0, 1.5, (_DRAWS, 1)),
            rng.normal(0.0, options.reach, (_DRAWS, d)),
            rng.normal(np.log(options.width), 0.5, (_DRAWS, d)),
        ],
        axis=1,
    )
    score = _log_posterior(start, tried, verified, options)
    likelihood = score - _log_prior(start, d, options)
    chosen = np.argsort(rng.gumbel(size=_DRAWS) + likelihood)[-_WALKERS:]  # without replacement, by likelihood
    x, score = start[chosen], score[chosen]
    half = _WALKERS // 2
    for _ in range(options.steps):
        for moved, others in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
            stretch = 0.5 * (1.0 + rng.random(half)) ** 2
            anchor = x[others][rng.integers(half, size=half)]
            there = anchor + stretch[:, None] * (x[moved] - anchor)
            new = _log_posterior(there, tried, verified, options)
            taken = np.log(rng.random(half)) < 2 * d * np.log(stretch) + new - score[moved]
            x[moved] = np.where(taken[:, None], there, x[moved])
            score[moved] = np.where(taken, new, score[moved])
    return np.asarray(x)


def success_at(drawn: Float[np.ndarray, "W 1+2d"], offsets: Float[np.ndarray, "M d"]) -> Float[np.ndarray, "M"]:
    """Expected share of trials that a verifier passes with each offset, 0 to 1."""
    return np.asarray(np.exp(_log_success(drawn, offsets)).mean(axis=0))


def _log_success(x: Float[np.ndarray, "W 1+2d"], offsets: Float[np.ndarray, "M d"]) -> Float[np.ndarray, "W M"]:
    d = offsets.shape[1]
    precision = np.exp(-2.0 * x[:, 1 + d :])
    centre = x[:, 1 : 1 + d]
    apart = precision @ (offsets**2).T - 2.0 * (precision * centre) @ offsets.T
    apart += (precision * centre**2).sum(axis=1)[:, None]
    return np.asarray(-np.logaddexp(0.0, -x[:, :1]) - 0.5 * np.maximum(apart, 0.0))


def _log_prior(x: Float[np.ndarray, "W 1+2d"], d: int, options: ResidualOptions) -> Float[np.ndarray, "W"]:
    height = ((x[:, 0] - 1.0) / 1.5) ** 2
    centre = ((x[:, 1 : 1 + d] / options.reach) ** 2).sum(axis=1)
    widths = (((x[:, 1 + d :] - np.log(options.width)) / 0.5) ** 2).sum(axis=1)
    return np.asarray(-0.5 * (height + centre + widths))


def _log_posterior(
    x: Float[np.ndarray, "W 1+2d"],
    tried: Float[np.ndarray, "N d"],
    verified: Float[np.ndarray, "N"],
    options: ResidualOptions,
) -> Float[np.ndarray, "W"]:
    chance = np.clip(np.exp(_log_success(x, tried)), _FLOOR, 1.0 - _FLOOR)
    likelihood = np.log(chance) @ verified + np.log1p(-chance) @ (1.0 - verified)
    return np.asarray(likelihood + _log_prior(x, tried.shape[1], options))
