"""When AURA-Mem writes: the learned gate and the controls it is compared with, behind one interface.

A gate turns what a step knows into a logit; the row is written where the logit is above 0. Only the learned gate has
a gradient path from the action error to its logit (the straight-through estimator); the reconstruction gate is
trained by its own `loss`, the others are not trained but for a threshold that a write budget may move.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float

from vlamem.memory.designs.aura.config import AuraConfig

GateParams = dict[str, Array]

CLOSED, OPEN = -20.0, 20.0  # logits of a decision that is not in doubt
SHARPNESS = 10.0  # logits per unit of a control gate's threshold


class GateInput(NamedTuple):
    """What a gate may read at one tick.

    Attributes:
        ahead: what the gate's `ahead` made of the feature, which needs no state.
        s: [B] surprise log(1 + |e|^2).
        r_prev: [B, d_v] read-out before the write.
        prediction: [B, d_v] W k + b.
        carry: [B, E] what the gate itself carries between ticks, E = 0 for all but two controls.
        event: [B] marks of a benchmark, or None.
    """

    ahead: Float[Array, "B width"]
    s: Float[Array, "B"]
    r_prev: Float[Array, "B d_v"]
    prediction: Float[Array, "B d_v"]
    carry: Float[Array, "B E"]
    event: Bool[Array, "B"] | None


@dataclass(frozen=True)
class Gate:
    """One way to decide on writes.

    Attributes:
        init: fresh parameters.
        logit: [B]; above 0 means write.
        ahead: the part that needs no state, made for all ticks at once; z is raw, z~ standardised.
        carry_size: E, floats that the gate carries in the state, by configuration.
        carry: the carry after the tick, given which rows were written.
        loss: [B], the gate's own objective.
        straight_through: whether the action error's gradient reaches the logit.
    """

    init: Callable[[Array, AuraConfig], GateParams]
    logit: Callable[[GateParams, AuraConfig, GateInput], Array]
    ahead: Callable[[GateParams, AuraConfig, Array, Array], Array] = lambda params, config, z, zn: zn[..., :0]
    carry_size: Callable[[AuraConfig], int] = lambda config: 0
    carry: Callable[[GateInput, Array], Array] = lambda x, wrote: x.carry
    loss: Callable[[GateParams, GateInput], Array] = lambda params, x: jnp.zeros_like(x.s)
    straight_through: bool = False


def straight_through(logit: Float[Array, "B"]) -> Float[Array, "B"]:
    """[logit > 0] as a float, with the gradient of sigmoid(logit); the forward value is exactly 0 or 1."""
    p = jax.nn.sigmoid(logit)
    return jax.lax.stop_gradient((logit > 0).astype(p.dtype)) + (p - jax.lax.stop_gradient(p))


def _no_params(key: Array, config: AuraConfig) -> GateParams:
    return {}


def _learned_init(key: Array, config: AuraConfig) -> GateParams:
    from_z, from_r, out = jax.random.split(key, 3)
    init = initializers.lecun_normal()
    return {
        "z": init(from_z, (config.feature_size, config.gate_hidden), jnp.float32),
        # the surprise is one entry beside d_v: at equal weights the gate would be slow to tell news from repeats
        "sr": init(from_r, (1 + config.value_size, config.gate_hidden), jnp.float32).at[0].multiply(4.0),
        "bias": jnp.zeros(config.gate_hidden),
        "out": init(out, (config.gate_hidden, 1), jnp.float32)[:, 0],
        "out_bias": jnp.ones(()),  # opens at first: a gate that never wrote learns nothing from the action error
    }


def _feature(params: GateParams, config: AuraConfig, z: Array, zn: Array) -> Array:
    return zn


def _learned_ahead(params: GateParams, config: AuraConfig, z: Array, zn: Array) -> Array:
    return zn @ params["z"] + params["bias"]


def _learned_logit(params: GateParams, config: AuraConfig, x: GateInput) -> Array:
    """gate_mlp([z~, s, r_prev]) with one hidden layer."""
    hidden = jax.nn.relu(x.ahead + jnp.concatenate([x.s[:, None], x.r_prev], axis=-1) @ params["sr"])
    return hidden @ params["out"] + params["out_bias"]


def _constant(value: float) -> Callable[[GateParams, AuraConfig, GateInput], Array]:
    return lambda params, config, x: jnp.full_like(x.s, value)


def _hash_uniform(params: GateParams, config: AuraConfig, z: Array, zn: Array) -> Array:
    """[..., 1], uniform in [0, 1), from the bits of the feature: needs no counter, and each row has its own draw."""
    bits = jax.lax.bitcast_convert_type(z.astype(jnp.float32), jnp.uint32)
    odd = jnp.arange(z.shape[-1], dtype=jnp.uint32) * jnp.uint32(2654435769) * jnp.uint32(2) + jnp.uint32(1)
    h = jnp.sum((bits ^ (bits >> 15)) * odd, axis=-1, dtype=jnp.uint32) + jnp.uint32(config.seed)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> shift)) * jnp.uint32(factor)
    return ((h >> 8).astype(jnp.float32) / 2**24)[..., None]


def _random_logit(params: GateParams, config: AuraConfig, x: GateInput) -> Array:
    return jnp.where(x.ahead[:, 0] < config.rate, OPEN, CLOSED)


def _periodic_logit(params: GateParams, config: AuraConfig, x: GateInput) -> Array:
    """Open where the count of ticks times the rate passes a whole number, so any rate is held, not only 1/k."""
    tick = x.carry[:, 0]
    return jnp.where(jnp.floor((tick + 1) * config.rate) > jnp.floor(tick * config.rate), OPEN, CLOSED)


def _threshold_init(key: Array, config: AuraConfig) -> GateParams:
    return {"threshold": jnp.full((), 0.5)}


def _novelty_logit(params: GateParams, config: AuraConfig, x: GateInput) -> Array:
    """Open where the cosine distance to the last written feature is above the threshold."""
    norms = jnp.linalg.norm(x.ahead, axis=-1) * jnp.linalg.norm(x.carry, axis=-1)
    cosine = jnp.sum(x.ahead * x.carry, axis=-1) / jnp.maximum(norms, 1e-6)
    return SHARPNESS * (1.0 - cosine - params["threshold"])


def _reconstruction_init(key: Array, config: AuraConfig) -> GateParams:
    decoder = initializers.lecun_normal()(key, (config.value_size, config.feature_size), jnp.float32)
    return {"decoder": decoder, "threshold": jnp.full((), 0.5)}


def _reconstruction_error(params: GateParams, x: GateInput) -> Array:
    """Mean squared error of z~ rebuilt from what the memory predicts for this key."""
    rebuilt = jax.lax.stop_gradient(x.prediction) @ params["decoder"]
    return jnp.mean(jnp.square(rebuilt - x.ahead), axis=-1)


def _reconstruction_logit(params: GateParams, config: AuraConfig, x: GateInput) -> Array:
    return SHARPNESS * (jax.lax.stop_gradient(_reconstruction_error(params, x)) - params["threshold"])


def _oracle_logit(params: GateParams, config: AuraConfig, x: GateInput) -> Array:
    if x.event is None:
        raise ValueError("the oracle gate needs the event marks of a benchmark: pass event=... to step")
    return jnp.where(x.event, OPEN, CLOSED)


GATES: dict[str, Gate] = {
    "learned": Gate(_learned_init, _learned_logit, ahead=_learned_ahead, straight_through=True),
    "counterfactual": Gate(_learned_init, _learned_logit, ahead=_learned_ahead),
    "always": Gate(_no_params, _constant(OPEN)),
    "never": Gate(_no_params, _constant(CLOSED)),
    "random": Gate(_no_params, _random_logit, ahead=_hash_uniform),
    "periodic": Gate(_no_params, _periodic_logit, carry_size=lambda config: 1, carry=lambda x, wrote: x.carry + 1),
    "novelty": Gate(
        _threshold_init,
        _novelty_logit,
        ahead=_feature,
        carry_size=lambda config: config.feature_size,
        carry=lambda x, wrote: jnp.where(wrote[:, None], x.ahead, x.carry),
    ),
    "reconstruction": Gate(_reconstruction_init, _reconstruction_logit, ahead=_feature, loss=_reconstruction_error),
    "oracle": Gate(_no_params, _oracle_logit),
}
"""The gates by the names of AuraConfig.gate."""

SIGNALS = {"learned": "straight-through", "counterfactual": "counterfactual"}
"""What teaches each gate that is learned, see vlamem.memory.protocol.Memory.gate_signal."""


def move_threshold(params: GateParams, by: Float[Array, ""]) -> GateParams:
    """`params` of a gate whose logit is lower by `by`. Raises ValueError where it has no threshold."""
    if "threshold" in params:
        return params | {"threshold": params["threshold"] + by / SHARPNESS}
    if "out_bias" in params:
        return params | {"out_bias": params["out_bias"] - by}
    raise ValueError("this gate has no threshold to move: its rate is fixed by its configuration, ask for none")
