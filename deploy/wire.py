"""Messages as bytes: msgpack with arrays in openpi's form, read under limits and without pickle.

An array is the map {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}, a NumPy scalar
{b"__npgeneric__": True, b"data": value, b"dtype": ..}. Text keys of the same names, as other tools write them, are read
as well. What comes in is surveyed before anything is built from it: a message of many tiny parts costs its reader
no more than `WireLimits` says. Needs msgpack and NumPy alone, so that both ends of the wire share it.
"""

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

import msgpack
import numpy as np

_DTYPES = {
    order + kind: np.dtype(order + kind)
    for order in "|<>="
    for kind in ("b1", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8")
}
"""Types that may travel, as `numpy.dtype.str` writes them."""
_SPELLED = {dtype.name: dtype for name, dtype in _DTYPES.items() if name[0] in "|<"}
"""As `numpy.dtype.name` writes them, which other languages know: bytes in the order of most machines."""
_MARKS = ("__ndarray__", "__npgeneric__")


class WireError(ValueError):
    """Bytes that are no message, or one beyond the limits; the text says which limit and by how much."""


@dataclass(frozen=True)
class WireLimits:
    """What a reader takes.

    Attributes:
        bytes: of a whole message.
        nodes: values in it, containers and keys included.
        depth: containers inside each other.
        text: bytes of one string.
        dimensions: of one array.
    """

    bytes: int = 8 << 20
    nodes: int = 2048
    depth: int = 8
    text: int = 4096
    dimensions: int = 5


DEFAULT_LIMITS = WireLimits()


def pack(message: Any) -> bytes:
    """`message` as bytes: maps with text or bytes keys, lists, numbers, text, bytes, None and NumPy arrays.

    Raises WireError for an array that is not boolean, integer or floating, and for any other type.
    """
    try:
        packed: bytes = msgpack.packb(message, default=_plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"this message cannot be sent: {error}") from error
    return packed


def unpack(data: bytes | bytearray | memoryview, limits: WireLimits = DEFAULT_LIMITS) -> Any:
    """The message in `data`; arrays are read-only views of it.

    Raises WireError for anything that is not one whole message within `limits`.
    """
    raw = bytes(data)
    if len(raw) > limits.bytes:
        raise WireError(f"a message of {len(raw)} bytes is beyond the limit of {limits.bytes}")
    _survey(raw, limits)
    try:
        body = msgpack.unpackb(raw, raw=False, strict_map_key=True, max_ext_len=0, use_list=True)
    except Exception as error:  # msgpack raises a dozen types, some of them not its own
        raise WireError(f"not a msgpack message ({type(error).__name__}: {error})") from error
    return _revive(body, limits)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _check_dtype(value.dtype)
        flat = np.ascontiguousarray(value)
        return {b"__ndarray__": True, b"data": flat.tobytes(), b"dtype": flat.dtype.str, b"shape": list(value.shape)}
    if isinstance(value, np.generic):
        _check_dtype(value.dtype)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} has no form on the wire")


def _check_dtype(dtype: "np.dtype[Any]") -> None:
    if dtype.str not in _DTYPES:
        raise WireError(f"dtype {str(dtype)!r} is not allowed: expected booleans, integers or floats of 1 to 8 bytes")


def _survey(raw: bytes, limits: WireLimits) -> None:
    """Walks the headers without building anything; raises WireError at the first limit or at a type that is refused."""
    at, nodes, end = 0, 0, len(raw)
    open_: list[int] = [1]  # values still to come at each depth
    try:
        while open_:
            if open_[-1] == 0:
                open_.pop()
                continue
            open_[-1] -= 1
            nodes += 1
            if nodes > limits.nodes:
                raise WireError(f"a message of more than {limits.nodes} values")
            length, children = _header(raw, at, limits)
            at += length
            if at > end:
                raise WireError(f"cut short: {end} bytes where at least {at} were announced")
            if children:
                if len(open_) > limits.depth:
                    raise WireError(f"nested deeper than {limits.depth}")
                if children > limits.nodes:
                    raise WireError(f"a container of {children} values is beyond the limit of {limits.nodes}")
                open_.append(children)
    except (IndexError, struct.error) as error:
        raise WireError(f"cut short after {end} bytes") from error
    if at != end:
        raise WireError(f"{end - at} bytes after the message")


