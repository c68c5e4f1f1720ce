"""Event-sparse streams: few ticks matter, and three kinds of others look as if they did."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlamem.sim.suites.synthetic.stream import Kind, Streams, Vocabulary, bind, emit, rows


@dataclass(frozen=True)
class EventConfig:
    """Shares of ticks in an event-sparse stream; what they leave over is noise.

    Attributes:
        ticks: T.
        rates: event rates, 0 to 1; each row draws one of them.
        lookalikes: share of key-and-value ticks without the event mark.
        repeats: share of ticks that say what is known already.
        queries: share of ticks that ask.
        noise: standard deviation of the sensory noise, a dimension.
    """

    ticks: int = 256
    rates: tuple[float, ...] = (0.1,)
    lookalikes: float = 0.2
    repeats: float = 0.1
    queries: float = 0.15
    noise: float = 0.02

    def __post_init__(self) -> None:
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"event rates {self.rates} must all be above 0")
        total = max(self.rates) + self.lookalikes + self.repeats + self.queries
        if total > 1:
            raise ValueError(f"shares of events, look-alikes, repeats and queries add up to {total:.3g}, above 1")


def draw_kinds(key: Array, ticks: int, shares: list[tuple[Kind, Float[Array, "B"]]], batch: int) -> Int[Array, "T B"]:
    """Each tick's kind, independently, by its share; what is left over is noise."""
    u = jax.random.uniform(key, (ticks, batch))
    kind, low = jnp.full((ticks, batch), Kind.NOISE), jnp.zeros(batch)
    for which, share in shares:
        kind = jnp.where((u >= low) & (u < low + share), which, kind)
        low = low + share
    return kind


def event_streams(
    key: Array, config: EventConfig, vocabulary: Vocabulary, batch: int, rates: Float[Array, "R"] | None = None
) -> Streams:
    """`batch` event-sparse streams; the first tick of each is an event, so that something can be queried.

    `rates`, where given, takes the place of config.rates: one compilation for all.
    """
    for_rate, for_kind, for_key, for_bind, for_emit = jax.random.split(key, 5)
    rate = jax.random.choice(for_rate, jnp.asarray(config.rates) if rates is None else rates, (batch,))
    kind = draw_kinds(
        for_kind,
        config.ticks,
        [
            (Kind.EVENT, rate),
            (Kind.LOOKALIKE, rows(config.lookalikes, batch)),
            (Kind.REPEAT, rows(config.repeats, batch)),
            (Kind.QUERY, rows(config.queries, batch)),
        ],
        batch,
    )
    kind = kind.at[0].set(Kind.EVENT)
    events_key = jax.random.randint(for_key, kind.shape, 0, vocabulary.keys.shape[0])
    return emit(for_emit, bind(for_bind, kind, events_key, vocabulary), vocabulary, config.noise)
