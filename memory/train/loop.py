"""Training of memories over recorded or generated features; the frozen policy is never touched.

One jitted update for every design; a run depends on its key alone, so that seeds run side by side.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vlamem.memory.protocol import Memory, Params, State, reset_rows, scan
from vlamem.memory.train.losses import Batch, Losses, counterfactual_loss, straight_through_loss

OPTIMIZERS = ("adamw", "muon", "adafactor")
SIGNALS = ("straight-through", "counterfactual")

Draw = Callable[[Array], Batch]
"""A batch from a JAX key; jitted and vmapped over seeds."""


@dataclass(frozen=True)
class TrainConfig:
    """How a memory is trained.

    Attributes:
        updates: gradient updates.
        learning_rate: at its peak; warmed up over the first tenth, then a cosine down to a twentieth.
        optimizer: one of OPTIMIZERS; adafactor keeps no full second moments, for little memory.
        weight_decay: of matrices; vectors and scalars are not decayed.
        clip: bound on the global gradient norm.
        signal: what trains a learned gate, one of SIGNALS.
        copies: runs a row of the counterfactual signal.
        write_cost: cost of writing at every tick, in units of the action error.
        ramp: shares of the updates between which the write cost rises from a twentieth to the whole; a gate that is
            charged before its memory is of use closes for good.
        rate: writes per tick that a Lagrange multiplier holds, in (0, 1]; None leaves write_cost as it is.
        noise_anneal: shares of the updates between which, where a rate is asked, the noise on a learned gate's logit
            falls from 1 to 0: what is held at the end is then the rate at which it writes when it is used.
        carry: share of episodes that start from the state that an earlier episode left, where the design carries it in
            training; no gradient crosses from one into the other.
        feedback: bound on the spectral norm of a path from the last read-out into the next write, see Memory.project.
        gain: step of the multiplier per update for a rate that is off by its own size; the gate's logit moves by four
            times as much at once, since the cost alone moves it late.
        multipliers: range of the multiplier; below 0 it pays for writes, above what the action error asks for.
    """

    updates: int = 500
    learning_rate: float = 3e-3
    optimizer: str = "adamw"
    weight_decay: float = 1e-4
    clip: float = 1.0
    signal: str = "straight-through"
    copies: int = 4
    write_cost: float = 0.1
    ramp: tuple[float, float] = (0.3, 0.7)
    rate: float | None = None
    noise_anneal: tuple[float, float] = (0.6, 0.8)
    carry: float = 0.95
    feedback: float = 0.5
    gain: float = 0.05
    multipliers: tuple[float, float] = (-4.0, 8.0)

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.optimizer!r} is not one of {', '.join(OPTIMIZERS)}")
        if self.signal not in SIGNALS:
            raise ValueError(f"signal {self.signal!r} is not one of {', '.join(SIGNALS)}")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise ValueError(f"rate {self.rate} is outside (0, 1]: it is the share of ticks that may write")
        if self.updates < 1 or self.learning_rate <= 0:
            raise ValueError(f"updates {self.updates} and learning_rate {self.learning_rate} must be positive")


class Training(NamedTuple):
    """A run under way.

    Attributes:
        params: of the memory.
        optimizer: state of the optimizer.
        multiplier: cost per write in force; 1 and unused where no rate is asked.
        rate: writes per tick, averaged over the last updates.
        state: what the last episodes left in each row, () where it is not carried.
    """

    params: Params
    optimizer: Any
    multiplier: Float[Array, ""]
    rate: Float[Array, ""]
    state: Any


class Pace(NamedTuple):
    """What changes from update to update; traced, so that no schedule needs a compilation of its own.

    Attributes:
        learning_rate: of this update.
        cost: cost of writing at every tick; multiplies the multiplier, and its steps, where a rate is asked.
        carry, rate: see TrainConfig; a rate of 1 where none is asked.
        noise: see `losses.straight_through_loss`.
    """

    learning_rate: Float[Array, ""]
    cost: Float[Array, ""]
    carry: Float[Array, ""]
    rate: Float[Array, ""]
    noise: Float[Array, ""]


def risen(between: tuple[float, float], done: float) -> float:
    """From 0 to 1 while `done` goes through an interval."""
    start, end = between
    return min(1.0, max(0.0, (done - start) / max(end - start, 1e-9)))


def pace(config: TrainConfig, i: int) -> Pace:
    """Learning rate and write cost of update i, 0 to config.updates - 1."""
    done, warm = i / config.updates, 0.1
    fall = math.cos(math.pi * (done - warm) / (1 - warm))
    shape = 0.1 + 0.9 * done / warm if done < warm else 0.05 + 0.475 * (1 + fall)

    cost, noise, rate = max(0.05, risen(config.ramp, done)), 1.0, 1.0
    if config.rate is None:
        cost *= config.write_cost
    else:
        noise, rate = 1.0 - risen(config.noise_anneal, done), config.rate
    return Pace(*map(jnp.asarray, (config.learning_rate * shape, cost, config.carry, rate, noise)))


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The optimizer called `config.optimizer` for a learning rate of 1; `update` scales its steps."""
    matrices = partial(jax.tree.map, lambda p: p.ndim >= 2)
    if config.optimizer == "adamw":
        inner = optax.adamw(1.0, weight_decay=config.weight_decay, mask=matrices)
    elif config.optimizer == "muon":
        inner = optax.contrib.muon(1.0, weight_decay=config.weight_decay, weight_decay_mask=matrices)
    else:
        inner = optax.adafactor(1.0, multiply_by_parameter_scale=False, min_dim_size_to_factor=32)
    return optax.chain(optax.clip_by_global_norm(config.clip), inner)


