"""What every synthetic stream is made of: kinds of ticks, a vocabulary of features, and the answers they imply.

Shapes: T ticks, B rows, D feature size, N keys, V values. A stream is decided in two steps: first which kind and
which key each tick has (`recall`, `events` and `surprise` differ here alone), then `bind` works out what is known at
every tick and `emit` turns it into features.
"""

from enum import IntEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vlamem.core.seeding import integer_seed, stream


class Kind(IntEnum):
    """What a tick is."""

    NOISE = 0
    """Clutter: no key, no value, no mark."""
    EVENT = 1
    """Mark, key and a value that is news for this key: from now on this is the answer."""
    LOOKALIKE = 2
    """Key and value without the mark: changes no answer, ever."""
    REPEAT = 3
    """Mark, key and the value that this key already has."""
    QUERY = 4
    """Asks for the value of a key; no value in the feature."""
    LOUD = 5
    """A sensory change far larger than an event's, which matters to no answer."""


KINDS = tuple(kind.name.lower() for kind in Kind)


class Vocabulary(NamedTuple):
    """Directions in feature space, all of unit length. Keys may overlap; the other groups are orthogonal to all.

    Attributes:
        keys: [N, D].
        values: [V, D].
        marks: [2, D], of an event and of a query.
        loud: [L, D], of large changes that matter to nothing.
    """

    keys: Float[Array, "N D"]
    values: Float[Array, "V D"]
    marks: Float[Array, "two D"]
    loud: Float[Array, "L D"]


class Streams(NamedTuple):
    """B streams of T ticks, time first as a scan takes them.

    Attributes:
        z: [T, B, D] features.
        event: [T, B], ticks that change a later answer: what an oracle gate writes.
        answer: [T, B], right answer 0..V-1 where `kind` is QUERY, 0 elsewhere.
        kind: [T, B], Kind of every tick.
        reset: [T, B], all false: each row is one episode.
    """

    z: Float[Array, "T B D"]
    event: Bool[Array, "T B"]
    answer: Int[Array, "T B"]
    kind: Int[Array, "T B"]
    reset: Bool[Array, "T B"]

    @property
    def query(self) -> Bool[Array, "T B"]:
        """The query mask: ticks at which an answer counts."""
        return self.kind == Kind.QUERY


class Bound(NamedTuple):
    """Keys and values of every tick once what is known is worked out; fields [T, B]."""

    kind: Int[Array, "T B"]
    key: Int[Array, "T B"]
    value: Int[Array, "T B"]
    answer: Int[Array, "T B"]


def vocabulary(seed: int, keys: int, values: int = 8, size: int = 64) -> Vocabulary:
    """The vocabulary called `seed`: one world, in which any number of streams is drawn.

    Raises ValueError when `size` has no room for the values, the marks and as many dimensions again for keys.
    """
    fixed = values + 2 + 4
    if size < 2 * fixed:
        raise ValueError(f"feature size {size} is too small for {values} values: expected at least {2 * fixed}")
    rng = stream(seed, "synthetic", "vocabulary", keys, values, size)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0].T.astype(np.float32)
    spread = rng.standard_normal((keys, size - fixed)).astype(np.float32)
    spread /= np.linalg.norm(spread, axis=1, keepdims=True)
    return Vocabulary(
        keys=jnp.asarray(spread @ basis[fixed:]),
        values=jnp.asarray(basis[:values]),
        marks=jnp.asarray(basis[values : values + 2]),
        loud=jnp.asarray(basis[values + 2 : fixed]),
    )


def key_of(seed: int, *names: str | int) -> Array:
    """The JAX key of the random stream called `names` under `seed`."""
    return jax.random.key(integer_seed(seed, "synthetic", *names))


