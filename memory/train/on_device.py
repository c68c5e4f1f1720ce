"""Tunes the gate of a trained memory on a robot's own memory budget: everything but the gate stays as it is.

Parameters of the gate, their gradient, one momentum and the recurrent state are all that training keeps: for a feature
of 384 entries 161 KiB. What the compiled update needs besides, while it runs, is measured and reported apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vlamem.core.seeding import integer_seed, stream
from vlamem.memory.protocol import Memory, Params, State
from vlamem.memory.train.batches import TrainingSet
from vlamem.memory.train.losses import Batch, straight_through_loss

LIMIT = 256 * 1024
"""Bytes of training state that a robot gives to it."""


@dataclass(frozen=True)
class TuneOptions:
    """How the gate is tuned.

    Attributes:
        updates: gradient updates.
        learning_rate: of plain momentum descent.
        write_cost: cost of writing at every tick, in units of the action error.
        ticks, rows: of the batch that an update sees; what it needs while it runs grows with both.
        seed: of batches and gate decisions.
    """

    updates: int = 200
    learning_rate: float = 0.02
    write_cost: float = 0.1
    ticks: int = 64
    rows: int = 1
    seed: int = 0


class Tuned(NamedTuple):
    """What tuning gave and took.

    Attributes:
        params: with the tuned gate.
        errors: action error of each update.
        rates: writes per tick of each update.
        state_bytes: of gate, gradient, momentum and recurrent state, measured from the arrays.
        working_bytes: what the compiled update allocates besides, while it runs.
    """

    params: Params
    errors: np.ndarray
    rates: np.ndarray
    state_bytes: int
    working_bytes: int


def tune_gate(
    memory: Memory,
    params: Params,
    data: TrainingSet,
    how: TuneOptions,
    progress: Callable[[int], None] = lambda done: None,
) -> Tuned:
    """Gradient descent on the gate of `memory` alone, by default one row at a time.

    `params` propose in training's units, see fit.in_policy_units. Raises ValueError for a gate without
    parameters, or when the training state is beyond LIMIT.
    """
    if memory.gate_signal != "straight-through":
        raise ValueError(f"the gate of {memory} is not trained by its action error: only a learned one is tuned")
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(how.learning_rate, momentum=0.9))
    cost = jnp.asarray(how.write_cost)

    def loss(gate: Any, rest: Params, state: State, batch: Batch, key: Array) -> Any:
        return straight_through_loss(memory, rest._replace(gate=gate), batch, cost, key, state)

    def one(gate: Any, momentum: Any, state: State, rest: Params, batch: Batch, key: Array) -> Any:
        grads, (losses, state) = jax.grad(loss, has_aux=True)(gate, rest, state, batch, key)
        moves, momentum = optimizer.update(grads, momentum)
        return optax.apply_updates(gate, moves), momentum, state, losses

    gate: Any = params.gate
    momentum, state = optimizer.init(gate), memory.init(how.rows)
    held = 2 * _bytes(gate) + _bytes(momentum) + _bytes(state)
    if held > LIMIT:
        raise ValueError(
            f"tuning this gate keeps {held} bytes of training state, more than the {LIMIT} of --low-memory: its feature"
            f" has {memory.feature_size} entries and a batch {how.rows} rows, give fewer rows or train without "
            "--low-memory"
        )
    errors, rates, working, compiled = [], [], 0, None
    for i in range(how.updates):
        batch = data.batch(how.ticks, how.rows, stream(how.seed, "tune", i))
        key = jax.random.key(integer_seed(how.seed, "tune", "gate", i))
        if compiled is None:
            compiled = jax.jit(one).lower(gate, momentum, state, params, batch, key).compile()
            analysis = compiled.memory_analysis()
            working = 0 if analysis is None else int(analysis.temp_size_in_bytes)
        gate, momentum, state, losses = compiled(gate, momentum, state, params, batch, key)
        errors.append(float(losses.action_error))
        rates.append(float(losses.rate))
        progress(i + 1)
    return Tuned(params._replace(gate=gate), np.array(errors), np.array(rates), held, working)


def _bytes(tree: Any) -> int:
    return sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree))
