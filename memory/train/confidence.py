"""When a memory that was taught should speak: where the frozen policy's loss is lower with it than without.

No answer is needed: both losses are of the demonstrated actions, on ticks that the memory was not trained on.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from vlamem.memory.protocol import Params

__all__ = ["with_confidence"]

_MARGIN = 0.05
"""Share of the bare loss that the memory has to save: where it saves nothing the policy is left alone."""
_UPDATES = 400


def with_confidence(
    params: Params,
    hidden: Float[np.ndarray, "M hidden"],
    bare: Float[np.ndarray, "M"],
    own: Float[np.ndarray, "M"],
    decay: float = 1e-3,
) -> Params:
    """`params` whose confidence is above 1/2 where `own` is expected to be lower than `bare`; all else stays.

    Logistic regression on the head's hidden layer, each tick weighed by what is won or lost there: the boundary is then
    where the expected saving is 0, not where savings are more frequent than losses.
    """
    saved = bare - own - _MARGIN * np.mean(bare)
    label = jnp.asarray(saved > 0, jnp.float32)
    weight = jnp.asarray(np.abs(saved) / max(np.abs(saved).sum(), 1e-9))
    x = jnp.asarray(hidden)
    scale = jnp.maximum(jnp.std(x, axis=0), 1e-3)

    def loss(column: tuple[Any, Any]) -> Any:
        logit = x / scale @ column[0] + column[1]
        miss = optax.sigmoid_binary_cross_entropy(logit, label)
        return jnp.sum(weight * miss) + decay * jnp.sum(column[0] ** 2)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, _UPDATES))

    def step(carry: Any, _: None) -> Any:
        column, state = carry
        moves, state = optimizer.update(jax.grad(loss)(column), state)
        return (optax.apply_updates(column, moves), state), None

    column: Any = (jnp.zeros(x.shape[1]), jnp.zeros(()))
    (column, _), _ = jax.lax.scan(step, (column, optimizer.init(column)), None, length=_UPDATES)
    head = params.head
    made = head._replace(out=head.out.at[:, 0].set(column[0] / scale), out_bias=head.out_bias.at[0].set(column[1]))
    return params._replace(head=made)
