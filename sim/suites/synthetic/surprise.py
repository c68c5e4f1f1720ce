"""Action surprise that is not sensory surprise: loud changes that matter to no answer, quiet ones that do."""

from dataclasses import dataclass

import jax
from jaxtyping import Array

from vlamem.sim.suites.synthetic.events import draw_kinds
from vlamem.sim.suites.synthetic.stream import Kind, Streams, Vocabulary, bind, emit, rows


@dataclass(frozen=True)
class SurpriseConfig:
    """Shares of ticks and sizes of changes; what the shares leave over is noise.

    Attributes:
        ticks: T.
        rate: share of quiet events, which change answers.
        loud_rate: share of loud changes, which change none.
        queries: share of ticks that ask.
        quiet: length of an event's key, value and mark.
        loud: length of a loud change.
        noise: standard deviation of the sensory noise, a dimension.
    """

    ticks: int = 256
    rate: float = 0.1
    loud_rate: float = 0.2
    queries: float = 0.15
    quiet: float = 0.3
    loud: float = 4.0
    noise: float = 0.03

    def __post_init__(self) -> None:
        total = self.rate + self.loud_rate + self.queries
        if not 0 < self.rate < 1 or total > 1:
            raise ValueError(f"shares of events, loud changes and queries add up to {total:.3g}, expected (0, 1]")
        if not 0 < self.quiet < self.loud:
            raise ValueError(f"quiet {self.quiet} must be above 0 and below loud {self.loud}")


def surprise_streams(key: Array, config: SurpriseConfig, vocabulary: Vocabulary, batch: int) -> Streams:
    """`batch` streams of quiet events among loud changes; the first tick of each is an event."""
    for_kind, for_key, for_bind, for_emit = jax.random.split(key, 4)
    shares = [
        (Kind.EVENT, rows(config.rate, batch)),
        (Kind.LOUD, rows(config.loud_rate, batch)),
        (Kind.QUERY, rows(config.queries, batch)),
    ]
    kind = draw_kinds(for_kind, config.ticks, shares, batch).at[0].set(Kind.EVENT)
    events_key = jax.random.randint(for_key, kind.shape, 0, vocabulary.keys.shape[0])
    bound = bind(for_bind, kind, events_key, vocabulary)
    return emit(for_emit, bound, vocabulary, config.noise, signal=config.quiet, loud=config.loud)
