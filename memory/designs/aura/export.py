"""The step as one file for other runtimes: StableHLO for CPU and CUDA with the parameters inside, any batch."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array

from vlamem.memory.designs.aura.step import AuraMemory, AuraParams, AuraState
from vlamem.memory.protocol import flatten

PLATFORMS = ("cpu", "cuda")

Exported = Callable[[Array, Array, Array, Array], tuple[Array, Array, dict[str, Array]]]
"""(W [B, d_v, d_k], b [B, d_v], z [B, D], reset [B]) -> (W, b, fields of StepOut by name)."""


def export_step(memory: AuraMemory, params: AuraParams, path: Path) -> None:
    """Writes the step of `memory` with `params` to `path`; B is free.

    Raises ValueError for a gate that carries something beside W and b. Needs the package flatbuffers.
    """
    if memory.init(1).carry.size:
        raise ValueError(f"gate {memory.config.gate!r} carries more than W and b: it is a control, not for export")

    def step(W: Array, b: Array, z: Array, reset: Array) -> tuple[Array, Array, dict[str, Array]]:
        state, out = memory.step(params, AuraState(W, b, jnp.zeros((W.shape[0], 0))), z, reset)
        return state.W, state.b, dict(flatten(out))

    config = memory.config
    (rows,) = export.symbolic_shape("B")
    sizes = ((config.value_size, config.key_size), (config.value_size,), (config.feature_size,), ())
    kinds = (jnp.float32, jnp.float32, jnp.float32, jnp.bool_)
    like = jax.eval_shape(lambda: [jnp.zeros((rows, *size), kind) for size, kind in zip(sizes, kinds, strict=True)])
    made = export.export(jax.jit(step), platforms=PLATFORMS)(*like)
    path.write_bytes(made.serialize())


def load_step(path: Path) -> Exported:
    """The step that `export_step` wrote, run on the default device."""
    call: Exported = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return call
