"""The error of every conformance check."""


class ConformanceError(AssertionError):
    """What was checked breaks a promise of its protocol; the message names the promise and where it broke."""


def require(kept: bool, promise: str, where: str = "") -> None:
    """Raises ConformanceError when a promise was not kept."""
    if not kept:
        raise ConformanceError(f"{promise}{': ' if where else ''}{where}")
