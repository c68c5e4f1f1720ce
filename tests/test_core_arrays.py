"""core/arrays.py: NumPy files whose every bit is guarded."""

import io
from pathlib import Path

import numpy as np
import pytest

from vlamem.core.arrays import ArrayFileError, load_array, save_array, write_array

TABLE = np.array([(1, [0.5, 2.0]), (4, [1.0, 3.0])], [("tick", np.int32), ("packed", np.float16, (2,))])


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1), TABLE])
@pytest.mark.parametrize("mapped", [False, True])
def test_what_was_saved_is_read_by_this_and_by_numpy(array: np.ndarray, mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.npy"
    save_array(path, array)
    for found in (load_array(path, mapped), np.load(path, mmap_mode="r" if mapped else None)):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_every_changed_bit_and_every_cut_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    save_array(path, np.arange(5, dtype=np.int16))
    whole, harmless = path.read_bytes(), 0
    changed = [whole[: at // 8] + bytes([whole[at // 8] ^ 1 << at % 8]) + whole[at // 8 + 1 :] for at in
               range(8 * len(whole))]  # fmt: skip
    for raw in (*changed, *(whole[:size] for size in range(len(whole)))):
        path.write_bytes(raw)
        try:
            found = load_array(path)
        except ArrayFileError:
            continue
        np.testing.assert_array_equal(found, np.arange(5))
        harmless += 1
    assert harmless <= 8 * 7 + 15  # the mark of the checksum, and a file without it


def test_a_file_of_an_older_version_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones(3))
    np.testing.assert_array_equal(load_array(path), np.ones(3))


@pytest.mark.parametrize("header", [b"{'descr': '<f8', ", b"{'shape': (-1,)}", b"((((", b"\xff\xfe"])
def test_a_header_that_makes_no_sense_is_one_error(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ArrayFileError, match=r"x\.npy cannot be read"):
        load_array(path)


def test_python_objects_are_not_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(io.BytesIO(), np.array([{}], object))
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ArrayFileError, match="allow_pickle"):
        load_array(path)
