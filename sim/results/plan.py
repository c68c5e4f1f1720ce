"""How many pairs of episodes a comparison needs, planned before they are played."""

from math import ceil, sqrt
from statistics import NormalDist

import numpy as np

__all__ = ["MOST_PAIRS", "discordant_share", "pairs_needed", "power_of"]

MOST_PAIRS = 20_000
"""More are not planned."""
_ALPHA = 0.05
_IN_A_ROW = 10
"""The power of an exact test goes up and down with n; so many n one after the other are to have it."""


def discordant_share(success: float, difference: float) -> float:
    """Share of pairs in which one arm alone succeeds, where both succeed independently of each other.

    `success` is the rate of the reference, 0 to 1, and `difference` what the other arm has more. Episodes from the same
    initial states agree more often than that, so that it asks for too many pairs rather than too few.
    """
    other = success + difference
    if not (0 <= success <= 1 and 0 <= other <= 1):
        raise ValueError(
            f"a rate of {100 * success:.3g} % cannot change by {100 * difference:+g} points: rates lie from 0 to 100 %"
        )
    return success * (1 - other) + other * (1 - success)


def power_of(n: int, difference: float, discordant: float) -> float:
    """Chance that the exact McNemar test over `n` pairs has p below 0.05, 0 to 1.

    `discordant` is the share of pairs in which one arm alone succeeds, `difference` the difference of the two rates.
    """
    from scipy import stats

    first = (discordant + difference) / 2
    counts = np.arange(n + 1)
    # of m discordant pairs the test is passed by at most `few`, or at least m - few, of one arm
    few = stats.binom.ppf(_ALPHA / 2, counts, 0.5)
    few = np.where(stats.binom.cdf(few, counts, 0.5) > _ALPHA / 2, few - 1, few)
    share = first / discordant
    passes = stats.binom.cdf(few, counts, share) + stats.binom.sf(counts - few - 1, counts, share)
    return float((stats.binom.pmf(counts, n, discordant) * np.where(few < 0, 0.0, passes)).sum())


def pairs_needed(difference: float, discordant: float, power: float = 0.8) -> int:
    """Pairs with which a difference of two rates is seen with this power, by the exact McNemar test at 0.05.

    Raises ValueError for a difference of 0 or one larger than the share of discordant pairs, a power outside 0.05 to
    0.99, and for more than MOST_PAIRS.
    """
    delta = abs(difference)
    if not 0 < delta <= discordant <= 1:
        raise ValueError(
            f"a difference of {100 * difference:g} points with {100 * discordant:g} % of pairs in which one run alone "
            "succeeds: expected one above 0 and not above that share"
        )
    if not _ALPHA < power <= 0.99:
        raise ValueError(f"power is {power:g}: expected above {_ALPHA:g} and at most 0.99")
    inverse = NormalDist().inv_cdf
    asked = inverse(1 - _ALPHA / 2) * sqrt(discordant) + inverse(power) * sqrt(max(0.0, discordant - delta**2))
    n = max(5, ceil(0.7 * (asked / delta) ** 2))  # Connor (1987), where a search by the exact test begins
    reached = 0
    while reached < _IN_A_ROW:
        if n > MOST_PAIRS:
            raise ValueError(f"more than {MOST_PAIRS} pairs would be needed: expect a larger difference")
        enough = power_of(n, delta, discordant) >= power
        reached = reached + 1 if enough else 0
        n += 1 if enough or n < 2000 else n // 200
    return n - _IN_A_ROW
