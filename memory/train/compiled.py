"""What a training on recorded features compiles.

Recordings and parameters are arguments, and each function is kept: as constants of it, every training and every
recording would be compiled for anew.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from vlamem.memory.protocol import Memory, Params, StepOut, scan
from vlamem.memory.train.loop import Pace, TrainConfig, Training, update
from vlamem.memory.train.losses import Batch, Losses, action_error

__all__ = ["HeadParts", "Truth", "calibration", "looked", "masked", "right_at", "state_sizes", "updated"]


class HeadParts(NamedTuple):
    """Which weights of a head may be other than 0: 1 or 0, in the shapes of its z and out."""

    z: Array
    out: Array


def masked(params: Params, parts: HeadParts) -> Params:
    """`params` with what is outside the parts of its head set to 0."""
    head = params.head
    return params._replace(head=head._replace(z=head.z * parts.z, out=head.out * parts.out))


class Truth(NamedTuple):
    """What a proposed context is compared with.

    Attributes:
        goal: [T, B, 2], instruction given and oracle's.
        own: [T, B, C], context of the one that was given.
        canonical: [G, C], those of all.
        scale: of a proposal in training's units.
    """

    goal: Any
    own: Any
    canonical: Any
    scale: Any


def right_at(out: StepOut, truth: Truth) -> Array:
    """[T, B], whether the nearest instruction to what is proposed is the oracle's."""
    proposed = truth.own + truth.scale * jnp.asarray(out.context)
    distance = jnp.sum(truth.canonical**2, axis=-1) - 2 * proposed @ truth.canonical.T
    right: Array = jnp.argmin(distance, axis=-1) == truth.goal[..., 1]
    return right


@cache
def updated(memory: Memory, config: TrainConfig) -> Callable[..., tuple[Training, Losses]]:
    """`update`, after which the head is within its parts."""

    def one(before: Training, batch: Batch, key: Array, at: Pace, parts: HeadParts) -> tuple[Training, Losses]:
        after, losses = update(memory, config, before, batch, key, at)
        return after._replace(params=masked(after.params, parts)), losses

    return jax.jit(one, donate_argnums=0)


@cache
def state_sizes(memory: Memory) -> Callable[..., Array]:
    """The size of each row's state after each of some parts of an episode, of which the ticks have two leading axes."""

    def run(params: Params, zs: Array, resets: Array) -> Array:
        def look(state: Any, part: tuple[Array, Array]) -> tuple[Any, Array]:
            state, _ = scan(memory, params, state, *part)
            return state, jnp.asarray(memory.state_size(state))

        sizes: Array = jax.lax.scan(look, memory.init(zs.shape[2]), (zs, resets))[1]
        return sizes

    return jax.jit(run)


@cache
def calibration(memory: Memory, updates: int) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimizer of the head's column of confidence, and its step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, updates))

    def loss(column: tuple[Array, Array], params: Params, left: Any, batch: Batch, label: Array) -> Array:
        out_, bias_ = params.head.out.at[:, 0].set(column[0]), params.head.out_bias.at[0].set(column[1])
        made = params._replace(head=params.head._replace(out=out_, out_bias=bias_))
        _, out = scan(memory, made, left, batch.zs, batch.resets)
        p = jnp.clip(out.confidence, 1e-6, 1 - 1e-6)
        return -jnp.mean(jnp.where(label, jnp.log(p), jnp.log1p(-p)))

    def step(params: Params, column: Any, state: Any, left: Any, batch: Batch, truth: Truth, query: Array) -> Any:
        after, out = scan(memory, params, left, batch.zs, batch.resets)
        label = query > 0 if out.context is None else (query > 0) & right_at(out, truth)
        moves, state = optimizer.update(jax.grad(loss)(column, params, left, batch, label), state)
        return optax.apply_updates(column, moves), state, after if memory.carries_state_in_training else left

    return optimizer, jax.jit(step)


@cache
def looked(memory: Memory) -> Callable[..., tuple[Array, Array, Array]]:
    """Error of each tick from empty states, whether the oracle's instruction is proposed, and whether it wrote."""

    def run(params: Params, batch: Batch, truth: Truth) -> tuple[Array, Array, Array]:
        _, out = scan(memory, params, memory.init(batch.zs.shape[1]), batch.zs, batch.resets)
        right = out.wrote & False if out.context is None else right_at(out, truth)
        return action_error(out, batch.targets), right, out.wrote

    return jax.jit(run)
