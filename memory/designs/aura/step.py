"""AURA-Mem's step: the equations under their names.

State per row: W [d_v, d_k] and b [d_v], float32; (32*32 + 32) * 4 = 4,224 bytes, at any horizon.

    z~ = standardised feature            k = unit(Wk z~)   q = unit(Wq z~)   v = Wv [z~, r_prev]
    e  = v - (W k + b)                   inner prediction error
    s  = log(1 + |e|^2)                  surprise
    p  = sigmoid(gate_mlp([z~, s, r_prev]))    g = [p > 1/2], straight-through in training
    W <- W + g * beta * e k^T            b <- b + g * gamma * e
    r  = W q + b                         read-out
    proposal = head([z~, r])

r_prev is the state as the last write left it, read with the present query: r_prev = W q + b before the write. It is
recomputed at every tick, so it costs no byte, and a tick without a write leaves the state as it was, to the bit. A
second identical event meets another r_prev than the first, so v and e differ and it can be counted. The read-out
after the write then needs no second pass over W: r = r_prev + g * (beta * (k . q) + gamma) * e.
With config.bound, a write that takes |W| beyond it shrinks W, b and r. Without, a stream without an end makes W the
regression of v on k: it grows along keys that hardly vary, what comes again surprises no more, and the gate closes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float

from vlamem.memory.config import HeadConfig, checked_settings
from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.gate import GATES, SIGNALS, GateInput, GateParams, move_threshold, straight_through
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import unit
from vlamem.memory.head import HeadParams, init_head, propose
from vlamem.memory.protocol import Feature, Features, Rows, StepOut, Ticks, check_feature_size, reset_rows, standardise


class AuraState(NamedTuple):
    """W, b, and what the gate carries: nothing (E = 0) but for the periodic and novelty controls."""

    W: Float[Array, "B d_v d_k"]
    b: Float[Array, "B d_v"]
    carry: Float[Array, "B E"]


class AuraParams(NamedTuple):
    """Parameters of an AURA memory; `mean` and `scale` standardise the feature and are measured, not learned."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    Wk: Float[Array, "D d_k"]
    Wq: Float[Array, "D d_k"]
    Wv: Float[Array, "D d_v"]
    Wvr: Float[Array, "d_v d_v"]
    beta_logit: Float[Array, ""]
    gamma_logit: Float[Array, ""]
    gate: GateParams
    head: HeadParams


class Ahead(NamedTuple):
    """What a tick makes of its feature without the state; made for all ticks at once where they are known.

    Leading axes are [B] or [T, B].
    """

    trusted: Bool[Array, "..."]
    k: Float[Array, "... d_k"]
    q: Float[Array, "... d_k"]
    v: Float[Array, "... d_v"]
    gate: Float[Array, "... width"]


class Written(NamedTuple):
    """What a tick's recurrence gives: read-out, surprise, gate figure, write mask and the gate's own loss."""

    r: Float[Array, "B d_v"]
    s: Float[Array, "B"]
    p: Float[Array, "B"]
    wrote: Bool[Array, "B"]
    gate_loss: Float[Array, "B"]


class Decision(NamedTuple):
    """What a tick decides from its two reads: the error, the gate g in {0, 1}, its carry after it, and what is read."""

    e: Float[Array, "B d_v"]
    g: Float[Array, "B"]
    carry: Float[Array, "B E"]
    written: Written


def look_ahead(
    params: AuraParams, config: AuraConfig, z: Float[Any, "... D"]
) -> tuple[Ahead, Float[Array, "... hidden"]]:
    """Everything of the step that depends on the feature alone: for the recurrence, and for the head."""
    zn, trusted = standardise(z, params.mean, params.scale)
    sizes = (config.key_size, 2 * config.key_size)
    k, q, v = jnp.split(zn @ jnp.concatenate([params.Wk, params.Wq, params.Wv], axis=1), sizes, axis=-1)
    ahead = Ahead(trusted, unit(k), unit(q), v, GATES[config.gate].ahead(params.gate, config, z, zn))
    return ahead, zn @ params.head.z


