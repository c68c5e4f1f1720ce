"""From similar states to one elite action prior: weights, consistency, average, confidence.

After Retrieve-then-Steer (arXiv 2605.10094): K = 10, softmax weights, candidates that agree by dynamic time warping,
confidence from similarity and spread, abstention otherwise. Its temperature is 0.05 in units of similarity, with which
all candidates between a threshold of 0.94 and 1 weigh nearly the same; here it is a share of what the threshold leaves.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vlamem.memory.success.experience.layout import ActionPart, comparable
from vlamem.memory.success.retrieve.aggregate import aggregate
from vlamem.memory.success.retrieve.consistency import consistent, warped, warped_distances


@dataclass(frozen=True)
class RetrieveOptions:
    """How a prior is made.

    Attributes:
        threshold: similarity below which a stored state is not like this one; from `vlamem memory calibrate`.
        neighbours: K, states that are looked at.
        temperature: of the weights, in shares of the room between the threshold and similarity 1.
        reach: warped distance per step within which two chunks agree [units of the layout's parts].
        agreement: share of the weight that must agree; less, and the memory abstains.
        consistency: False averages all candidates, whether they agree or not.
        similarity_gain, spread_gain, bias: confidence is sigmoid(bias + similarity_gain * u - spread_gain * spread /
            reach), where u is 0 at the threshold and 1 at similarity 1.
        most: upper bound of the confidence.
        outcomes: candidates weigh more or less by how episodes ended in which they were used.
        failures: confidence is lowered where the prior resembles what preceded failures.
        instruction: cosine of two instructions' vectors from which on they mean the same; see InstructionMatcher.
    """

    threshold: float = 0.9
    neighbours: int = 10
    temperature: float = 0.05
    reach: float = 0.5
    agreement: float = 0.5
    consistency: bool = True
    similarity_gain: float = 4.0
    spread_gain: float = 2.0
    bias: float = 0.0
    most: float = 1.0
    outcomes: bool = True
    failures: bool = True
    instruction: float = 0.98

    def __post_init__(self) -> None:
        for name, low, high in (
            ("threshold", -np.inf, 1.0), ("agreement", 0.0, 1.0), ("most", 0.0, 1.0), ("instruction", -1.0, 1.0),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}: expected {low:g} to {high:g}")
        if self.neighbours < 1 or self.temperature <= 0 or self.reach <= 0:
            raise ValueError(
                f"neighbours {self.neighbours}, temperature {self.temperature}, reach {self.reach}: expected 1 or more "
                "neighbours, and temperature and reach above 0"
            )


@dataclass(frozen=True)
class Candidates:
    """Stored segments near a state.

    Attributes:
        ids: of the segments, most similar first.
        similarity: of each, at most 1.
        chunks: what was done there.
        reliability: of each, about 1: expected success after use, relative to one that was never used.
    """

    ids: Int[np.ndarray, "k"]
    similarity: Float[np.ndarray, "k"]
    chunks: Float[np.ndarray, "k H A"]
    reliability: Float[np.ndarray, "k"]

    @classmethod
    def none(cls, horizon: int, action_size: int) -> "Candidates":
        """No segment at all."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, horizon, action_size), np.float32), np.zeros(0))


@dataclass(frozen=True)
class Prior:
    """The elite action prior retrieved for one state.

    Attributes:
        chunk: [H, A]; None when the memory abstains.
        confidence: 0 to 1; 0 when it abstains.
        used: ids of the segments in the chunk.
        similarity: of the nearest candidate, -inf without one.
        spread: mean warped distance of the used chunks from their mean, per step.
        why: "", or the reason of abstention: "unknown" (nothing similar enough) or "disagree".
        failure: 0 to 1, similarity to what preceded failures.
    """

    chunk: Float[np.ndarray, "H A"] | None
    confidence: float
    used: Int[np.ndarray, "u"]
    similarity: float
    spread: float
    why: str
    failure: float = 0.0


_NONE = np.zeros(0, np.int64)


def elite_prior(good: Candidates, bad: Candidates, parts: tuple[ActionPart, ...], options: RetrieveOptions) -> Prior:
    """The prior of one state from its nearest successes and its nearest failures (empty when there are none)."""
    best = float(good.similarity[0]) if len(good.ids) else -np.inf
    near = good.similarity >= options.threshold
    if not near.any():
        return Prior(None, 0.0, _NONE, best, 0.0, "unknown")
    ids, s, chunks = good.ids[near], good.similarity[near], good.chunks[near]
    room = max(1e-9, 1.0 - options.threshold)
    weights = np.exp((s - s.max()) / (options.temperature * room))
    if options.outcomes:
        weights = weights * good.reliability[near]
    weights /= weights.sum()
    if options.consistency and len(ids) > 1:
        agree = consistent(warped_distances(comparable(chunks, parts)), weights, options.reach)
        if weights[agree].sum() < options.agreement:
            return Prior(None, 0.0, _NONE, best, 0.0, "disagree")
        ids, s, chunks, weights = ids[agree], s[agree], chunks[agree], weights[agree] / weights[agree].sum()
    chunk = aggregate(chunks, weights, parts)
    spread = 0.0
    if len(ids) > 1:
        spread = float(weights @ np.linalg.norm(comparable(chunks - chunk, parts), axis=-1).mean(axis=1))
    known = (float(weights @ s) - options.threshold) / room
    logit = options.bias + options.similarity_gain * known - options.spread_gain * spread / options.reach
    failure = _failure_similarity(chunk, bad, parts, options) if options.failures else 0.0
    sure = float(min(options.most, 1.0 / (1.0 + np.exp(-logit)))) * (1.0 - failure)
    if options.outcomes:
        sure *= float(min(1.0, weights @ good.reliability[near][np.isin(good.ids[near], ids)]))
    return Prior(chunk, sure, ids, best, spread, "", failure)


def _failure_similarity(
    chunk: Float[np.ndarray, "H A"], bad: Candidates, parts: tuple[ActionPart, ...], options: RetrieveOptions
) -> float:
    """0 to 1: whether nearly this was done, from nearly here, before a failure."""
    near = bad.similarity >= options.threshold
    if not near.any():
        return 0.0
    alike = (bad.similarity[near] - options.threshold) / max(1e-9, 1.0 - options.threshold)
    before = comparable(bad.chunks[near], parts)
    pairs = np.broadcast_to(comparable(chunk, parts), before.shape)
    same = np.clip(1.0 - warped(pairs, before) / (0.5 * options.reach), 0.0, 1.0)
    return float(np.max(np.clip(alike, 0, 1) * same))
