"""Bounds on the numbers in a message, from what control can do: both ends of the wire share them."""

import math

LONGEST_GAP_S = 10.0
"""Steps of an episode that may be missing in its record, and the longest action chunk, in time [s]."""
LONGEST_EPISODE_S = 24 * 3600.0
"""Control steps of an episode, in time [s]."""
MOST_EPISODES = 1 << 30
"""Number of an episode that a message may name."""


def longest_gap(control_hz: float) -> int:
    """Control steps that may be missing at this rate."""
    return math.ceil(LONGEST_GAP_S * control_hz)


def longest_episode(control_hz: float) -> int:
    """Control steps that an episode may have at this rate."""
    return math.ceil(LONGEST_EPISODE_S * control_hz)
