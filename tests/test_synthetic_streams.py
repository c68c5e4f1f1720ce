"""Synthetic streams: what is known at every tick, and that nothing but events changes it."""

import jax.numpy as jnp
import numpy as np
import pytest

from vlamem.sim.suites.synthetic import (
    EventConfig,
    Kind,
    RecallConfig,
    Streams,
    SurpriseConfig,
    event_streams,
    key_of,
    recall_streams,
    surprise_streams,
    vocabulary,
)

WORDS = vocabulary(0, keys=16)


def read(streams: Streams, words=WORDS, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Key and value of every tick, read off the features by the nearest word."""
    z = np.asarray(streams.z) / signal
    return (z @ np.asarray(words.keys).T).argmax(-1), (z @ np.asarray(words.values).T).argmax(-1)


def replay(streams: Streams, words=WORDS, signal: float = 1.0, counts=(Kind.EVENT,)) -> tuple[int, int]:
    """Right answers of a reader that remembers the ticks of `counts`, and how many were asked."""
    key, value = read(streams, words, signal)
    kind, answer = np.asarray(streams.kind), np.asarray(streams.answer)
    right = asked = 0
    for row in range(kind.shape[1]):
        known: dict[int, int] = {}
        for t in range(kind.shape[0]):
            if kind[t, row] in counts:
                known[key[t, row]] = value[t, row]
            elif kind[t, row] == Kind.QUERY:
                asked += 1
                right += known.get(key[t, row]) == answer[t, row]
    return right, asked


@pytest.fixture(scope="module")
def events() -> Streams:
    config = EventConfig(ticks=200, rates=(0.05, 0.2), noise=0.0)
    return event_streams(key_of(0, "test"), config, WORDS, 12)


def test_the_last_event_of_a_key_is_the_answer(events):
    right, asked = replay(events)
    assert asked > 200
    assert right == asked


def test_lookalikes_contradict_what_is_known_and_change_no_answer(events):
    right, asked = replay(events, counts=(Kind.EVENT, Kind.LOOKALIKE))
    assert right < 0.9 * asked, "a reader that believes look-alikes must be misled"


def test_repeats_say_what_is_known(events):
    assert replay(events, counts=(Kind.EVENT, Kind.REPEAT)) == replay(events)


def test_lookalikes_carry_key_and_value_but_not_the_event_mark(events):
    mark = np.asarray(events.z @ WORDS.marks[0])
    kind = np.asarray(events.kind)
    np.testing.assert_allclose(mark[kind == Kind.LOOKALIKE], 0, atol=1e-5)
    np.testing.assert_allclose(mark[(kind == Kind.EVENT) | (kind == Kind.REPEAT)], 1, atol=1e-5)


def test_every_event_changes_the_answer_of_its_key(events):
    key, value = read(events)
    kind = np.asarray(events.kind)
    for row in range(kind.shape[1]):
        known: dict[int, int] = {}
        for t in np.flatnonzero(kind[:, row] == Kind.EVENT):
            assert known.get(key[t, row]) != value[t, row]
            known[key[t, row]] = value[t, row]


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.2])
def test_events_come_at_the_asked_rate(rate):
    streams = event_streams(key_of(1, "rate"), EventConfig(ticks=512, rates=(rate,)), WORDS, 32)
    share = float(streams.event.mean())
    assert abs(share - rate) < 4 * np.sqrt(rate / (512 * 32)) + 1 / 512


def test_streams_are_a_function_of_seed_and_name():
    config = EventConfig(ticks=32)
    first, again, other = (event_streams(key_of(3, n), config, WORDS, 2).z for n in ("a", "a", "b"))
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(first, other)


@pytest.mark.parametrize("n", [8, 16, 32, 64])
def test_recall_binds_n_keys_and_a_quarter_of_them_again_before_any_query(n):
    words = vocabulary(0, keys=64)
    streams = recall_streams(key_of(0, "recall"), RecallConfig((n,), noise=0.0), words, 4)
    key, _ = read(streams, words)
    kind = np.asarray(streams.kind)
    for row in range(4):
        bound = key[kind[:, row] == Kind.EVENT, row]
        assert len(set(bound)) == n
        assert len(bound) == n + n // 4
    assert np.flatnonzero((kind == Kind.EVENT).any(1)).max() < np.flatnonzero((kind == Kind.QUERY).any(1)).min()
    right, asked = replay(streams, words)
    assert right == asked == 4 * 48


def test_recall_refuses_a_vocabulary_with_too_few_keys():
    with pytest.raises(ValueError, match="64 bindings need as many keys, the vocabulary has 16"):
        recall_streams(key_of(0, "recall"), RecallConfig(), WORDS, 2)


def test_loud_changes_are_larger_than_events_and_change_no_answer():
    config = SurpriseConfig(ticks=200, noise=0.0)
    streams = surprise_streams(key_of(0, "surprise"), config, WORDS, 8)
    size, kind = np.linalg.norm(np.asarray(streams.z), axis=-1), np.asarray(streams.kind)
    assert size[kind == Kind.LOUD].min() > 5 * size[kind == Kind.EVENT].max()
    right, asked = replay(streams, signal=config.quiet)
    assert asked > 100
    assert right == asked


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"add up to 1\.05"):
        EventConfig(rates=(0.6,))
    with pytest.raises(ValueError, match="must be above 0 and below loud"):
        SurpriseConfig(quiet=5.0)
    with pytest.raises(ValueError, match="too small for 8 values"):
        vocabulary(0, keys=8, size=16)