def standardised(params: Params, zs: Float[Array, "... D"]) -> Params:
    """`params` with `mean` and `scale` measured on `zs`; a component that hardly varies keeps a bounded scale."""
    flat = zs.reshape(-1, zs.shape[-1])
    spread = jnp.std(flat, axis=0)
    floor = jnp.maximum(1e-2 * jnp.mean(spread), 1e-6)
    return params._replace(mean=jnp.mean(flat, axis=0), scale=1.0 / jnp.maximum(spread, floor))


def begin(memory: Memory, config: TrainConfig, zs: Float[Array, "T B D"], key: Array) -> Training:
    """Fresh parameters, standardised on the features `zs`, and a fresh optimizer."""
    params = standardised(memory.init_params(key), zs)
    rate = jnp.asarray(1.0 if config.rate is None else config.rate, jnp.float32)
    state = memory.init(zs.shape[1]) if memory.carries_state_in_training else ()
    return Training(params, make_optimizer(config).init(params), jnp.ones(()), rate, state)


def update(
    memory: Memory, config: TrainConfig, training: Training, batch: Batch, key: Array, at: Pace
) -> tuple[Training, Losses]:
    """One gradient update, and one step of the multiplier (or of a control gate's threshold) towards the asked rate."""
    cost = training.multiplier * at.cost
    for_state, key = jax.random.split(key)
    start = memory.init(batch.zs.shape[1])
    if memory.carries_state_in_training:
        fresh = jax.random.uniform(for_state, batch.resets.shape[1:]) >= at.carry
        start = reset_rows(training.state, start, fresh)

    def loss(params: Params) -> tuple[Float[Array, ""], tuple[Losses, State]]:
        if config.signal == "counterfactual":
            return counterfactual_loss(memory, params, batch, cost, key, config.copies, start)
        return straight_through_loss(memory, params, batch, cost, key, start, at.noise)

    grads, (losses, state) = jax.grad(loss, has_aux=True)(training.params)
    steps, optimizer = make_optimizer(config).update(grads, training.optimizer, training.params)
    params = optax.apply_updates(training.params, jax.tree.map(lambda step: at.learning_rate * step, steps))
    params = memory.project(params, config.feedback)
    rate = 0.9 * training.rate + 0.1 * losses.rate
    state = state if memory.carries_state_in_training else ()
    multiplier = training.multiplier
    if config.rate is not None:
        # an integral winds itself up on a rate that is out of reach, or while the cost is not yet charged: the step and
        # the range are bounded, and the multiplier moves with the ramp of the cost
        step = at.cost * config.gain * jnp.clip(rate / at.rate - 1.0, -1.0, 1.0)
        multiplier = jnp.clip(multiplier + step, *config.multipliers)
        params = memory.move_threshold(params, 4.0 * step)
    return Training(params, optimizer, multiplier, rate, state), losses


