"""Checkpoints of a training: one safetensors file in its folder, written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlamem.core.tensors import TensorsError, read_tensors, write_tensors
from vlamem.memory.protocol import flatten

History = list[dict[str, float]]


class Checkpoint:
    """Where a training stands: arrays, updates done, seconds spent and what was noted on the way."""

    def __init__(self, folder: Path, marks: Mapping[str, Any]) -> None:
        """`marks`: everything that the training depends on; a run is continued under the same marks alone."""
        self._path, self._marks = folder / "checkpoint.safetensors", json.dumps(marks, sort_keys=True)

    def save(self, tree: Any, done: int, seconds: float, history: History) -> None:
        """Writes a checkpoint."""
        header = {"marks": self._marks, "done": str(done), "seconds": str(seconds), "history": json.dumps(history)}
        write_tensors(self._path, {name: np.asarray(x).copy() for name, x in flatten(tree).items()}, header)

    def restore(self, fresh: Any) -> tuple[int, float, History, Any]:
        """Updates done, seconds, history and arrays in the shape of `fresh`; those of a new run without a checkpoint.

        Raises ValueError when the folder holds a training under other marks, or a file that is no checkpoint.
        """
        if not self._path.exists():
            return 0, 0.0, [], fresh
        try:
            arrays, header = read_tensors(self._path)
        except TensorsError as error:
            raise ValueError(f"{self._path} is damaged ({error}): remove it to begin anew") from error
        if header.get("marks") != self._marks:
            raise ValueError(f"{self._path.parent} holds another training: remove it, or choose another --out")
        try:
            leaves = [jnp.asarray(arrays[name]).reshape(x.shape).astype(x.dtype) for name, x in flatten(fresh).items()]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self._path} is damaged ({error!r}): remove it to begin anew") from error
        tree = jax.tree.unflatten(jax.tree.structure(fresh), leaves)
        return int(header["done"]), float(header["seconds"]), json.loads(header["history"]), tree
