"""A checksum in each JSON record, so that a record that a medium has changed is never taken for another."""

import json
import re
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


def unsealed_line(line: bytes) -> dict[str, Any]:
    """What a line of JSON says, without its checksum; see `unsealed`.

    A line that lies as `json.dumps(sealed(body), sort_keys=True)` has written it is checked as text: to make its JSON
    anew takes three times as long as to read it. Raises ValueError for what is no JSON.
    """
    text = line.rstrip(b" \t\n\r")  # what JSON takes for white space
    found = _SEALED.search(text)
    if found is not None:
        rest = text[: found.start()] + text[found.end() :]
        if zlib.crc32(rest) == int(found[1], 16):
            body = json.loads(rest.decode())
            if isinstance(body, dict):
                return body
    return unsealed(json.loads(text))


_SEALED = re.compile(rb'"crc": "([0-9a-f]{8})", ')
"""The checksum of a line where it is not its last entry."""


def _checksum(body: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True).encode()):08x}"
