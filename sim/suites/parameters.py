"""What a task is made with, from the words of a command line, and what an episode is begun with."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

__all__ = ["reset_options", "task_parameters"]


def task_parameters(entries: Sequence[str]) -> dict[str, Any]:
    """Keywords of a task from entries name=value. Raises ValueError for one without name or value."""
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ValueError(f"task parameter '{entry}' is not name=value: write e.g. --parameters delay=40")
        found[name] = yaml.safe_load(value)
    return found


def reset_options(options: Mapping[str, Any] | None) -> tuple[int | None, str, str]:
    """Episode (None where it is not named), split and wording that an episode is begun with.

    Raises ValueError for an option that no suite knows.
    """
    given = dict(options or {})
    episode, split, wording = given.pop("episode", None), given.pop("split", "test"), given.pop("wording", "training")
    if given:
        raise ValueError(f"unknown reset option {next(iter(given))!r}: known are episode, split, wording")
    return None if episode is None else int(episode), split, wording
