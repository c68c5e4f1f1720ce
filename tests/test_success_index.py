"""Exact search: both engines against brute force in double precision."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlamem.core.seeding import stream
from vlamem.memory.success.retrieve.index import ExactIndex, smallest

ENGINES = ["numpy", *(["faiss"] if importlib.util.find_spec("faiss") else [])]


def brute(vectors: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    distances = ((vectors.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1)
    return np.lexsort((np.arange(len(vectors)), distances))[:k]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", ["spread", "cone", "duplicates"])
def test_search_is_exact(engine, shape):
    draw = stream(0, "vectors", shape)
    vectors = draw.standard_normal((6000, 20)).astype(np.float32)
    if shape == "cone":  # nearly equal directions far from the origin: rounding matters most
        vectors = (0.001 * vectors + 5.0).astype(np.float32)
    if shape == "duplicates":
        vectors = vectors[draw.integers(0, 40, 6000)]
    index = ExactIndex(20, engine)
    index.add(vectors[:5000], np.arange(5000), np.zeros(5000, np.int64))
    index.add(vectors[5000:], np.arange(5000, 6000), np.zeros(1000, np.int64))
    for query in vectors[::600] + (0.0005 * draw.standard_normal((10, 20))).astype(np.float32):
        at, distances = index.search(query, 16)
        np.testing.assert_array_equal(at, brute(vectors, query, 16))
        assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_only_allowed_groups_are_found(engine):
    vectors = stream(0, "groups").standard_normal((5000, 8)).astype(np.float32)
    index = ExactIndex(8, engine)
    index.add(vectors, np.arange(5000), np.arange(5000) % 5)
    at, _ = index.search(vectors[0], 10, np.array([1, 3]))
    assert set(at % 5) <= {1, 3}
    chosen = np.flatnonzero(np.isin(np.arange(5000) % 5, [1, 3]))
    np.testing.assert_array_equal(at, chosen[brute(vectors[chosen], vectors[0], 10)])


@pytest.mark.parametrize("engine", ENGINES)
def test_removed_vectors_are_not_found_and_the_rest_is(engine):
    vectors = stream(0, "removal").standard_normal((5000, 8)).astype(np.float32)
    index = ExactIndex(8, engine)
    index.add(vectors, np.arange(5000), np.zeros(5000, np.int64))
    index.remove(np.arange(0, 5000, 2))
    at, _ = index.search(vectors[2], 5)
    np.testing.assert_array_equal(index.ids[at], 1 + 2 * brute(vectors[1::2], vectors[2], 5))


@given(count=st.integers(1, 600), k=st.integers(1, 20), groups=st.booleans())
@settings(max_examples=40, deadline=None)
def test_an_index_of_any_size_is_exact(count, k, groups):
    draw = stream(0, "any size", count, k)
    vectors = draw.integers(-3, 4, (count, 3)).astype(np.float32)  # ties in plenty
    index = ExactIndex(3, "numpy")
    index.add(vectors, np.arange(count), np.arange(count) % 2)
    chosen = np.arange(0, count, 2) if groups else np.arange(count)
    at, distances = index.search(vectors[0], k, np.array([0]) if groups else None)
    np.testing.assert_array_equal(at, chosen[brute(vectors[chosen], vectors[0], k)])
    np.testing.assert_array_equal(distances, ((vectors[at] - vectors[0]) ** 2).sum(axis=1))


def test_an_empty_index_finds_nothing_and_a_small_one_everything():
    index = ExactIndex(3, "numpy")
    assert len(index.search(np.zeros(3, np.float32), 4)[0]) == 0
    index.add(np.eye(3, dtype=np.float32), np.array([5, 6, 7]), np.zeros(3, np.int64))
    assert len(index.search(np.zeros(3, np.float32), 4)[0]) == 3


def test_vectors_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 4\], this index has size 3"):
        ExactIndex(3, "numpy").add(np.zeros((2, 4), np.float32), np.arange(2), np.arange(2))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 20), st.integers(0, 99))
def test_smallest_are_those_of_a_full_sort(n, count, seed):
    values = stream(seed, "values").standard_normal(n)
    count = min(count, n)
    assert set(smallest(values, count)) == set(np.argsort(values)[:count])
