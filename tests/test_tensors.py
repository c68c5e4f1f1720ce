"""core/tensors.py: a file that is not what was written is never read as another one."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vlamem.core.tensors import TensorsError, read_tensors, write_tensors

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int64([7]), "none": np.zeros((0, 4), np.float16)}


def test_arrays_and_metadata_come_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", ARRAYS, {"about": "this"})
    arrays, metadata = read_tensors(tmp_path / "x")
    assert metadata == {"about": "this"}
    assert {n: (x.dtype, x.shape, x.tobytes()) for n, x in arrays.items()} == {
        n: (x.dtype, x.shape, x.tobytes()) for n, x in ARRAYS.items()
    }


def test_every_flip_of_a_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_tensors(path, ARRAYS, {"about": "this"})
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            arrays, metadata = read_tensors(path)
        except TensorsError:
            continue
        assert metadata == {"about": "this"}, bit
        assert all(arrays[name].tobytes() == x.tobytes() for name, x in ARRAYS.items()), bit


def test_a_file_of_another_program_has_no_hash_and_is_read(tmp_path: Path) -> None:
    save_file({"a": ARRAYS["a"]}, tmp_path / "x")
    np.testing.assert_array_equal(read_tensors(tmp_path / "x")[0]["a"], ARRAYS["a"])


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"half")
    with pytest.raises(TensorsError, match="no whole safetensors file"):
        read_tensors(tmp_path / "x")


def test_what_is_written_twice_is_the_same_file(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.safetensors" for i in range(12)]
    for file in files:  # safetensors alone orders its metadata anew each time
        write_tensors(file, {"a": np.ones(3), "b": np.zeros(())}, {name: name for name in ("one", "two", "three")})
    assert len({file.read_bytes() for file in files}) == 1
