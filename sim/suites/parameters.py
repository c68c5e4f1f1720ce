"""What a task is made with, from the words of a command line."""

from collections.abc import Sequence
from typing import Any

import yaml

__all__ = ["task_parameters"]


def task_parameters(entries: Sequence[str]) -> dict[str, Any]:
    """Keywords of a task from entries name=value. Raises ValueError for one without name or value."""
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ValueError(f"task parameter '{entry}' is not name=value: write e.g. --parameters delay=40")
        found[name] = yaml.safe_load(value)
    return found
