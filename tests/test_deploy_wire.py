"""deploy/wire.py: what goes over the wire comes back, and nothing else is read."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlamem.deploy.wire import WireError, WireLimits, pack, unpack

KINDS = [np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64, np.bool_]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 1)])
def test_an_array_comes_back_as_it_was(kind: type, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(kind)
    back = unpack(pack({"x": array}))["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_an_array_of_another_memory_order_comes_back_as_it_was() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(unpack(pack(array)), array)


def test_scalars_and_plain_values_come_back() -> None:
    message = {"a": np.float32(0.5), "b": [1, "x", None, True, -3.5], b"c": b"\x00"}
    assert unpack(pack(message)) == message


def test_text_marks_are_read_too() -> None:
    form = {"__ndarray__": True, "data": b"\x01\x02", "dtype": "|u1", "shape": [2]}
    np.testing.assert_array_equal(unpack(msgpack.packb(form)), [1, 2])


def assert_plain(value: Any, most: int) -> None:
    """Only what the wire has a form for, and no array of more than `most` bytes."""
    if isinstance(value, dict):
        assert all(type(key) in (str, bytes) for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            assert_plain(entry, most)
    elif isinstance(value, np.ndarray):
        assert value.dtype.kind in "biuf"
        assert value.ndim <= WireLimits().dimensions
        assert value.nbytes <= most
        assert not value.flags.writeable
    else:
        assert value is None or isinstance(value, bool | int | float | str | bytes | np.bool_ | np.number)


def read_or_refused(data: bytes) -> bool | None:
    """Whether what is read of `data` is the same when it is sent again; None when a WireError refuses it."""
    try:
        message = unpack(data)
    except WireError:
        return None
    assert_plain(message, len(data))
    again = pack(message)  # equal bytes are equal messages: pack keeps types, dtypes and NaN apart
    return pack(unpack(again)) == again


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    assert read_or_refused(data) in (True, None)


MESSAGE = pack(
    {
        "images": {"agentview": np.zeros((4, 4, 3), np.uint8)},
        "state": np.ones(8, np.float32),
        "wrote": np.bool_(True),
        "step": [3, None, 0.5, np.float16(0.5)],
    }
)


@given(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_a_message_or_a_wire_error(at: int, byte: int) -> None:
    changed = MESSAGE[:at] + bytes([byte]) + MESSAGE[at + 1 :]
    assert read_or_refused(changed) in ((True,) if changed == MESSAGE else (True, None))


@given(st.integers(0, len(MESSAGE) - 1))
def test_a_message_that_is_cut_short_is_never_read(length: int) -> None:
    assert not read_or_refused(MESSAGE[:length])


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x00"


def form(**changed: object) -> bytes:
    fields = {b"__ndarray__": True, b"data": bytes(4), b"dtype": "<f4", b"shape": [1]}
    return msgpack.packb(fields | {k.encode(): v for k, v in changed.items()})


def scalar(data: object, dtype: str) -> bytes:
    return msgpack.packb({b"__npgeneric__": True, b"data": data, b"dtype": dtype})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (nested(9), "nested deeper than 8"),
        (nested(100_000), "nested deeper than 8"),
        (b"\xdd\xff\xff\xff\xff", "is beyond the limit"),
        (b"\xc6\xff\xff\xff\xff", "announced"),
        (b"\x9f" * 1000, "nested deeper"),
        (msgpack.packb([0] * 3000), "beyond the limit of 2048"),
        (msgpack.packb([[0] * 1500, [0] * 1500]), "more than 2048 values"),
        (msgpack.packb("x" * 5000), "a string of 5000 bytes"),
        (msgpack.packb(msgpack.ExtType(1, b"x")), "not allowed"),
        (msgpack.packb({1: 2}), "not a msgpack message"),
        (b"\x00\x00", "1 bytes after"),
        (b"", "cut short"),
        (b"\xa5ab", "cut short"),
        (b"\xa2\xff\xfe", "not a msgpack message"),
        (form(dtype="|O"), "not allowed"),
        (form(dtype="<c16"), "not allowed"),
        (form(dtype="f4,f4"), "not allowed"),
        (form(dtype="nonsense"), "not allowed"),
        (form(dtype=7), "not allowed"),
        (form(shape=[2]), "4 bytes of data"),
        (form(shape=[-1]), "sizes of 0 or more"),
        (form(shape=[1] * 6), "at most 5 sizes"),
        (form(shape=[True]), "sizes of 0 or more"),
        (form(data="text"), "expected bytes"),
        (scalar(300, "|u1"), "does not fit"),
        (scalar(1.5, "<i8"), "does not fit"),
        (scalar(2, "|b1"), "does not fit"),
        (scalar(1e300, "<f4"), "does not fit"),
        (scalar(float("nan"), "<i4"), "does not fit"),
        (scalar("x", "|u1"), "expected a number"),
    ],
)
def test_what_is_refused_is_named(data: bytes, expected: str) -> None:
    with pytest.raises(WireError, match=expected):
        unpack(data)


def test_a_message_beyond_its_size_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="beyond the limit of 10"):
        unpack(bytes(11), WireLimits(bytes=10))


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.zeros(1, complex), np.datetime64("now")])
def test_what_cannot_be_sent_is_refused(value: object) -> None:
    with pytest.raises(WireError):
        pack({"x": value})


@pytest.mark.parametrize("name", ["uint8", "int64", "float32", "bool", "float16"])
def test_a_dtype_is_read_under_its_long_name_too(name: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(name)
    marked = {"__ndarray__": True, "data": array.tobytes(), "dtype": name, "shape": [2, 3]}
    read = unpack(msgpack.packb({"x": marked}))["x"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_a_dtype_that_is_none_is_refused_with_one_that_is() -> None:
    for name in ("object", "complex64", "u1", "float", ">f", "datetime64[s]"):
        marked = {"__ndarray__": True, "data": b"0" * 8, "dtype": name, "shape": [1]}
        with pytest.raises(WireError, match=r"is not allowed: .* '\|u1' or 'uint8'"):
            unpack(msgpack.packb({"x": marked}))