def rates(params: AuraParams) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """beta and gamma, learned, in (0, 1]."""
    return jax.nn.sigmoid(params.beta_logit), jax.nn.sigmoid(params.gamma_logit)


def decide(
    params: AuraParams,
    config: AuraConfig,
    x: Ahead,
    reads: tuple[Float[Array, "B d_v"], Float[Array, "B d_v"]],
    carry: Float[Array, "B E"],
    event: Rows | None = None,
    force: Float[Array, "B"] | None = None,
) -> Decision:
    """Error, surprise, gate and the read after the write, given the reads (W k + b, W q + b) before it.

    `force` is added to the gate's logit, for training: logistic noise makes it a draw from p, a large number of
    either sign decides it.
    """
    gate, (prediction, r_prev) = GATES[config.gate], reads
    e = x.v + r_prev @ params.Wvr - prediction  # v in two parts: that of z~ was made ahead, for all ticks at once
    s = jnp.log1p(jnp.sum(e * e, axis=-1))
    seen = GateInput(x.gate, s, r_prev, prediction, carry, event)
    logit = gate.logit(params.gate, config, seen)
    if force is not None:
        logit = logit + force
    # a hard decision forward; backward the sigmoid's gradient, or none for gates that the action error does not teach
    g = straight_through(logit) if gate.straight_through else jax.lax.stop_gradient((logit > 0).astype(s.dtype))
    wrote = (logit > 0) & x.trusted  # a feature that is not finite, or far out of range, would spoil W for good
    carry = jnp.where(x.trusted[:, None], gate.carry(seen, wrote), carry)
    p = jnp.where(x.trusted, jax.nn.sigmoid(logit), 0.0)
    g, (beta, gamma) = g * x.trusted, rates(params)
    r = r_prev + (g * (beta * jnp.sum(x.k * x.q, axis=-1) + gamma))[:, None] * e
    return Decision(e, g, carry, Written(r, s, p, wrote, gate.loss(params.gate, seen)))


def recur(
    params: AuraParams,
    config: AuraConfig,
    state: AuraState,
    x: Ahead,
    reset: Rows,
    event: Rows | None = None,
    force: Float[Array, "B"] | None = None,
) -> tuple[AuraState, Written]:
    """Error, gate, conditional write and read of one tick."""
    # selected, not multiplied by 0: a state that is not finite has to go as well
    b, carry = (reset_rows(x, 0.0, reset) for x in (state.b, state.carry))
    beta, gamma = rates(params)
    # W is read once for both, and not stored emptied before it is written
    reads = jnp.einsum("bij,bnj->bni", state.W, jnp.stack([x.k, x.q], axis=1))
    reads = reset_rows(reads, 0.0, reset) + b[:, None]
    e, g, carry, written = decide(params, config, x, (reads[:, 0], reads[:, 1]), carry, event, force)
    W = reset_rows(state.W, 0.0, reset) + (g * beta)[:, None, None] * e[:, :, None] * x.k[:, None, :]
    b = b + (g * gamma)[:, None] * e
    if config.bound is not None:
        fits = jnp.minimum(1.0, config.bound * jax.lax.rsqrt(jnp.sum(W * W, axis=(1, 2)) + 1e-12))[:, None]
        fits = jnp.where(written.wrote[:, None], fits, 1.0)
        # all three by one factor: the read-out stays W q + b
        W, b, written = W * fits[..., None], b * fits, written._replace(r=written.r * fits)
    return AuraState(W, b, carry), written


def answer(
    params: AuraParams,
    config: AuraConfig,
    for_head: Float[Array, "... hidden"],
    trusted: Bool[Array, "..."],
    written: Written,
) -> StepOut:
    """The proposal head([z~, r]), `for_head` being what z~ adds to its hidden layer; leading axes [B] or [T, B]."""
    proposed = propose(params.head, config.head, for_head, written.r, trusted)
    return StepOut(*proposed, written.wrote, written.p, written.s, ~trusted, written.gate_loss)