@cache
def _compiled(memory: Memory, config: TrainConfig) -> tuple[Callable[..., Training], Callable[..., Any]]:
    """`begin` and `update` over a leading axis of seeds; kept, so that runs of one shape share one compilation."""

    def first(zs: Array, key: Array) -> Training:
        return begin(memory, config, zs, key)

    def one(training: Training, batch: Batch, key: Array, at: Pace) -> tuple[Training, Losses]:
        return update(memory, config, training, batch, key, at)

    nothing: Any = None
    seeded = Pace(0, *[nothing] * 4)  # type: ignore[arg-type]  # axes in place of arrays
    return jax.jit(jax.vmap(first)), jax.jit(jax.vmap(one, in_axes=(0, 0, 0, seeded)), donate_argnums=0)


@cache
def _seeded(draw: Draw) -> Draw:
    """`draw` over a leading axis of seeds; kept, as above."""
    return jax.jit(jax.vmap(draw))


@jax.jit
def _split(keys: Array, i: int) -> Array:
    """Two keys of update i for each of `keys`, [2, S]."""
    return jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, i)), out_axes=1)(keys)


def train(
    memory: Memory,
    config: TrainConfig,
    draws: Sequence[tuple[float, Draw]],
    keys: Array,
    learning_rates: Sequence[float] | None = None,
) -> tuple[Training, Losses]:
    """Whole runs, one for each of the S `keys`, side by side in one compiled update.

    `draws` is a curriculum: each draw is used until its share of the updates is done. All draw one batch shape.
    `learning_rates` gives each run its own peak instead of config.learning_rate, for sweeps. Every array of the
    Training has a leading axis S; the losses are [updates, S]. A run depends on its own key alone.
    """
    peaks = jnp.asarray(learning_rates or [config.learning_rate] * len(keys)) / config.learning_rate
    first, rest = _split(keys, 0)
    fixed = replace(config, updates=1, learning_rate=1.0, write_cost=0.0, carry=0.0, ramp=(0.0, 1.0))
    fixed = replace(fixed, rate=None if config.rate is None else 1.0)
    start, step = _compiled(memory, fixed)
    training = start(_seeded(draws[-1][1])(_split(keys, config.updates)[0]).zs, first)
    history: list[Losses] = []
    for i in range(config.updates):
        for_batch, for_update = _split(rest, i)
        draw = next((d for until, d in draws if i < until * config.updates), draws[-1][1])
        at = pace(config, i)
        at = at._replace(learning_rate=at.learning_rate * peaks)
        training, losses = step(training, _seeded(draw)(for_batch), for_update, at)
        history.append(losses)
    return training, jax.tree.map(lambda *x: jnp.stack(x), *history)


def hold_rate(
    memory: Memory, params: Params, batch: Batch, rate: float | Float[Array, ""], reach: float = 40.0
) -> Params:
    """`params` with the gate's logit moved, by bisection within +-`reach`, until it writes at `rate` on `batch`.

    For the last per cents that a multiplier leaves over, and for control gates that need another arm's budget.
    """

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        moved = memory.move_threshold(params, middle)
        _, out = scan(memory, moved, memory.init(batch.zs.shape[1]), batch.zs, batch.resets, batch.events)
        too_many = jnp.mean(out.wrote.astype(jnp.float32)) > rate
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    low, high = jax.lax.fori_loop(0, 18, halve, (jnp.asarray(-reach), jnp.asarray(reach)))
    return memory.move_threshold(params, 0.5 * (low + high))
