"""Multi-binding associative recall: N keys are bound, some of them again, then any may be queried."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vlamem.sim.suites.synthetic.stream import Kind, Streams, Vocabulary, bind, emit


@dataclass(frozen=True)
class RecallConfig:
    """Sizes of a recall stream of `max(bindings) * (1 + rebound) + queries` ticks.

    Attributes:
        bindings: numbers N of keys that are bound; each row draws one of them.
        rebound: share of N that is bound a second time, to another value: the last one counts.
        queries: ticks at the end that ask.
        noise: standard deviation of the sensory noise, a dimension.
    """

    bindings: tuple[int, ...] = (8, 16, 32, 64)
    rebound: float = 0.25
    queries: int = 48
    noise: float = 0.05

    def __post_init__(self) -> None:
        if not self.bindings or min(self.bindings) < 1:
            raise ValueError(f"numbers of bindings {self.bindings} must all be 1 or more")
        if not 0 <= self.rebound <= 1 or self.queries < 1:
            raise ValueError(f"rebound {self.rebound} must lie in [0, 1] and queries {self.queries} be 1 or more")

    @property
    def binding_ticks(self) -> int:
        """Ticks before the first query."""
        return max(self.bindings) + int(max(self.bindings) * self.rebound)

    @property
    def ticks(self) -> int:
        """T."""
        return self.binding_ticks + self.queries


def recall_streams(key: Array, config: RecallConfig, vocabulary: Vocabulary, batch: int) -> Streams:
    """`batch` recall streams; rows with fewer bindings than the most have noise before them.

    Raises ValueError when the vocabulary has fewer keys than the most bindings.
    """
    keys = vocabulary.keys.shape[0]
    if keys < max(config.bindings):
        raise ValueError(f"{max(config.bindings)} bindings need as many keys, the vocabulary has {keys}")
    for_count, for_order, for_second, for_bind, for_emit = jax.random.split(key, 5)
    count = jax.random.choice(for_count, jnp.asarray(config.bindings), (batch,))
    total = count + (count * config.rebound).astype(jnp.int32)
    # position of each tick within its row's bindings; the bindings end where the queries start
    at = jnp.arange(config.binding_ticks)[:, None] - (config.binding_ticks - total)
    order = jax.vmap(lambda k: jax.random.permutation(k, keys))(jax.random.split(for_order, batch))
    shuffle = jax.random.uniform(for_second, (batch, keys))
    again = jnp.argsort(jnp.where(jnp.arange(keys) < count[:, None], shuffle, 2.0))
    slot = jnp.where(at < count, at, jnp.take_along_axis(again, jnp.clip(at - count, 0, keys - 1).T, axis=1).T)
    events_key = jnp.take_along_axis(order, jnp.clip(slot, 0, keys - 1).T, axis=1).T
    kind = jnp.concatenate([jnp.where(at >= 0, Kind.EVENT, Kind.NOISE), jnp.full((config.queries, batch), Kind.QUERY)])
    events_key = jnp.concatenate([events_key, jnp.zeros((config.queries, batch), events_key.dtype)])
    return emit(for_emit, bind(for_bind, kind, events_key, vocabulary), vocabulary, config.noise)
