"""A gate with drawn weights, for the bench of a policy that has no trained one: it writes and knows nothing."""

from pathlib import Path

import jax

from vlamem.core.seeding import integer_seed
from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.registry import design
from vlamem.memory.protocol import named_arrays
from vlamem.memory.weights import Header, identity, save_weights
from vlamem.policies.registry import find_policy, load_policy, weights_hash


def untrained_gate(policy: str, path: Path, seed: int) -> Path:
    """Writes a gate for a policy; serve it with abstain_below=1, so that it never proposes."""
    source = find_policy(policy)
    frozen = load_policy(source)
    memory = design("aura").make(frozen.spec.feature_size, HeadConfig(context=frozen.spec.context_size))
    params = memory.init_params(jax.random.key(integer_seed(seed, "untrained gate")))
    header = Header.of(memory, identity(frozen.spec, weights_hash(frozen, source)), "drawn, not trained", {})
    save_weights(path, header, named_arrays(params))
    return path
