"""What a memory is trained on: the error of what it proposes, the cost of writing, and two signals for the gate.

Shapes: T ticks, B rows, H x A action chunk, C context size. Everything takes a memory of the protocol, so that every
design is trained by the same code.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vlamem.memory.protocol import Memory, Params, State, StepOut, scan

DECIDED = 1e4
"""Added to a gate's logit, it decides whatever the gate says."""


class Targets(NamedTuple):
    """What should have been proposed; at least one of answer, chunk and context.

    Attributes:
        weight: [T, B], how much each tick's error counts; 0 for ticks that need no answer.
        answer: [T, B], right answer of a benchmark.
        chunk: [T, B, H, A], the expert's chunk in the policy's normalised action space.
        context: [T, B, C], residual on the policy's context under the instruction that tells the answer.
    """

    weight: Float[Array, "T B"]
    answer: Int[Array, "T B"] | None = None
    chunk: Float[Array, "T B H A"] | None = None
    context: Float[Array, "T B C"] | None = None


class Batch(NamedTuple):
    """B recorded rows of T ticks, time first; `events` marks the ticks worth a write where a benchmark knows them."""

    zs: Float[Array, "T B D"]
    resets: Bool[Array, "T B"]
    targets: Targets
    events: Bool[Array, "T B"] | None = None


class Losses(NamedTuple):
    """Scalars of one batch.

    Attributes:
        action_error: weighted mean error of what was proposed.
        rate: writes per tick.
        gate_loss: what trained the gate beside the action error.
    """

    action_error: Float[Array, ""]
    rate: Float[Array, ""]
    gate_loss: Float[Array, ""]


def action_error(out: StepOut, targets: Targets) -> Float[Array, "T B"]:
    """Error of the proposal at every tick: cross-entropy [nats] of answers, mean squared error of chunk and context.

    Raises ValueError when the memory's head proposes none of the targets.
    """
    error = jnp.zeros_like(targets.weight)
    for name in ("answer", "chunk", "context"):
        target, proposed = getattr(targets, name), getattr(out, name)
        if target is None:
            continue
        if proposed is None:
            raise ValueError(f"targets have a {name}, the memory's head proposes none: give its HeadConfig a {name}")
        if name == "answer":
            error += -jnp.take_along_axis(jax.nn.log_softmax(proposed), target[..., None], axis=-1)[..., 0]
        else:
            error += jnp.mean(jnp.square(proposed - target), axis=tuple(range(2, target.ndim)))
    return error


def weighted_mean(x: Float[Array, "T B"], weight: Float[Array, "T B"]) -> Float[Array, ""]:
    """Mean of x under `weight`, 0 where all weights are."""
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1e-6)


def charge(p: Float[Array, "..."]) -> Float[Array, "..."]:
    """What a gate pays for opening with probability p: -log(1 - p), the softplus of its logit.

    Its gradient by the logit is p, so that a gate that has become sure of itself still feels the cost; that of p
    itself vanishes there, and repeats, which look like the events they repeat, would be written for good.
    """
    return -jnp.log1p(-jnp.clip(p, 0.0, 1.0 - 1e-6))


def straight_through_loss(
    memory: Memory, params: Params, batch: Batch, cost: Array, key: Array, state: State | None = None, noise: Any = 1.0
) -> tuple[Float[Array, ""], tuple[Losses, State]]:
    """Action error plus `cost` per write: back-propagation through time, straight through the gate's threshold.

    A learned gate's decision is drawn from its p (`noise` 1; at 0 it is p > 1/2, as when it is used). Were it always
    p > 1/2, every write that the memory needs would have been made already, its error's gradient would be next to
    nothing, and the cost alone would move the gate.
    Also right for every memory whose gate is not trained by the action error: the reconstruction gate's own objective
    is part of the sum.
    """
    state = memory.init(batch.zs.shape[1]) if state is None else state
    drawn = memory.gate_signal == "straight-through"
    force = noise * jax.random.logistic(key, batch.resets.shape) if drawn else None
    state, out = scan(memory, params, state, batch.zs, batch.resets, batch.events, force)
    error = weighted_mean(action_error(out, batch.targets), batch.targets.weight)
    own = jnp.mean(out.gate_loss)
    losses = Losses(error, jnp.mean(out.wrote.astype(jnp.float32)), own)
    return error + own + cost * jnp.mean(charge(out.gate)), (losses, state)


def _flips(key: Array, wrote: Bool[Array, "T B"], copies: int) -> Bool[Array, "T B copies"]:
    """One tick of every copy, as often one that wrote as one that did not."""
    open_, shut = wrote.astype(jnp.float32), 1.0 - wrote.astype(jnp.float32)
    share = open_ / jnp.maximum(open_.sum(0), 1.0) + shut / jnp.maximum(shut.sum(0), 1.0)
    at = jax.random.categorical(key, jnp.log(share + 1e-9).T[:, None], shape=(wrote.shape[1], copies))
    return jnp.arange(wrote.shape[0])[:, None, None] == at


def counterfactual_loss(
    memory: Memory,
    params: Params,
    batch: Batch,
    cost: Array,
    key: Array,
    copies: int = 4,
    start: State | None = None,
) -> tuple[Float[Array, ""], tuple[Losses, State]]:
    """Action error for everything but the gate; the gate learns what each write is worth by undoing it.

    Each row is run again in `copies` copies, each with one tick's decision turned over and all others kept. With
    worth = (following error without the write) - (following error with it), in the units of the action error per tick,
    the gate's p at that tick is drawn to 1 where worth is above the cost and to 0 where it is not.

    Raises ValueError for a memory whose gate is not taught so.
    """
    if memory.gate_signal != "counterfactual":
        raise ValueError(f"the counterfactual signal does not teach the gate of {type(memory).__name__}")
    start = memory.init(batch.zs.shape[1]) if start is None else start
    state = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), start)
    end, out = scan(memory, params, start, batch.zs, batch.resets, batch.events)
    error, weight = action_error(out, batch.targets), batch.targets.weight
    flip = _flips(key, out.wrote, copies)

    def repeat(x: Array) -> Array:
        return jnp.repeat(x, copies, axis=1)

    decided = repeat(jnp.where(out.wrote, 1.0, -1.0))
    force = DECIDED * jnp.where(flip.reshape(decided.shape), -decided, decided)
    fixed = jax.lax.stop_gradient(params)
    _, other = scan(memory, fixed, state, repeat(batch.zs), repeat(batch.resets), None, force)
    undone = action_error(other, jax.tree.map(repeat, batch.targets))
    at = flip.reshape(decided.shape)
    worth = decided * jnp.sum((undone - repeat(error)) * repeat(weight), axis=0)
    gain = jax.lax.stop_gradient(worth) * weight.size / jnp.maximum(jnp.sum(weight), 1e-6) - cost
    # logistic regression on whether the write pays, weighed by how much hangs on it
    p = jnp.clip(repeat(out.gate), 1e-6, 1.0 - 1e-6)
    miss = -jnp.where(gain > 0, jnp.log(p), jnp.log1p(-p)) * jnp.minimum(jnp.abs(gain), 4.0)
    pull = jnp.sum(jnp.where(at, miss, 0.0)) / at.shape[1]
    mean_error = weighted_mean(error, weight)
    losses = Losses(mean_error, jnp.mean(out.wrote.astype(jnp.float32)), pull)
    return mean_error + pull, (losses, end)
