"""policies/checkpoint.py: what a killed training finds in its folder."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from vlamem.memory.train.checkpoint import Checkpoint

MARKS = {"updates": 4, "start": "abc"}


class Moments(NamedTuple):
    first: Any
    count: Any


def tree(value: float) -> Any:
    """Weights and an optimizer's state of several types and shapes."""
    weights = {"W": jnp.full((2, 3), value), "bias": jnp.asarray(value)}
    return weights, (Moments(jnp.full(3, -value), jnp.asarray(int(value), jnp.int32)), ())


def values(found: Any) -> list[Any]:
    weights, (moments, _) = found
    return [*(np.asarray(x).tolist() for x in (weights["W"], weights["bias"], moments.first, moments.count))]


def test_what_was_saved_is_what_a_new_process_goes_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert Checkpoint(folder, MARKS).restore(tree(1))[:3] == (0, 0.0, [])
    assert not folder.exists()
    Checkpoint(folder, MARKS).save(tree(3), 2, 1.5, [{"update": 1, "error": 0.5}])
    done, seconds, history, found = Checkpoint(folder, dict(reversed(MARKS.items()))).restore(tree(0))
    assert (done, seconds, history) == (2, 1.5, [{"update": 1, "error": 0.5}])
    assert values(found) == values(tree(3))
    assert found[1][0].count.dtype == jnp.int32
    assert isinstance(found[1][0], Moments)


def test_a_kill_in_the_middle_of_writing_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, MARKS)
    checkpoint.save(tree(3), 2, 1.5, [])
    whole = (tmp_path / "checkpoint.safetensors").read_bytes()
    (tmp_path / ".checkpoint.safetensors.tmp").write_bytes(whole[: len(whole) // 2])
    assert checkpoint.restore(tree(0))[0] == 2
    checkpoint.save(tree(5), 3, 2.0, [])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert values(checkpoint.restore(tree(0))[3]) == values(tree(5))


def test_another_training_and_a_damaged_file_are_refused_and_named(tmp_path: Path) -> None:
    Checkpoint(tmp_path, MARKS).save(tree(3), 2, 1.5, [])
    with pytest.raises(ValueError, match="holds another training"):
        Checkpoint(tmp_path, MARKS | {"start": "abd"}).restore(tree(0))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged .* remove it"):
        Checkpoint(tmp_path, MARKS).restore(tree(0))
