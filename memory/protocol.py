"""What a memory is: a pure step over an explicit state, for AURA-Mem and for every baseline it is compared with.

Shapes: B rows, T ticks, D feature size, H x A action chunk, C context size, n answers.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlamem.memory.designs.aura.config import FEATURE_LIMIT

State = Any
"""A pytree of arrays whose leading axis is the row."""

Params = Any
"""A pytree of arrays."""

Feature = Float[Array, "B D"]
Features = Float[Array, "T B D"]
Rows = Bool[Array, "B"]
Ticks = Bool[Array, "T B"]


class StepOut(NamedTuple):
    """What one step of B rows gives; arrays of JAX or NumPy. For T ticks every field has a leading T axis.

    Attributes:
        confidence: [B], 0 to 1; 0 in refused rows.
        chunk: [B, H, A] proposed action chunk, or None.
        context: [B, C] residual on the policy's conditioning, or None.
        answer: [B, n] logits, or None; benchmarks ask for it, no policy does.
        wrote: [B], whether the row's state was written.
        gate: [B], 0 to 1, the gate's own figure; it is above 1/2 exactly where an unrefused row wrote.
        surprise: [B], 0 or more; what the memory calls prediction error, 0 where it has no such thing.
        refused: [B], rows whose feature was not finite or beyond FEATURE_LIMIT: neither written nor trusted.
        gate_loss: [B], the gate's own training objective, 0 for gates trained by the action error alone.
    """

    confidence: Float[Any, "B"]
    chunk: Float[Any, "B H A"] | None
    context: Float[Any, "B C"] | None
    answer: Float[Any, "B n"] | None
    wrote: Bool[Any, "B"]
    gate: Float[Any, "B"]
    surprise: Float[Any, "B"]
    refused: Bool[Any, "B"]
    gate_loss: Float[Any, "B"]


@runtime_checkable
class Memory(Protocol):
    """A memory of any kind. `step` is pure, and a batch of B rows gives what B single runs give.

    A memory is hashable (a frozen dataclass of its sizes is), so that what was compiled for it can be kept.
    """

    def __hash__(self) -> int:
        """Equal for memories of equal sizes and kind."""
        ...

    @property
    def feature_size(self) -> int:
        """D, the feature size that `step` takes."""
        ...

    def init_params(self, key: Array) -> Params:
        """Fresh parameters from a JAX key."""
        ...

    def init(self, batch: int) -> State:
        """The empty state of `batch` rows."""
        ...

    def step(
        self, params: Params, state: State, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[State, StepOut]:
        """One control tick; rows under `reset` start from the empty state within it.

        `event` marks the ticks worth a write; only benchmarks know it, and only an oracle gate reads it.
        """
        ...


def scan(
    memory: Memory, params: Params, state: State, zs: Features, resets: Ticks, events: Ticks | None = None
) -> tuple[State, StepOut]:
    """T ticks of `memory` over B rows, resets inside; every field of the answer has a leading T axis.

    A memory that has a quicker way than T steps offers it as a method `scan`; it must give what the steps give.
    """
    run = getattr(memory, "scan", partial(step_by_step, memory))
    found: tuple[State, StepOut] = run(params, state, zs, resets, events)
    return found


def step_by_step(
    memory: Memory, params: Params, state: State, zs: Features, resets: Ticks, events: Ticks | None = None
) -> tuple[State, StepOut]:
    """The plain `lax.scan` over `memory.step`, which any quicker scan must equal."""

    def tick(carry: State, x: tuple[Array, Array, Array | None]) -> tuple[State, StepOut]:
        z, reset, event = x
        return memory.step(params, carry, z, reset, event)

    return jax.lax.scan(tick, state, (zs, resets, events))


def state_bytes(state: State, batch: int) -> float:
    """Bytes of state a row, measured from the arrays.

    Raises ValueError when an array's leading axis is not `batch`.
    """
    leaves = jax.tree.leaves(state)
    for leaf in leaves:
        if leaf.ndim == 0 or leaf.shape[0] != batch:
            raise ValueError(f"a state array of shape {leaf.shape} has no leading axis of {batch} rows")
    return float(sum(leaf.nbytes for leaf in leaves)) / batch


def reset_rows(state: State, empty: State, reset: Rows) -> State:
    """`state` with the rows under `reset` replaced by those of `empty`."""
    return jax.tree.map(lambda new, old: jnp.where(reset.reshape(-1, *[1] * (old.ndim - 1)), new, old), empty, state)


def standardise(
    z: Float[Array, "... D"], mean: Float[Array, "D"], scale: Float[Array, "D"]
) -> tuple[Float[Array, "... D"], Bool[Array, "..."]]:
    """(z - mean) * scale, and which rows may be trusted; the others come back as zeros.

    A row with NaN, infinity, or a root mean square above FEATURE_LIMIT after scaling may not be trusted.
    `mean` and `scale` are measured, not learned: no gradient reaches them.
    """
    x = (z - jax.lax.stop_gradient(mean)) * jax.lax.stop_gradient(scale)
    trusted = jax.lax.stop_gradient(jnp.sum(x * x, axis=-1)) <= FEATURE_LIMIT**2 * z.shape[-1]
    return jnp.where(trusted[..., None], x, 0.0), trusted


def check_feature_size(size: int, expected: int, trained_for: str = "") -> None:
    """Raises ValueError naming both sizes when a feature of `size` meets a memory of `expected`."""
    if size != expected:
        origin = f": it was trained for {trained_for}" if trained_for else ""
        raise ValueError(
            f"feature size {size} does not match this memory ({expected}){origin}; "
            "retrain with 'vlamem train-gate' or load the policy that it was trained for"
        )


def flatten(params: Params) -> Mapping[str, Array]:
    """`params` as a flat mapping from dotted names to arrays, in a stable order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
