"""Whether a memory that was taught remembers: the policy's loss with its own state, with another episode's, and bare.

A held-out loss alone means nothing: a memory that reads off the demonstrator's moving hand where it is going lowers it
as far, and is of no use to a robot that moves by itself. Such a memory does as well with another episode's state.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.stats import t as student

from vlamem.core.seeding import integer_seed, stream
from vlamem.memory.config import HeadConfig
from vlamem.memory.protocol import Memory, Params, State, StepOut
from vlamem.memory.train.demonstrations import Demonstration, DemonstrationData, Loss, Moments

__all__ = ["Compared", "TaskReport", "compare", "report"]


_DONORS = 3
"""Other episodes whose state each one is given in turn: some have the same answer by chance."""


class Compared(NamedTuple):
    """M moments of some episodes.

    Attributes:
        episode: [M], index of each moment's episode.
        weight: [M], of choice.
        bare, own, swapped: [M], the policy's loss without memory, with it, and with another episode's state.
        confidence: [M].
        hidden: [M, hidden], the head's hidden layer.
        writes: [episodes], of each; rate: the same per tick.
    """

    episode: Int[np.ndarray, "M"]
    weight: Float[np.ndarray, "M"]
    bare: Float[np.ndarray, "M"]
    own: Float[np.ndarray, "M"]
    swapped: Float[np.ndarray, "M"]
    confidence: Float[np.ndarray, "M"]
    hidden: Float[np.ndarray, "M hidden"]
    writes: Float[np.ndarray, "episodes"]
    rate: Float[np.ndarray, "episodes"]


class TaskReport(NamedTuple):
    """What held-out demonstrations of a task say, at moments of choice.

    Attributes:
        episodes: held out.
        bare, own, swapped: the frozen policy's mean loss without memory, with it, and with another episode's state.
        injected: the same with the memory where it is confident, and without it elsewhere.
        gain, gain_low, gain_high: mean over episodes of bare - injected, and its 95 % interval (Student's t).
        kept, kept_low, kept_high: the same of swapped - own, what the memory knows of this very episode.
        writes, rate: an episode and a tick.
        confident: weighted share of moments of choice at which it does not abstain.
    """

    episodes: int
    bare: float
    own: float
    swapped: float
    injected: float
    gain: float
    gain_low: float
    gain_high: float
    kept: float
    kept_low: float
    kept_high: float
    writes: float
    rate: float
    confident: float

    @property
    def remembers(self) -> bool:
        """Whether the policy's loss falls, and is shown to depend on what was seen in this very episode.

        How far it falls is a matter of few held-out choices, at which a wrong one costs more than a right one saves.
        """
        return self.gain > 0 and self.kept_low > 0


def compare(
    memory: Memory,
    params: Params,
    data: DemonstrationData,
    episodes: Sequence[Demonstration],
    loss: Loss,
    most: int | None = None,
    wording: int = 0,
    seed: int = 0,
) -> Compared:
    """The memory over whole episodes of one task; the loss at each one's `most` ticks of greatest weight, or at all.

    Another episode's state is that of random other ones, as long before or after their greatest moment of choice.
    """
    rows = data.episodes(episodes, [wording] * len(episodes))
    states, wrote = _run(memory)(params, rows.zs)
    at = [_greatest(e, most) for e in episodes]
    index = np.repeat(np.arange(len(episodes)), [len(a) for a in at])
    ticks = np.concatenate([e.tick[a] for e, a in zip(episodes, at, strict=True)])
    zs = rows.zs[ticks, index]
    moments = Moments.join([data.moments(e, a, wording) for e, a in zip(episodes, at, strict=True)])
    noise, rng = integer_seed(seed, "swap", "noise"), stream(seed, "swap")

    def with_state(episode: Int[np.ndarray, "M"], tick: Int[np.ndarray, "M"]) -> tuple[StepOut, Float[np.ndarray, "M"]]:
        out: StepOut = _read(memory)(params, jax.tree.map(lambda x: x[tick, episode], states), zs)
        return out, loss(moments, np.asarray(out.context), noise)[0]

    bare, _ = loss(moments, np.zeros_like(moments.context), noise)
    out, own = with_state(index, ticks)
    swapped = np.mean([with_state(*_donors(episodes, index, ticks, rng))[1] for _ in range(_DONORS)], axis=0)
    inside = np.asarray(wrote) & rows.inside
    hidden = _hidden(memory, params, zs, jax.tree.map(lambda x: x[ticks, index], states))
    weight = np.concatenate([e.weight[a] for e, a in zip(episodes, at, strict=True)])
    writes = inside.sum(0).astype(float)
    return Compared(
        index, weight, bare, own, swapped, np.asarray(out.confidence), hidden, writes, writes / rows.inside.sum(0)
    )


def report(found: Compared, abstain_below: float = 0.5) -> TaskReport:
    """What a comparison says, weighed by choice."""
    weight = found.weight + 1e-9
    confident = found.confidence >= abstain_below
    injected = np.where(confident, found.own, found.bare)

    def mean(x: Float[np.ndarray, "M"]) -> float:
        return float(np.average(x, weights=weight))

    def over_episodes(x: Float[np.ndarray, "M"]) -> tuple[float, float, float]:
        each = np.array([np.average(x[m], weights=weight[m]) for m in _by_episode(found)])
        half = float(student.ppf(0.975, len(each) - 1)) * float(each.std(ddof=1)) / np.sqrt(len(each))
        return float(each.mean()), float(each.mean() - half), float(each.mean() + half)

    return TaskReport(
        len(found.writes),
        mean(found.bare),
        mean(found.own),
        mean(found.swapped),
        mean(injected),
        *over_episodes(found.bare - injected),
        *over_episodes(found.swapped - found.own),
        float(found.writes.mean()),
        float(found.rate.mean()),
        mean(confident.astype(float)),
    )


def _by_episode(found: Compared) -> list[Bool[np.ndarray, "M"]]:
    return [found.episode == i for i in np.unique(found.episode)]


def _greatest(episode: Demonstration, most: int | None) -> Int[np.ndarray, "P"]:
    order = np.argsort(-episode.weight, kind="stable")
    return np.sort(order if most is None else order[:most])


def _donors(
    episodes: Sequence[Demonstration],
    index: Int[np.ndarray, "M"],
    ticks: Int[np.ndarray, "M"],
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]:
    """The other episode of each moment's episode, and its tick."""
    other = (np.arange(len(episodes)) + rng.integers(1, len(episodes), len(episodes))) % len(episodes)
    choice = np.array([e.tick[int(e.weight.argmax())] for e in episodes])
    last = np.array([len(e.z) - 1 for e in episodes])
    donor = other[index]
    return donor, np.clip(ticks - choice[index] + choice[donor], 0, last[donor])


@cache
def _run(memory: Memory) -> Callable[..., tuple[State, Array]]:
    """State before each tick, with a leading axis of ticks, and whether each tick wrote."""

    def tick(params: Params, state: State, z: Array) -> tuple[State, tuple[State, Array]]:
        after, out = memory.step(params, state, z, jnp.zeros(z.shape[0], bool))
        return after, (state, out.wrote)

    def run(params: Params, zs: Array) -> tuple[State, Array]:
        found: tuple[State, Array] = jax.lax.scan(lambda s, z: tick(params, s, z), memory.init(zs.shape[1]), zs)[1]
        return found

    return jax.jit(run)


@cache
def _read(memory: Memory) -> Callable[..., Any]:
    return jax.jit(lambda params, state, z: memory.step(params, state, z, jnp.zeros(z.shape[0], bool))[1])


def _hidden(
    memory: Memory, params: Params, zs: Float[np.ndarray, "M F"], states: State
) -> Float[np.ndarray, "M hidden"]:
    """The head's hidden layer: what a head whose last layer is the identity proposes."""
    size = memory.head.hidden
    bare = memory.with_head(HeadConfig(context=size, hidden=size))
    out = jnp.concatenate([jnp.zeros((size, 1)), jnp.eye(size)], axis=1)
    head = params.head._replace(out=out, out_bias=jnp.zeros(1 + size))
    return np.asarray(_read(bare)(params._replace(head=head), states, zs).context)
