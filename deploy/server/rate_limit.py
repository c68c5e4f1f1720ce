"""A bound on how fast the messages of one connection are read."""


class RateLimit:
    """A token bucket: how long the reader of one connection has to wait before its next message."""

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        self._per_s, self._burst = per_s, float(burst)
        self._left, self._at = float(burst), now

    def take(self, now: float) -> float:
        """Takes one message; gives the seconds to wait, 0 while the rate is kept."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) - 1
        self._at = now
        return max(0.0, -self._left / self._per_s)
