"""Exact search against brute force in double precision, at every scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlamem.core.seeding import stream
from vlamem.memory.success.retrieve.index import ExactIndex, smallest


def brute(vectors: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    distances = ((vectors.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1)
    return np.lexsort((np.arange(len(vectors)), distances))[:k]


@pytest.fixture(params=[10**9, 300], ids=["all scored", "contracted first"])
def many(request):
    """From how many vectors on an index keeps contractions."""
    return request.param


@pytest.mark.parametrize("shape", ["spread", "cone", "duplicates", "flat"])
def test_search_is_exact(shape, many):
    draw = stream(0, "vectors", shape)
    vectors = draw.standard_normal((6000, 20)).astype(np.float32)
    if shape == "cone":  # nearly equal directions far from the origin: rounding matters most
        vectors = (0.001 * vectors + 5.0).astype(np.float32)
    if shape == "duplicates":
        vectors = vectors[draw.integers(0, 40, 6000)]
    if shape == "flat":  # two directions, and little beside them
        vectors = (vectors * np.where(np.arange(20) < 2, 1.0, 1e-3)).astype(np.float32)
    index = ExactIndex(20, many)
    index.add(vectors[:5000], np.arange(5000), np.zeros(5000, np.int64))
    index.add(vectors[5000:], np.arange(5000, 6000), np.zeros(1000, np.int64))
    for query in vectors[::600] + (0.0005 * draw.standard_normal((10, 20))).astype(np.float32):
        at, distances = index.search(query, 16)
        np.testing.assert_array_equal(at, brute(vectors, query, 16))
        assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize("exponent", [-40, -30, *range(-10, 11, 4), 18, 30, 37])
@pytest.mark.parametrize("shape", ["spread", "cone", "line"])
def test_search_is_exact_at_any_scale_of_single_precision(shape, exponent, many):
    draw = stream(1, "scales", shape)
    vectors = draw.uniform(-1, 1, (3000, 12))
    if shape == "cone":
        vectors = 0.001 * vectors + 1.0
    if shape == "line":  # 0, 1, 2, ... along one axis: neighbours differ by a 3000th of the longest
        vectors = np.arange(3000.0)[:, None] * np.eye(12)[0]
    vectors = (vectors * 10.0**exponent / (3000 if shape == "line" else 1)).astype(np.float32)
    index = ExactIndex(12, many)
    index.add(vectors, np.arange(3000), np.zeros(3000, np.int64))
    for query in vectors[::600]:
        at, _ = index.search(query, 16)
        np.testing.assert_array_equal(at, brute(vectors, query, 16))


def test_vectors_of_very_different_lengths_are_all_found(many):
    draw = stream(2, "lengths")
    scales = 10.0 ** draw.integers(-30, 31, (2000, 1))
    vectors = (draw.standard_normal((2000, 5)) * scales).astype(np.float32)
    index = ExactIndex(5, many)
    index.add(vectors, np.arange(2000), np.zeros(2000, np.int64))
    longest = np.full((1, 5), 3e38, np.float32)
    index.add(longest, np.array([2000]), np.zeros(1, np.int64))  # its length is none of single precision
    vectors = np.concatenate([vectors, longest])
    for query in [*vectors[:10], np.zeros(5, np.float32)]:
        np.testing.assert_array_equal(index.search(query, 8)[0], brute(vectors, query, 8))


def test_a_query_far_from_every_vector_finds_the_nearest(many):
    vectors = stream(3, "far").standard_normal((1000, 4)).astype(np.float32)
    index = ExactIndex(4, many)
    index.add(vectors, np.arange(1000), np.zeros(1000, np.int64))
    for distance in (1e4, 1e9, 1e30):
        query = np.full(4, distance, np.float32)
        np.testing.assert_array_equal(index.search(query, 5)[0], brute(vectors, query, 5))


def test_of_equal_distances_the_smaller_id_comes_first(many):
    vectors = np.zeros((5000, 3), np.float32)
    vectors[::2, 0] = 1.0
    index = ExactIndex(3, many)
    index.add(vectors, np.arange(5000) + 7, np.zeros(5000, np.int64))
    at, distances = index.search(np.zeros(3, np.float32), 6)
    assert index.ids[at].tolist() == [8, 10, 12, 14, 16, 18]
    assert distances.tolist() == [0] * 6


def test_only_allowed_groups_are_found(many):
    vectors = stream(0, "groups").standard_normal((5000, 8)).astype(np.float32)
    index = ExactIndex(8, many)
    index.add(vectors, np.arange(5000), np.arange(5000) % 5)
    at, _ = index.search(vectors[0], 10, np.array([1, 3]))
    assert set(at % 5) <= {1, 3}
    chosen = np.flatnonzero(np.isin(np.arange(5000) % 5, [1, 3]))
    np.testing.assert_array_equal(at, chosen[brute(vectors[chosen], vectors[0], 10)])


def test_removed_vectors_are_not_found_and_the_rest_is(many):
    vectors = stream(0, "removal").standard_normal((5000, 8)).astype(np.float32)
    index = ExactIndex(8, many)
    index.add(vectors[:4600], np.arange(4600), np.zeros(4600, np.int64))
    index.remove(np.arange(0, 4600, 2))
    at, _ = index.search(vectors[2], 5)
    np.testing.assert_array_equal(index.ids[at], 1 + 2 * brute(vectors[1:4600:2], vectors[2], 5))
    index.remove(np.arange(101, 4600))
    index.add(vectors[4600:], np.arange(4600, 5000), np.zeros(400, np.int64))  # fewer than before
    left = np.concatenate([vectors[1:100:2], vectors[4600:]])
    np.testing.assert_array_equal(index.search(vectors[2], 5)[0], brute(left, vectors[2], 5))


def test_where_vectors_vary_in_few_directions_most_are_ruled_out_by_their_contractions(monkeypatch):
    draw = stream(5, "few directions")
    vectors = draw.standard_normal((4000, 3)) @ draw.standard_normal((3, 40))
    vectors = (vectors + 0.01 * draw.standard_normal(vectors.shape)).astype(np.float32)
    index = ExactIndex(40, 300)
    for part in np.array_split(np.arange(4000), 7):  # new directions are taken as it grows
        index.add(vectors[part], part, np.zeros(len(part), np.int64))
    monkeypatch.setattr(ExactIndex, "_scores", None)
    for query in vectors[::400] + np.float32(0.01):
        np.testing.assert_array_equal(index.search(query, 16)[0], brute(vectors, query, 16))


@given(count=st.integers(1, 600), k=st.integers(1, 20), groups=st.booleans())
@settings(max_examples=40, deadline=None)
def test_an_index_of_any_size_is_exact(count, k, groups):
    draw = stream(0, "any size", count, k)
    vectors = draw.integers(-3, 4, (count, 3)).astype(np.float32)  # ties in plenty
    index = ExactIndex(3)
    index.add(vectors, np.arange(count), np.arange(count) % 2)
    chosen = np.arange(0, count, 2) if groups else np.arange(count)
    at, distances = index.search(vectors[0], k, np.array([0]) if groups else None)
    np.testing.assert_array_equal(at, chosen[brute(vectors[chosen], vectors[0], k)])
    np.testing.assert_array_equal(distances, ((vectors[at] - vectors[0]) ** 2).sum(axis=1))


def test_an_empty_index_finds_nothing_and_a_small_one_everything():
    index = ExactIndex(3)
    assert len(index.search(np.zeros(3, np.float32), 4)[0]) == 0
    index.add(np.eye(3, dtype=np.float32), np.array([5, 6, 7]), np.zeros(3, np.int64))
    assert len(index.search(np.zeros(3, np.float32), 4)[0]) == 3


def test_vectors_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 4\], expected \[N, 3\]"):
        ExactIndex(3).add(np.zeros((2, 4), np.float32), np.arange(2), np.arange(2))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 20), st.integers(0, 99))
def test_smallest_are_those_of_a_full_sort(n, count, seed):
    values = stream(seed, "values").standard_normal(n)
    count = min(count, n)
    assert set(smallest(values, count)) == set(np.argsort(values)[:count])
