"""A small AURA memory and its features, for the tests of every implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlamem.memory.designs.aura import AuraConfig, AuraMemory, AuraParams, HeadConfig
from vlamem.memory.protocol import named_arrays

HEAD = HeadConfig(chunk=(3, 2), context=5, answer=8, hidden=16)
SIZE = 32


@functools.cache
def learned(size: int = SIZE, bound: float | None = None) -> tuple[AuraMemory, AuraParams]:
    """A memory that writes on about a quarter of random ticks, its feature not yet standardised."""
    memory = AuraMemory(AuraConfig(size, HEAD, bound=bound))
    params = memory.init_params(jax.random.key(0))
    gate = params.gate | {"out_bias": jnp.array(-0.6)}
    return memory, params._replace(gate=gate, mean=jnp.full(size, 0.3), scale=jnp.linspace(0.5, 2.0, size))


@functools.cache
def arrays(size: int = SIZE) -> dict[str, np.ndarray]:
    """The parameters of `learned` by dotted name."""
    return named_arrays(learned(size)[1])


def features(ticks: int, rows: int, size: int = SIZE, seed: int = 1) -> np.ndarray:
    """Random features [T, B, D]."""
    return np.asarray(jax.random.normal(jax.random.key(seed), (ticks, rows, size)))
