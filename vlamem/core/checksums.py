"""A checksum in each JSON record, so that a record that a medium has changed is never taken for another."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

_KEY = "crc"


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """`body` with the checksum of its JSON."""
    return dict(body) | {_KEY: _checksum(body)}


def unsealed(body: Any) -> dict[str, Any]:
    """`body` without its checksum; one without a checksum, of an older version, as it is.

    Raises ValueError for what is no map, or has another checksum than its own.
    """
    if not isinstance(body, dict):
        raise ValueError(f"it is a {type(body).__name__}, expected a map")
    rest = {key: value for key, value in body.items() if key != _KEY}
    if _KEY in body and body[_KEY] != _checksum(rest):
        raise ValueError(
            f"its checksum is {_checksum(rest)}, {str(body[_KEY])[:20]} was written: the medium has changed it"
        )
    return rest


def _checksum(body: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True).encode()):08x}"