_FIXED = dict.fromkeys((0xC0, 0xC2, 0xC3), 1)  # nil, false, true
_FIXED |= {0xCA: 5, 0xCB: 9}  # float32, float64
_FIXED |= {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}  # integers
_COUNTED = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}  # bytes, text
_COUNTED |= {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}  # lists, maps


def _header(raw: bytes, at: int, limits: WireLimits) -> tuple[int, int]:
    """Bytes that the value at `at` takes without its children, and how many children follow."""
    tag = raw[at]
    if tag < 0x80 or tag >= 0xE0:
        return 1, 0
    if tag < 0x90:
        return 1, 2 * (tag & 0x0F)
    if tag < 0xA0:
        return 1, tag & 0x0F
    if tag < 0xC0:
        return 1 + (tag & 0x1F), 0
    if tag in _FIXED:
        return _FIXED[tag], 0
    if tag not in _COUNTED:
        raise WireError(f"type 0x{tag:02x} is not allowed: extensions and timestamps have no meaning here")
    form = _COUNTED[tag]
    (count,) = struct.unpack_from(form, raw, at + 1)
    head = 1 + struct.calcsize(form)
    if tag <= 0xC6:  # bytes
        return head + count, 0
    if tag <= 0xDB:  # text
        if count > limits.text:
            raise WireError(f"a string of {count} bytes is beyond the limit of {limits.text}")
        return head + count, 0
    return head, count * (2 if tag >= 0xDE else 1)


def _revive(value: Any, limits: WireLimits) -> Any:
    if isinstance(value, list):
        return [_revive(entry, limits) for entry in value]
    if not isinstance(value, dict):
        return value
    for mark in _MARKS:
        for form in (mark.encode(), mark):
            if form in value:
                fields = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in value.items()}
                return _array(fields, limits) if mark == "__ndarray__" else _scalar(fields)
    return {key: _revive(entry, limits) for key, entry in value.items()}


def _dtype(fields: dict[str, Any]) -> "np.dtype[Any]":
    name = fields.get("dtype")
    if isinstance(name, str) and name in _DTYPES:
        return _DTYPES[name]
    if isinstance(name, str) and name in _SPELLED:
        return _SPELLED[name]
    raise WireError(
        f"dtype {str(name)[:40]!r} is not allowed: expected booleans, integers or floats of 1 to 8 bytes as numpy "
        "spells them, '|u1' or 'uint8', '<f4' or 'float32'"
    )


def _array(fields: dict[str, Any], limits: WireLimits) -> np.ndarray[Any, Any]:
    dtype, shape, data = _dtype(fields), fields.get("shape"), fields.get("data")
    if not isinstance(data, bytes):
        raise WireError(f"an array's data is a {type(data).__name__}, expected bytes")
    if (
        not isinstance(shape, list)
        or len(shape) > limits.dimensions
        or not all(type(n) is int and 0 <= n <= limits.bytes for n in shape)
    ):
        raise WireError(f"an array of shape {shape!r}: expected at most {limits.dimensions} sizes of 0 or more")
    if prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array of shape {shape} and dtype {dtype.str!r} with {len(data)} bytes of data")
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(fields: dict[str, Any]) -> Any:
    data = fields.get("data")
    if not isinstance(data, bool | int | float):
        raise WireError(f"a scalar's data is a {type(data).__name__}, expected a number")
    dtype = _dtype(fields)
    try:
        with np.errstate(over="raise"):
            value = dtype.type(data)
    except (ArithmeticError, ValueError) as error:
        raise WireError(f"a scalar {data!r} does not fit its dtype {dtype.str!r}") from error
    if dtype.kind != "f" and value != data:
        raise WireError(f"a scalar {data!r} does not fit its dtype {dtype.str!r}")
    return value