def spectral_bound(x: Float[Array, "n n"]) -> Float[Array, ""]:
    """An upper bound on the spectral norm of x, at most n^(1/16) times it: |(x^T x)^4|_F^(1/8)."""
    size = jnp.linalg.norm(x) + 1e-12
    gram = x.T @ x / size**2
    fourth = jnp.linalg.matrix_power(gram, 4)
    return jnp.asarray(size * (jnp.linalg.norm(fourth) + 1e-30) ** 0.125)


@dataclass(frozen=True)
class AuraMemory(MemoryDesign):
    """AURA-Mem of one configuration; a `vlamem.memory.protocol.Memory`.

    Training carries its state, so that it knows what long use does to W; what bounds it in a stream is |W|.
    """

    config: AuraConfig

    @classmethod
    def make(cls, feature_size: int, head: HeadConfig, **options: Any) -> Self:
        """AURA-Mem with the options of AuraConfig. Raises ValueError for one that it has not, or out of its range."""
        return cls(AuraConfig(**checked_settings(AuraConfig, {"feature_size": feature_size, "head": head, **options})))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The memory that `to_config` described. Raises ValueError for an unknown setting."""
        return cls(AuraConfig.from_config(config))

    def to_config(self) -> dict[str, Any]:
        """The configuration as JSON."""
        config: dict[str, Any] = json.loads(json.dumps(asdict(self.config)))
        return config

    @property
    def feature_size(self) -> int:
        """D of the feature."""
        return self.config.feature_size

    @property
    def head(self) -> HeadConfig:
        """What is proposed."""
        return self.config.head

    def with_head(self, head: HeadConfig) -> Self:
        """The same memory with another head."""
        return replace(self, config=replace(self.config, head=head))

    def init_params(self, key: Array) -> AuraParams:
        """Fresh parameters; the feature is taken as standardised until `mean` and `scale` are replaced."""
        keys, config, init = jax.random.split(key, 6), self.config, initializers.lecun_normal()
        D, d_k, d_v = config.feature_size, config.key_size, config.value_size
        Wk = init(keys[0], (D, d_k), jnp.float32)
        return AuraParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            Wk=Wk,
            Wq=Wk + 0.1 * init(keys[1], (D, d_k), jnp.float32),  # near Wk: what was written can be asked for at once
            Wv=init(keys[2], (D, d_v), jnp.float32),
            Wvr=0.1 * init(keys[3], (d_v, d_v), jnp.float32),
            # a write takes 0.95 of its error into W and 0.05 into b: b moves the read-out of every key
            beta_logit=jnp.full((), 3.0),
            gamma_logit=jnp.full((), -3.0),
            gate=GATES[config.gate].init(keys[4], config),
            head=init_head(keys[5], config.head, D, d_v),
        )

    def init(self, batch: int) -> AuraState:
        """The empty state of `batch` rows: zeros."""
        d_v, carried = self.config.value_size, GATES[self.config.gate].carry_size(self.config)
        return AuraState(*(jnp.zeros((batch, *s)) for s in ((d_v, self.config.key_size), (d_v,), (carried,))))

    def step(
        self, params: AuraParams, state: AuraState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[AuraState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.config.feature_size)
        x, for_head = look_ahead(params, self.config, z)
        state, written = recur(params, self.config, state, x, reset, event)
        return state, answer(params, self.config, for_head, x.trusted, written)

    def scan(
        self,
        params: AuraParams,
        state: AuraState,
        zs: Features,
        resets: Ticks,
        events: Ticks | None = None,
        force: Float[Array, "T B"] | None = None,
    ) -> tuple[AuraState, StepOut]:
        """T ticks: what needs no state is made for all at once, the recurrence in chunks.

        `force`, where not 0, opens (1) or closes (-1) the gate: for counterfactual training.
        """
        check_feature_size(zs.shape[-1], self.config.feature_size)
        from vlamem.memory.designs.aura.scan import scan_chunks  # it is built from this module's parts

        ahead, for_head = look_ahead(params, self.config, zs)
        state, written = scan_chunks(params, self.config, state, (ahead, resets, events, force))
        return state, answer(params, self.config, for_head, ahead.trusted, written)

    @property
    def carries_state_in_training(self) -> bool:
        """Trained on empty states alone, W grows with every write and accuracy falls with the horizon."""
        return True

    @property
    def gate_signal(self) -> str | None:
        """What teaches the gate."""
        return SIGNALS.get(self.config.gate)

    def for_training(self, signal: str) -> Self:
        """The same memory with a learned gate that `signal` teaches, and no bound. Raises ValueError for a control."""
        if self.gate_signal is None:
            raise ValueError(f"gate {self.config.gate!r} is a control: only learned gates are trained on")
        gate = next(gate for gate, taught_by in SIGNALS.items() if taught_by == signal)
        return replace(self, config=replace(self.config, gate=gate, bound=None))

    def project(self, params: AuraParams, feedback: float) -> AuraParams:
        """Wvr, the path from the last read-out into the next value, with a spectral norm of `feedback` at most.

        At 1 a read feeds itself back undiminished: noise adds up write by write, and accuracy falls with the horizon.
        """
        return params._replace(Wvr=params.Wvr * jnp.minimum(1.0, feedback / spectral_bound(params.Wvr)))

    def move_threshold(self, params: AuraParams, by: Float[Array, ""]) -> AuraParams:
        """`params` whose gate's logit is lower by `by`. Raises ValueError for a gate without a threshold."""
        return params._replace(gate=move_threshold(params.gate, by))

    def gate_reading(
        self, params: AuraParams, state: AuraState, z: Feature, out: StepOut
    ) -> tuple[Feature, Float[Array, "B"], Float[Array, "B d_v"]]:
        """The feature, the surprise and r_prev."""
        ahead, _ = look_ahead(params, self.config, z)
        return z, out.surprise, jnp.einsum("bij,bj->bi", state.W, ahead.q) + state.b

    def gate_logit(
        self, params: AuraParams, reading: tuple[Feature, Float[Array, "B"], Float[Array, "B d_v"]]
    ) -> Float[Array, "B"]:
        """gate_mlp([z~, s, r_prev])."""
        z, s, r_prev = reading
        zn, _ = standardise(z, params.mean, params.scale)
        gate, none = GATES[self.config.gate], jnp.zeros((len(s), 0))
        seen = GateInput(gate.ahead(params.gate, self.config, z, zn), s, r_prev, none, none, None)
        return gate.logit(params.gate, self.config, seen)

    def writes(self, params: AuraParams, zs: Features, resets: Ticks) -> Callable[[AuraParams], Ticks]:
        """Which ticks are written from empty states; what needs no state knows nothing of the threshold, and is made
        once."""
        ahead = _ahead(replace(self.config, bound=None))(params, zs)
        return lambda moved: _wrote(self)(moved, ahead, resets)

    def state_size(self, state: AuraState) -> Float[Array, "B"]:
        """|W|, Frobenius."""
        size: Float[Array, B] = jnp.linalg.norm(state.W, axis=(1, 2))
        return size

    def with_bound(self, bound: float) -> Self:
        """The same memory with a bound of |W|."""
        return replace(self, config=replace(self.config, bound=bound))


# kept, so that each is compiled once


@cache
def _ahead(config: AuraConfig) -> Callable[[AuraParams, Features], Ahead]:
    return jax.jit(lambda params, zs: look_ahead(params, config, zs)[0])


@cache
def _wrote(memory: AuraMemory) -> Callable[[AuraParams, Ahead, Ticks], Ticks]:
    from vlamem.memory.designs.aura.scan import scan_chunks  # it is built from this module's parts

    def wrote(params: AuraParams, ahead: Ahead, resets: Ticks) -> Ticks:
        state = memory.init(resets.shape[1])
        return scan_chunks(params, memory.config, state, (ahead, resets, None, None))[1].wrote

    return jax.jit(wrote)
