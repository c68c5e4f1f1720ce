"""Random streams: each is derived from one seed by name, so that no stream depends on how many others exist."""

import hashlib

import numpy as np


def _entropy(seed: int, names: tuple[str | int, ...]) -> list[int]:
    if seed < 0:
        raise ValueError(f"seed {seed} is negative: a seed is an integer of 0 or more")
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    return [seed, *np.frombuffer(digest, dtype=np.uint32).tolist()]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The random stream called `names` under `seed`, e.g. `stream(0, "layout", "touch", 17)`.

    Raises ValueError for a negative seed.
    """
    return np.random.default_rng(np.random.SeedSequence(_entropy(seed, names)))


def integer_seed(seed: int, *names: str | int) -> int:
    """A 32-bit seed of the stream called `names`, for libraries that take an integer (JAX keys, torch generators)."""
    return int(np.random.SeedSequence(_entropy(seed, names)).generate_state(1)[0])
