"""Steering any frozen sampler towards a proposed chunk, without touching it.

Flow time t runs from 1 (noise) to 0 (data), and the velocity is v = noise - data. A chunk of weight w enters at
t0 = 1 - w: x_t0 = (1 - t0) a_elite + t0 noise (Retrieve-then-Steer, arXiv 2605.10094), and the frozen field is
integrated from t0 to 0 in proportionally fewer steps. Below LOWEST no step is left and the proposal is the chunk: there
the field would add its own mistake to what is known to succeed. Weight 0 is the sampler as it was, bit for bit.

Three ways: `steer_flow` for policies with a velocity field, `steer_denoising` for DDPM and DDIM policies, `blend` for
policies without a sampler.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.proposal import Proposal

LOWEST = 0.2
"""Flow time below which a proposal is taken as it is."""

Velocity = Callable[[Float[np.ndarray, "B H A"], Float[np.ndarray, "B"]], Float[np.ndarray, "B H A"]]
"""(x, t of each row) -> v; of a frozen policy, for its current conditioning."""
Denoise = Callable[[Float[np.ndarray, "B H A"], int], Float[np.ndarray, "B H A"]]
"""(x, position in the schedule) -> x one step cleaner; of a frozen policy, for its current conditioning."""


def start_time(weight: Float[np.ndarray, "B"], lowest: float = LOWEST) -> Float[np.ndarray, "B"]:
    """t0 of each row: 1 - w, and 0 where that is below `lowest`.

    Raises ValueError for a weight or `lowest` outside 0 to 1.
    """
    share = np.asarray(weight, np.float32)
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"weight {weight!r}: expected values in 0..1")
    if not 0 <= lowest <= 1:
        raise ValueError(f"lowest start {lowest} is outside 0 to 1: it is a flow time")
    start = 1 - share
    return np.where(start < lowest - 1e-6, 0.0, start).astype(np.float32)


def enter(
    noise: Float[np.ndarray, "B H A"], chunk: Float[np.ndarray, "B H A"], start: Float[np.ndarray, "B"]
) -> Float[np.ndarray, "B H A"]:
    """x_t0 of each row; rows with t0 = 1 are their noise, untouched. Raises ValueError for shapes or NaN."""
    chunk = _checked(chunk, noise)
    t = start[:, None, None]
    return np.where(t < 1, (1 - t) * chunk + t * noise, noise).astype(np.float32)


def step_counts(start: Float[np.ndarray, "B"], steps: int) -> Int[np.ndarray, "B"]:
    """Integration steps of each row: its share of `steps`, rounded up, at least 1 above flow time 0."""
    due = np.ceil(np.asarray(start, np.float64) * steps - 1e-5)
    return np.where(start > 0, np.maximum(1, due), 0).astype(np.int64)


def steer_flow(
    velocity: Velocity,
    noise: Float[np.ndarray, "B H A"],
    steps: int,
    proposal: Proposal | None = None,
    lowest: float = LOWEST,
) -> Float[np.ndarray, "B H A"]:
    """Euler integration of a frozen velocity field from each row's t0 to 0.

    Rows need not take the same number of steps; one that is not due yet waits at its start. Raises ValueError for a
    proposal of another shape, or with NaN.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    x = np.asarray(noise, np.float32)
    start = np.ones(len(x), np.float32)
    if proposal is not None and proposal.chunk is not None:
        start = start_time(proposal.chunk_weight, lowest)
        x = enter(x, proposal.chunk, start)
    counts = step_counts(start, steps)
    spans = np.maximum(counts, 1)
    for left in range(int(counts.max(initial=0)), 0, -1):
        t = np.where(counts > 0, np.minimum(start * (left / spans), 1), 1).astype(np.float32)
        moved = x - (start / spans)[:, None, None].astype(np.float32) * velocity(x, t)
        x = np.where((left <= counts)[:, None, None], moved, x)
    return x


def steer_denoising(
    denoise: Denoise,
    noise: Float[np.ndarray, "B H A"],
    signal: Sequence[float],
    proposal: Proposal | None = None,
    lowest: float = LOWEST,
) -> Float[np.ndarray, "B H A"]:
    """The same for DDPM and DDIM: a proposal enters at the first position of the schedule that is due at its t0.

    Args:
        denoise: the frozen policy's step from position i to i + 1 of its schedule, with its own noise where it has any.
        noise: where unsteered rows begin, [B, H, A].
        signal: alpha-bar at each position, rising from nearly 0 (noise) to nearly 1 (data); as many as there are steps.
        proposal, lowest: as in `steer_flow`.

    At position i a proposal enters as sqrt(alpha-bar) a_elite + sqrt(1 - alpha-bar) noise, which is what a forward
    diffusion of it would be; below t0 = `lowest` it is the chunk. Raises ValueError as `steer_flow`, and for a
    schedule that does not rise within 0 to 1.
    """
    bars = np.asarray(signal, np.float64)
    if not len(bars) or bars.min() < 0 or bars.max() > 1 or (np.diff(bars) < 0).any():
        raise ValueError("the schedule's alpha-bar must rise from noise to data within 0 to 1: is it reversed?")
    x = np.asarray(noise, np.float32)
    first: np.ndarray = np.zeros(len(x), np.int64)  # the length of the schedule where the proposal is the chunk
    if proposal is not None and proposal.chunk is not None:
        start = start_time(proposal.chunk_weight, lowest)
        chunk = _checked(proposal.chunk, x)
        first = len(bars) - step_counts(start, len(bars))
        bar = np.append(bars, 1.0)[first][:, None, None]
        entered = np.sqrt(bar) * chunk + np.sqrt(1 - bar) * x
        x = np.where((start < 1)[:, None, None], entered, x).astype(np.float32)
    for position in range(int(first.min(initial=len(bars))), len(bars)):
        x = np.where((first <= position)[:, None, None], denoise(x, position), x)
    return x


def blend(chunk: Float[np.ndarray, "B H A"], proposal: Proposal | None) -> Float[np.ndarray, "B H A"]:
    """The proposal mixed into a finished chunk by its weight, for policies without a sampler (ACT).

    Raises ValueError for a proposal of another shape or with NaN.
    """
    if proposal is None or proposal.chunk is None:
        return chunk
    c = np.asarray(proposal.chunk_weight, np.float32)[:, None, None]
    return np.where(c > 0, (1 - c) * chunk + c * _checked(proposal.chunk, chunk), chunk).astype(np.float32)


def _checked(chunk: Float[np.ndarray, "B H A"], like: Float[np.ndarray, "B H A"]) -> Float[np.ndarray, "B H A"]:
    if chunk.shape != like.shape:
        raise ValueError(f"proposed chunk is {list(chunk.shape)}, expected {list(like.shape)}")
    if np.isnan(chunk).any():
        raise ValueError("proposed chunk has NaN entries: a memory that knows nothing proposes weight 0")
    return np.asarray(chunk, np.float32)
