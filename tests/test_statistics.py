"""sim/statistics.py"""

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlamem.sim.results.statistics import (
    holm,
    mcnemar_exact,
    mean95,
    paired_difference,
    percentiles,
    ratio95,
    wilson95,
)


def test_wilson_interval_is_the_textbook_one() -> None:
    # p +- z sqrt(p(1-p)/n + z^2/4n^2), shifted and shrunk by 1 + z^2/n, worked by hand for 30 of 30 and 8 of 30
    assert wilson95(30, 30) == pytest.approx((0.8865, 1.0), abs=1e-4)
    assert wilson95(8, 30) == pytest.approx((0.1418, 0.4444), abs=1e-4)


def test_wilson_interval_without_trials_is_everything() -> None:
    assert wilson95(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500), st.integers(0, 500))
def test_wilson_interval_holds_the_rate(n: int, successes: int) -> None:
    successes = min(successes, n)
    low, high = wilson95(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1


def test_more_successes_than_trials_is_refused() -> None:
    with pytest.raises(ValueError, match="impossible"):
        wilson95(4, 3)


def test_mcnemar_p_is_the_binomial_tail_of_the_discordant_pairs() -> None:
    assert mcnemar_exact(10, 0) == pytest.approx(2 * 0.5**10)
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 8) == pytest.approx(2 * (1 + 9) / 2**9)


def test_equal_outcomes_show_no_difference() -> None:
    outcome = [True, False] * 20
    difference = paired_difference(outcome, outcome)
    assert difference.value == 0
    assert difference.ci95[0] < 0 < difference.ci95[1]
    assert not difference.shown


def test_a_large_paired_difference_is_shown_with_its_sign() -> None:
    difference = paired_difference([True] * 28 + [False] * 2, [False] * 22 + [True] * 8)
    assert (difference.only_first, difference.only_second) == (22, 2)
    assert difference.value == pytest.approx(20 / 30)
    assert difference.ci95[0] > 0.3
    assert difference.shown
    assert not paired_difference([True, True, True], [True, True, False]).shown


def test_paired_interval_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(0)
    truth, covered = 0.15, 0
    for _ in range(600):
        kind = rng.choice(4, size=40, p=[0.4, 0.25, 0.10, 0.25])  # both, only first, only second, neither
        difference = paired_difference((kind <= 1).tolist(), ((kind == 0) | (kind == 2)).tolist())
        covered += difference.ci95[0] <= truth <= difference.ci95[1]
    assert 0.92 < covered / 600 < 0.99


def test_ratio_interval_covers_the_truth_about_95_times_of_100() -> None:
    draw, n, m = np.random.default_rng(0), 150, 60
    for first, second in ((0.9, 0.97), (0.3, 0.6)):
        held = 0
        for _ in range(300):
            low, high = ratio95((int(draw.binomial(n, first)), n), (int(draw.binomial(m, second)), m))
            held += low <= first / second <= high
        assert held / 300 >= 0.92


def test_ratio_interval_is_wider_the_less_is_known_of_either_rate() -> None:
    low, high = ratio95((90, 100), (95, 100))
    assert low < 0.9 / 0.95 < high
    assert ratio95((900, 1000), (95, 100))[0] > low > ratio95((90, 100), (19, 20))[0] > ratio95((9, 10), (19, 20))[0]
    assert ratio95((90, 100), (19, 20))[1] > high
    assert ratio95((0, 10), (1, 30))[0] == 0.0
    with pytest.raises(ValueError, match="no ratio over 0 successes of 5"):
        ratio95((1, 5), (0, 5))


def test_outcomes_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([True], [True, False])


def test_mean_interval_needs_two_values() -> None:
    assert mean95([3.0]) == (3.0, None)
    mean, interval = mean95([1.0, 2.0, 3.0])
    assert mean == 2
    assert interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    with pytest.raises(ValueError, match="at least one"):
        mean95([])


def test_percentiles_of_no_decisions_are_not_numbers() -> None:
    assert percentiles(range(1, 102)).p50 == 51
    assert isnan(percentiles([]).p99)


def test_holm_multiplies_the_smallest_most_and_never_falls_below_it() -> None:
    # Holm 1979, by hand: 3 * 0.01, 2 * 0.02, then 0.03 may not be below what came before
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_p_value_and_its_bonferroni_bound(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p) + 1e-12
