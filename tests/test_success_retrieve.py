"""From candidates to a prior: consistency, averages on the right manifold, confidence, abstention."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from success_cases import LAYOUT

from vlamem.core.seeding import stream
from vlamem.memory.success.experience.layout import ActionPart
from vlamem.memory.success.retrieve.aggregate import aggregate, rotation_mean
from vlamem.memory.success.retrieve.consistency import consistent, warped, warped_distances
from vlamem.memory.success.retrieve.prior import Candidates, RetrieveOptions, elite_prior

EMPTY = Candidates(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4, 7), np.float32), np.zeros(0))


def chunk(x: float, gripper: float = 1.0) -> np.ndarray:
    made = np.zeros((4, 7), np.float32)
    made[:, 0], made[:, 6] = x, gripper
    return made


def candidates(chunks: list[np.ndarray], similarity: list[float]) -> Candidates:
    return Candidates(np.arange(len(chunks)), np.array(similarity), np.stack(chunks), np.ones(len(chunks)))


def slow_warping(a: np.ndarray, b: np.ndarray, window: int) -> float:
    h = len(a)
    best = np.full((h + 1, h + 1), np.inf)
    best[0, 0] = 0
    for i in range(1, h + 1):
        for j in range(1, h + 1):
            if abs(i - j) <= window:
                step = min(best[i - 1, j], best[i, j - 1], best[i - 1, j - 1])
                best[i, j] = np.linalg.norm(a[i - 1] - b[j - 1]) + step
    return best[h, h] / h


@pytest.mark.parametrize("window", [1, 4])
def test_warped_distance_is_that_of_the_definition(window):
    chunks = stream(0, "warp").standard_normal((4, 9, 3)).cumsum(axis=1)
    for i in range(4):
        for j in range(4):
            expected = slow_warping(chunks[i], chunks[j], window)
            assert warped(chunks[i][None], chunks[j][None], window)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("horizon", "window"), [(1, 4), (2, 4), (3, 0), (5, 4), (12, 2)])
def test_distances_of_chunks_of_any_length_are_those_of_the_definition(horizon, window):
    chunks = stream(1, "warp", horizon).standard_normal((5, horizon, 7)).cumsum(axis=1).astype(np.float32)
    found = warped_distances(chunks, window)
    for i in range(5):
        for j in range(5):
            assert found[i, j] == pytest.approx(slow_warping(np.float64(chunks[i]), np.float64(chunks[j]), window))


def test_near_copies_are_near():
    """A library's pruned search reports infinity for these."""
    chunks = np.stack([stream(2, "copies").standard_normal((8, 7))] * 40)
    chunks += 1e-7 * stream(3, "copies").standard_normal(chunks.shape)
    assert warped_distances(chunks).max() < 1e-5


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999])
def test_weights_fall_with_the_room_that_the_threshold_leaves(threshold):
    room = 1 - threshold
    options = RetrieveOptions(threshold=threshold, consistency=False)
    equal = elite_prior(candidates([chunk(0.0), chunk(0.2)], [1.0, 1.0]), EMPTY, LAYOUT.parts, options)
    nearest = elite_prior(candidates([chunk(0.0), chunk(0.2)], [1.0, 1 - room]), EMPTY, LAYOUT.parts, options)
    a_little = elite_prior(candidates([chunk(0.0), chunk(0.2)], [1.0, 1 - 0.05 * room]), EMPTY, LAYOUT.parts, options)
    np.testing.assert_allclose(equal.chunk[:, 0], 0.1, atol=1e-6)
    np.testing.assert_allclose(nearest.chunk[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(a_little.chunk[:, 0], 0.2 / (1 + np.e), atol=1e-4)


def test_a_shift_in_time_costs_less_than_its_euclidean_distance():
    wave = np.sin(np.linspace(0, 6, 20))[:, None] * np.ones(3)
    late = np.concatenate([wave[:1], wave[:1], wave[:-2]])
    straight = np.linalg.norm(wave - late, axis=1).mean()
    assert warped(wave[None], late[None])[0] < 0.3 * straight


def test_the_larger_group_that_agrees_is_kept():
    distances = warped_distances(np.stack([chunk(0.1), chunk(0.12), chunk(-0.8), chunk(0.11)]))
    np.testing.assert_array_equal(consistent(distances, np.full(4, 0.25), 0.2), [True, True, False, True])


def test_rotations_average_on_the_sphere_and_not_in_the_plane():
    axis = np.array([0.0, 0.0, 1.0])
    turns = np.stack([axis * 3.0, axis * -3.0])[:, None]  # 3.0 and -3.0 rad: their mean is pi, not 0
    mean = rotation_mean(turns, np.array([0.5, 0.5]))[0]
    assert np.linalg.norm(mean) == pytest.approx(np.pi, abs=1e-4)


def test_the_mean_rotation_has_no_weighted_error_in_its_tangent_space():
    vectors = 0.8 * stream(0, "turns").standard_normal((5, 3, 3))
    weights = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    mean = Rotation.from_rotvec(rotation_mean(vectors, weights))
    left = sum(w * (mean.inv() * Rotation.from_rotvec(v)).as_rotvec() for w, v in zip(weights, vectors, strict=True))
    np.testing.assert_allclose(left, 0, atol=1e-4)


def test_grippers_vote_and_translations_average():
    out = aggregate(
        np.stack([chunk(0.2, 1.0), chunk(0.4, -1.0), chunk(0.6, 1.0)]), np.array([0.25, 0.5, 0.25]), LAYOUT.parts
    )
    np.testing.assert_allclose(out[:, 0], 0.4, atol=1e-6)
    assert (out[:, 6] == out[0, 6]).all()
    assert abs(out[0, 6]) == 1.0
    surer = aggregate(np.stack([chunk(0.2, 1.0), chunk(0.4, -1.0)]), np.array([0.7, 0.3]), LAYOUT.parts)
    assert (surer[:, 6] == 1.0).all()


def test_quaternion_entries_stay_unit_whatever_their_sign():
    parts = (ActionPart("orientation", 4, "quaternion"),)
    one = np.tile([1.0, 0.0, 0.0, 0.0], (4, 1)).astype(np.float32)
    out = aggregate(np.stack([one, -one]), np.array([0.5, 0.5]), parts)
    np.testing.assert_allclose(np.abs(out[:, 0]), 1.0, atol=1e-5)


def test_nothing_similar_enough_abstains():
    prior = elite_prior(candidates([chunk(0.1)], [0.5]), EMPTY, LAYOUT.parts, RetrieveOptions(threshold=0.9))
    assert (prior.confidence, prior.chunk, prior.why) == (0.0, None, "unknown")
    assert elite_prior(EMPTY, EMPTY, LAYOUT.parts, RetrieveOptions()).why == "unknown"


def test_candidates_that_disagree_abstain_unless_consistency_is_off():
    split = candidates([chunk(x) for x in (-0.9, -0.3, 0.3, 0.9)], [0.95] * 4)
    options = {"threshold": 0.9, "reach": 0.2, "agreement": 0.5}
    assert elite_prior(split, EMPTY, LAYOUT.parts, RetrieveOptions(**options)).why == "disagree"
    assert elite_prior(split, EMPTY, LAYOUT.parts, RetrieveOptions(**options, consistency=False)).chunk is not None


def test_confidence_rises_with_similarity_and_falls_with_spread():
    options = RetrieveOptions(threshold=0.9, reach=0.5)

    def sure(similarity: float, spread: float) -> float:
        return elite_prior(
            candidates([chunk(0.1), chunk(0.1 + spread)], [similarity, similarity]), EMPTY, LAYOUT.parts, options
        ).confidence

    assert sure(0.99, 0.0) > sure(0.91, 0.0) > 0
    assert sure(0.99, 0.0) > sure(0.99, 0.4) > 0


def test_a_prior_like_what_preceded_a_failure_loses_confidence():
    good = candidates([chunk(0.3)], [0.99])
    same, other = candidates([chunk(0.3)], [0.99]), candidates([chunk(-0.7)], [0.99])
    far = candidates([chunk(0.3)], [0.5])

    def sure(bad: Candidates, **options: object) -> float:
        return elite_prior(good, bad, LAYOUT.parts, RetrieveOptions(threshold=0.9, **options)).confidence

    assert sure(same) < 0.2 * sure(EMPTY)
    assert sure(other) == sure(far) == sure(EMPTY)
    assert sure(same, failures=False) == sure(EMPTY)


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"temperature": 0.0}, {"neighbours": 0}, {"agreement": -1.0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetrieveOptions(**wrong)
