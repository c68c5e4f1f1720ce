"""When a memory that was taught should propose: where the frozen policy's loss is lower with it than without.

And lower than with another episode's state: a residual that is the same whatever was seen adapts the policy to its
demonstrator, which is no memory's business. No answer is needed: all three losses are of the demonstrated actions, on
ticks that the memory was not trained on.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from vlamem.memory.protocol import Params
from vlamem.memory.train.demonstrations import foreseeable

__all__ = ["abstaining", "with_confidence"]

_MARGIN, _CHOICE_MARGIN = 0.01, 0.04
"""Share of the bare policy's loss at a choice that what was seen has to save, anywhere and more at a choice: where it
saves nothing the policy is left alone."""
_MOST = 2.0
"""Most that one tick counts, in units of the bare policy's loss at a choice."""
_NEVER = -20.0
"""Logit of a confidence that is as good as 0."""
_UPDATES = 400


def with_confidence(
    params: Params,
    hidden: Float[np.ndarray, "M hidden"],
    bare: Float[np.ndarray, "M"],
    own: Float[np.ndarray, "M"],
    swapped: Float[np.ndarray, "M"],
    weight: Float[np.ndarray, "M"],
    unit: Float[np.ndarray, "M"],
    task: Int[np.ndarray, "M"],
    decay: float = 0.03,
) -> Params:
    """`params` whose confidence is above 1/2 where what was seen is expected to save something; all else stays.

    Logistic regression on the head's hidden layer, in which each tick counts by what there is to win or to lose, and
    each task as much as another: a skill of few short demonstrations has as much to lose. At moments of choice, by
    their `weight`, `own` is held against `swapped`: without a memory the policy draws one of its modes there, so that a
    wrong choice costs no more than another episode's state would. Elsewhere `own` is held against `bare` too; hardly
    where that is far more than at a choice, as before a signal to go, which no memory foresees. `unit`: what the bare
    policy loses at a choice of the task, above 0; `task`: its number.
    """
    saved, remembered = (bare - own) / unit, (swapped - own) / unit
    useful = weight * remembered + (1 - weight) * foreseeable(bare, unit) * np.minimum(saved, remembered)
    useful -= _MARGIN + _CHOICE_MARGIN * weight
    label = jnp.asarray(useful > 0, jnp.float32)
    counts = np.minimum(np.abs(useful), _MOST)
    counts = counts / np.maximum(np.bincount(task, counts), 1e-9)[task]
    x, each = jnp.asarray(hidden), jnp.asarray(counts / max(counts.sum(), 1e-9), jnp.float32)
    scale = jnp.maximum(jnp.std(x, axis=0), 1e-3)

    def loss(column: tuple[Any, Any]) -> Any:
        logit = x / scale @ column[0] + column[1]
        miss = optax.sigmoid_binary_cross_entropy(logit, label)
        return jnp.sum(each * miss) + decay * jnp.sum(column[0] ** 2)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, _UPDATES))

    def step(carry: Any, _: None) -> Any:
        column, state = carry
        moves, state = optimizer.update(jax.grad(loss)(column), state)
        return (optax.apply_updates(column, moves), state), None

    column: Any = (jnp.zeros(x.shape[1]), jnp.zeros(()))
    (column, _), _ = jax.lax.scan(step, (column, optimizer.init(column)), None, length=_UPDATES)
    return _confident(params, column[0] / scale, column[1])


def abstaining(params: Params) -> Params:
    """`params` whose confidence is next to 0 at every tick: the policy is left alone."""
    return _confident(params, jnp.zeros(params.head.out.shape[0]), jnp.asarray(_NEVER))


def _confident(params: Params, column: Any, bias: Any) -> Params:
    head = params.head
    made = head._replace(out=head.out.at[:, 0].set(column), out_bias=head.out_bias.at[0].set(bias))
    return params._replace(head=made)
