"""A gate with drawn weights, for the bench of a policy that has no trained one: it writes and knows nothing."""

from pathlib import Path

import jax
import numpy as np

from vlamem.core.seeding import integer_seed
from vlamem.memory.designs.aura.config import AuraConfig, HeadConfig
from vlamem.memory.designs.aura.step import AuraMemory
from vlamem.memory.protocol import flatten
from vlamem.memory.weights import Header, identity, save_weights
from vlamem.policies.registry import find_policy, load_policy


def untrained_gate(policy: str, path: Path, seed: int) -> Path:
    """Writes a gate for a policy; serve it with abstain_below=1, so that it never proposes."""
    source = find_policy(policy)
    frozen = load_policy(source)
    config = AuraConfig(frozen.spec.feature_size, HeadConfig(context=frozen.spec.context_size))
    params = AuraMemory(config).init_params(jax.random.key(integer_seed(seed, "untrained gate")))
    arrays = {name: np.asarray(array) for name, array in flatten(params).items()}
    header = Header(config, identity(frozen.spec, source.sha256), "drawn, not trained", {})
    save_weights(path, header, {n: a.reshape(1) if a.ndim == 0 else a for n, a in arrays.items()})
    return path
