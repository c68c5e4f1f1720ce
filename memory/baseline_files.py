"""Baseline memories that speak to a policy, on disk: GRU, KV window and growing KV cache, trained like the gate."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

from vlamem.core.tensors import write_tensors
from vlamem.memory.designs.attention import kv_growing, kv_window
from vlamem.memory.designs.aura.config import HeadConfig
from vlamem.memory.designs.recurrent import GruMemory
from vlamem.memory.protocol import Memory, Params, flatten
from vlamem.memory.weights import TrainedFor, WeightsError

GRU_HIDDEN = 64
"""Entries of a GRU with about as many parameters as AURA-Mem; 4,224 bytes of state would take 5 million."""
KINDS = ("gru", "kv_window", "kv_growing")


def baseline(kind: str, feature_size: int, head: HeadConfig, horizon: int) -> Any:
    """A baseline memory of a kind; `horizon` is the most ticks that a growing cache will see. Raises ValueError."""
    if kind == "gru":
        return GruMemory(feature_size, head, GRU_HIDDEN)
    if kind == "kv_window":
        return kv_window(feature_size, head)
    if kind == "kv_growing":
        return kv_growing(feature_size, head, horizon)
    raise ValueError(f"baseline {kind!r} is unknown: choose one of {', '.join(KINDS)}")


def save_baseline(
    path: Path, kind: str, horizon: int, memory: Any, params: Params, trained_for: TrainedFor, command: str
) -> None:
    """Writes a baseline's parameters with what it takes to make it again."""
    said = {
        "kind": kind,
        "feature_size": memory.feature_size,
        "head": asdict(memory.head),
        "horizon": horizon,
        "trained_for": asdict(trained_for),
        "command": command,
    }
    arrays = {name: np.array(x) for name, x in flatten(params).items()}
    write_tensors(path, arrays, {"vlamem-baseline": json.dumps(said, sort_keys=True)})


def load_baseline(path: Path, used_with: TrainedFor) -> tuple[str, Memory, Params]:
    """Design, memory and parameters in a file. Raises WeightsError for another kind of file, or another policy."""
    with safe_open(path, framework="numpy") as file:
        said = (file.metadata() or {}).get("vlamem-baseline")
        if said is None:
            raise WeightsError(f"{path} is no baseline memory: train one with 'vlamem bench memory-panel'")
        body = json.loads(said)
        head = body["head"]
        head["chunk"] = None if head["chunk"] is None else tuple(head["chunk"])
        memory: Memory = baseline(body["kind"], body["feature_size"], HeadConfig(**head), body["horizon"])
        made_for = TrainedFor(**body["trained_for"])
        if made_for != used_with:
            raise WeightsError(
                f"{path} was trained for {made_for.policy!r} ({made_for.fingerprint}) but is used with "
                f"{used_with.policy!r} ({used_with.fingerprint}): train it again"
            )
        like = jax.eval_shape(memory.init_params, jax.random.key(0))
        leaves = [jnp.asarray(file.get_tensor(name)).reshape(x.shape) for name, x in flatten(like).items()]
    return body["kind"], memory, jax.tree.unflatten(jax.tree.structure(like), leaves)
