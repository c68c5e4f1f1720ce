"""Tensors on disk are what was given, whatever their layout in memory."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from vlamem.core.tensors import write_tensors

PLAIN = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "array",
    [
        PLAIN.T,
        PLAIN.transpose(1, 0, 2),
        np.asfortranarray(PLAIN),
        PLAIN[:, ::2],
        PLAIN[::-1],
        np.broadcast_to(np.float32(3), (2, 2)),
        np.array(7, np.int64),
        np.float32(0.5),
        np.zeros((0, 3)),
    ],
    ids=["transposed", "axes moved", "Fortran", "strided", "reversed", "broadcast", "0-d", "scalar", "empty"],
)
def test_an_array_reads_back_as_it_was_written(tmp_path, array):
    write_tensors(tmp_path / "a.safetensors", {"x": array}, {"by": "test"})
    found = load_file(tmp_path / "a.safetensors")["x"]
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
