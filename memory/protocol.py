"""What a memory is: a pure step over an explicit state, for AURA-Mem and for every design it is compared with.

Shapes: B rows, T ticks, D feature size, H x A action chunk, C context size, n answers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vlamem.memory.config import FEATURE_LIMIT, HeadConfig
from vlamem.memory.step_out import StepOut as StepOut

State = Any
"""A pytree of arrays whose leading axis is the row."""

Params = Any
"""A pytree of arrays. To be trained it is a NamedTuple with `mean` and `scale` [D], which standardise the feature and
are measured, not learned, and `head`, a vlamem.memory.head.HeadParams; a learned gate's parameters are its `gate`."""

# arrays of JAX, or of NumPy, which a compiled step takes as they are
Feature = Float[Any, "B D"]
Features = Float[Any, "T B D"]
Rows = Bool[Any, "B"]
Ticks = Bool[Any, "T B"]


@runtime_checkable
class Memory(Protocol):
    """A memory of any design. `step` is pure, and a batch of B rows gives what B single runs give.

    A memory is hashable (a frozen dataclass of its sizes is), so that what was compiled for it can be kept. What stands
    below `step` has a default in vlamem.memory.designs.base.MemoryDesign: a design says what is different.
    """

    def __hash__(self) -> int:
        """Equal for memories of equal sizes and design."""
        ...

    @property
    def feature_size(self) -> int:
        """D, the feature size that `step` takes."""
        ...

    @property
    def head(self) -> HeadConfig:
        """What is proposed."""
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

    # how it is made and kept

    @classmethod
    def make(cls, feature_size: int, head: HeadConfig, **options: Any) -> Self:
        """A memory of this design. Raises ValueError for an option that it has not."""
        ...

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The memory that `to_config` described. Raises ValueError for an unknown setting."""
        ...

    def to_config(self) -> dict[str, Any]:
        """All sizes and options as JSON; with `feature_size` and `head` among them."""
        ...

    def with_head(self, head: HeadConfig) -> Self:
        """The same memory with another head."""
        ...

    # how it is trained

    @property
    def carries_state_in_training(self) -> bool:
        """Whether an episode of training may start from the state that an earlier one left."""
        ...

    @property
    def gate_signal(self) -> str | None:
        """What teaches its gate when to write: "straight-through", "counterfactual", or None without a learned gate.

        With a learned gate its `scan` takes `force` [T, B] last, which is added to the gate's logit.
        """
        ...

    def for_training(self, signal: str) -> Self:
        """The same memory to be trained further: its gate taught by `signal`, any bound of its state dropped.

        Raises ValueError where there is no gate that could be taught so.
        """
        ...

    def project(self, params: Params, feedback: float) -> Params:
        """`params` after an update, brought back to where they are allowed.

        `feedback` bounds the spectral norm of a path from the last read-out into the next write, where there is one.
        """
        ...

    def move_threshold(self, params: Params, by: Float[Array, ""]) -> Params:
        """`params` whose gate's logit is lower by `by`. Raises ValueError for a memory without a threshold."""
        ...

    def gate_reading(self, params: Params, state: State, z: Feature, out: StepOut) -> Any:
        """What a learned gate read at the tick that took `state` and gave `out`: arrays with a leading axis of rows."""
        ...

    def gate_logit(self, params: Params, reading: Any) -> Float[Array, "B"]:
        """The logit of a learned gate for what it read; a write is where it is above 0."""
        ...

    def writes(self, params: Params, zs: Features, resets: Ticks) -> Callable[[Params], Ticks]:
        """Which ticks are written from empty states, as a function of `params` whose threshold alone is moved."""
        ...

    def state_size(self, state: State) -> Float[Array, "B"] | None:
        """What `with_bound` bounds, in `state`; None for a design whose state needs no bound."""
        ...

    def with_bound(self, bound: float) -> Self:
        """The same memory whose `state_size` no write takes beyond `bound`."""
        ...


def scan(
    memory: Memory,
    params: Params,
    state: State,
    zs: Features,
    resets: Ticks,
    events: Ticks | None = None,
    force: Float[Array, "T B"] | None = None,
) -> tuple[State, StepOut]:
    """T ticks of `memory` over B rows, resets inside; every field of the answer has a leading T axis.

    A memory that has a quicker way than T steps offers it as a method `scan`; it must give what the steps give. `force`
    is for memories with a learned gate, see Memory.gate_signal.
    """
    run = getattr(memory, "scan", partial(step_by_step, memory))
    more = () if force is None else (force,)
    found: tuple[State, StepOut] = run(params, state, zs, resets, events, *more)
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


def flatten(params: Params) -> Mapping[str, Any]:
    """`params` as a flat mapping from dotted names to arrays (or their shapes), in a stable order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def params_of(memory: Memory, arrays: Mapping[str, Any]) -> Params:
    """The parameters of `memory` from their dotted names, as `flatten` gives them and a weights file holds them.

    Raises ValueError when names or shapes do not fit.
    """
    like = jax.eval_shape(memory.init_params, jax.random.key(0))
    expected = flatten(like)
    if expected.keys() != arrays.keys():
        raise ValueError(f"parameters {sorted(expected.keys() ^ arrays.keys())} do not fit {memory}")
    for name, leaf in expected.items():
        if leaf.shape != arrays[name].shape:
            raise ValueError(f"parameter {name} has shape {arrays[name].shape}, its configuration says {leaf.shape}")
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(arrays[name]) for name in expected])


def named_arrays(params: Params) -> dict[str, np.ndarray]:
    """`params` by dotted name as NumPy arrays, for a weights file."""
    return {name: np.asarray(x) for name, x in flatten(params).items()}
