"""A conformance checker for frozen policies, in the manner of gymnasium's check_env."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.policies.protocol import FrozenPolicy
from vlamem.testing.errors import require

TOLERANCE = 1e-4
"""Largest difference between a row in a batch and the same row alone: matrix kernels differ by batch size."""


def check_policy(policy: FrozenPolicy, observation: Observation, reads_noise: bool = True) -> None:
    """Checks `policy` on a batch of at least two observations; raises ConformanceError for the first broken promise.

    Shapes are those of the spec; keys have unit length; encode and sample are deterministic and change no argument;
    a batch of rows equals single runs; rows of weight 0 are what the bare policy gives, bit for bit, whatever
    else is proposed and to whichever other rows. `reads_noise` is False for policies that regress a chunk, such as ACT.
    """
    spec, rows = policy.spec, len(observation.instruction)
    require(rows >= 2, f"the observation has {rows} rows: check with two or more")
    size = (rows, spec.horizon, spec.action.size)
    noise = stream(0, "check_policy").standard_normal(size).astype(np.float32)
    kept = noise.copy()
    encoding = policy.encode(observation)
    _check_encoding(policy, encoding, rows)
    bare = policy.sample(encoding, noise)
    require(bare.shape == size, f"sample gives {bare.shape}, the spec says {size}")
    require(bool(np.isfinite(bare).all()), "sample gives values that are not finite")
    require(np.array_equal(noise, kept), "sample changes the noise that it was given")
    _check_determinism(policy, observation, encoding, noise, bare, reads_noise)
    _check_rows_alone(policy, observation, encoding, noise, bare)
    _check_abstention(policy, encoding, noise, bare)


def _check_encoding(policy: FrozenPolicy, encoding: Encoding, rows: int) -> None:
    spec = policy.spec
    for name, array, width in (("z", encoding.z, spec.feature_size), ("key", encoding.key, spec.key_size)):
        require(array.shape == (rows, width), f"{name} is {array.shape}, the spec says {(rows, width)}")
        require(bool(np.isfinite(array).all()), f"{name} has values that are not finite")
    length = np.linalg.norm(encoding.key, axis=1)
    require(
        bool(np.allclose(length, 1, atol=1e-3)), f"keys have length {length.min():.4f} to {length.max():.4f}, not 1"
    )
    context = policy.context_of(["touch it", "touch it"])
    require(context.shape == (2, spec.context_size), f"context_of gives {context.shape} for two sentences")
    require(np.array_equal(context[0], context[1]), "context_of gives two vectors for one sentence")


def _check_determinism(
    policy: FrozenPolicy,
    observation: Observation,
    encoding: Encoding,
    noise: Float[NDArray[np.float32], "B H A"],
    bare: Float[NDArray[np.float32], "B H A"],
    reads_noise: bool,
) -> None:
    again = policy.encode(observation)
    require(np.array_equal(again.z, encoding.z), "encode gives another z the second time")
    require(np.array_equal(again.key, encoding.key), "encode gives another key the second time")
    require(np.array_equal(policy.sample(again, noise), bare), "sample gives another chunk the second time")
    other = policy.sample(encoding, -noise)
    if reads_noise:
        require(not np.array_equal(other, bare), "sample gives the same chunk for another noise")
    else:
        require(np.array_equal(other, bare), "sample gives another chunk for another noise")


def _check_rows_alone(
    policy: FrozenPolicy,
    observation: Observation,
    encoding: Encoding,
    noise: Float[NDArray[np.float32], "B H A"],
    bare: Float[NDArray[np.float32], "B H A"],
) -> None:
    for row in range(len(noise)):
        one = slice(row, row + 1)
        alone = policy.encode(
            Observation(
                {name: images[one] for name, images in observation.images.items()},
                observation.proprioception[one],
                observation.instruction[one],
            )
        )
        chunk = policy.sample(alone, noise[one])
        for name, single, batched in (
            ("z", alone.z, encoding.z[one]),
            ("key", alone.key, encoding.key[one]),
            ("chunk", chunk, bare[one]),
        ):
            gap = float(np.abs(single - batched).max())
            require(gap <= TOLERANCE, f"{name} of row {row} in a batch differs from the row alone by {gap:.2e}")


def _check_abstention(
    policy: FrozenPolicy,
    encoding: Encoding,
    noise: Float[NDArray[np.float32], "B H A"],
    bare: Float[NDArray[np.float32], "B H A"],
) -> None:
    rows, rng = len(noise), stream(0, "check_policy", "proposal")
    chunk = rng.uniform(-1, 1, noise.shape).astype(np.float32)
    context = rng.standard_normal((rows, policy.spec.context_size)).astype(np.float32)
    no = np.zeros(rows, np.float32)
    for name, proposal in {
        "a chunk and a context": Proposal(chunk, no, context, no),
        "nothing": Proposal(None, no, None, no),
    }.items():
        abstained = policy.sample(encoding, noise, proposal)
        require(np.array_equal(abstained, bare), f"a proposal of {name} with weight 0 changes the chunk")
    trusted = np.arange(rows) % 2 == 1
    weight = trusted.astype(np.float32)
    mixed = policy.sample(encoding, noise, Proposal(chunk, weight, context, weight))
    require(np.array_equal(mixed[~trusted], bare[~trusted]), "a proposal to one row changes a row of weight 0")
    require(not np.array_equal(mixed[trusted], bare[trusted]), "a proposal of weight 1 changes nothing")
    part = [rows - 1, 0]
    of_part = policy.sample(encoding.rows(part), noise[part])
    gap = float(np.abs(of_part - bare[part]).max())
    require(gap <= TOLERANCE, f"the part of an encoding for some rows gives other chunks, off by {gap:.2e}")