def _history(
    event: Bool[Array, "T B N"], change: Int[Array, "T B"], values: int
) -> tuple[Bool[Array, "T B N"], Int[Array, "T B N"], Int[Array, "T B N"]]:
    """Whether each key is known before each tick, and its value before and after it.

    The first event of a key sets it to any value, each later one to another value than it has.
    """

    def tick(held: tuple[Array, Array], x: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        (known, value), (now, by) = held, x
        added = jnp.where(known, 1 + by[:, None] % (values - 1), by[:, None] % values)
        after = jnp.where(now, (value + added) % values, value)
        return (known | now, after), (known, value, after)

    none = jnp.zeros(event.shape[1:], bool)
    # a plain loop: cumulative sums and maxima take ten times longer to compile than this takes to run
    _, (known, before, after) = jax.lax.scan(tick, (none, none.astype(change.dtype)), (event, change))
    return known, before, after


def bind(key: Array, kind: Int[Array, "T B"], events_key: Int[Array, "T B"], vocabulary: Vocabulary) -> Bound:
    """Works out keys, values and answers from what was decided.

    Events take their key from `events_key`; repeats and queries take one of the keys that are known by then, and are
    noise where none is; look-alikes take any key and a value that is not the answer of that key.
    """
    n, values = vocabulary.keys.shape[0], vocabulary.values.shape[0]
    for_change, for_choice, for_key, for_value = jax.random.split(key, 4)
    event = (kind == Kind.EVENT)[..., None] & (events_key[..., None] == jnp.arange(n))
    known, before, after = _history(event, jax.random.randint(for_change, kind.shape, 0, 1 << 20), values)

    needs_known = (kind == Kind.REPEAT) | (kind == Kind.QUERY)
    kind = jnp.where(needs_known & ~known.any(-1), Kind.NOISE, kind)
    chosen = jnp.argmax(jnp.where(known, jax.random.uniform(for_choice, known.shape), -1.0), axis=-1)
    key_index = jnp.where(
        kind == Kind.EVENT,
        events_key,
        jnp.where(kind == Kind.LOOKALIKE, jax.random.randint(for_key, kind.shape, 0, n), chosen),
    )
    truth_before = jnp.take_along_axis(before, key_index[..., None], axis=-1)[..., 0]
    truth_after = jnp.take_along_axis(after, key_index[..., None], axis=-1)[..., 0]
    wrong = (truth_before + 1 + jax.random.randint(for_value, kind.shape, 0, values - 1)) % values
    value = jnp.where(kind == Kind.LOOKALIKE, wrong, jnp.where(kind == Kind.EVENT, truth_after, truth_before))
    return Bound(kind, key_index, value, jnp.where(kind == Kind.QUERY, truth_before, 0))


def emit(
    key: Array,
    bound: Bound,
    vocabulary: Vocabulary,
    noise: float,
    signal: float = 1.0,
    loud: float = 0.0,
) -> Streams:
    """Features of what was bound.

    Every tick carries Gaussian noise of standard deviation `noise` a dimension. Keys, values and marks have length
    `signal`; a LOUD tick adds `loud` times a direction of its own; a NOISE tick is clutter of an event's length.
    """
    for_noise, for_clutter, for_loud = jax.random.split(key, 3)
    kind, size = bound.kind, vocabulary.keys.shape[1]

    def among(*kinds: Kind) -> Float[Array, "T B 1"]:
        return jnp.isin(kind, jnp.asarray(kinds)).astype(jnp.float32)[..., None]

    clutter = jax.random.normal(for_clutter, (*kind.shape, size))
    clutter /= jnp.linalg.norm(clutter, axis=-1, keepdims=True)
    which = jax.random.randint(for_loud, kind.shape, 0, 2 * vocabulary.loud.shape[0])
    changes = jnp.concatenate([vocabulary.loud, -vocabulary.loud])
    z = noise * jax.random.normal(for_noise, (*kind.shape, size))
    z += signal * among(Kind.EVENT, Kind.LOOKALIKE, Kind.REPEAT, Kind.QUERY) * vocabulary.keys[bound.key]
    z += signal * among(Kind.EVENT, Kind.LOOKALIKE, Kind.REPEAT) * vocabulary.values[bound.value]
    z += signal * among(Kind.EVENT, Kind.REPEAT) * vocabulary.marks[0]
    z += signal * among(Kind.QUERY) * vocabulary.marks[1]
    z += signal * jnp.sqrt(3.0) * among(Kind.NOISE) * clutter
    z += loud * among(Kind.LOUD) * changes[which]
    return Streams(z, kind == Kind.EVENT, bound.answer, kind, jnp.zeros(kind.shape, bool))


def rows(value: Float[Array, " B"] | float, batch: int) -> Float[Array, " B"]:
    """`value` for each of `batch` rows."""
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (batch,))
