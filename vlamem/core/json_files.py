"""JSON that others wrote: whatever it is, one kind of error."""

import json
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value in a text. Raises ValueError for what is no JSON, also where it is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json_map(path: Path) -> dict[str, Any]:
    """The map in a file. Raises ValueError for a file without one, OSError for a file that cannot be read."""
    found = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, expected a map")
    return found
