"""Options that are written TASK=FACTOR."""

from collections.abc import Iterable


def factors(option: str, entries: Iterable[str]) -> dict[str, float]:
    """The factor of each task. Raises ValueError for an entry of another form, one twice, and factors below 0."""
    found: dict[str, float] = {}
    for entry in entries:
        name, _, number = entry.partition("=")
        try:
            factor = float(number)
        except ValueError as error:
            raise ValueError(f"{option} {entry}: expected TASK=FACTOR, e.g. touch=2") from error
        if not 0 <= factor < float("inf"):
            raise ValueError(f"{option} {entry}: expected a factor of 0 or more")
        if name in found:
            raise ValueError(f"{option} {entry}: the task has a factor already, {found[name]:g}")
        found[name] = factor
    return found
