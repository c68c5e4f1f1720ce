"""Options of a command line that lie where they may."""


def within(option: str, value: float, least: float, most: float | None = None) -> None:
    """Raises ValueError for a value below `least` or above `most`, and for nan, naming option, value and bound."""
    if not value >= least:
        raise ValueError(f"{option} {value:g}: expected {least:g} or more")
    if most is not None and value > most:
        raise ValueError(f"{option} {value:g}: expected at most {most:g}")
