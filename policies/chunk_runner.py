"""Executes a frozen policy over several environments: action queues, re-planning, and per-row reset."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.policies.protocol import FrozenPolicy, Observation


class ChunkRunner:
    """Action queues of B environments, filled by a frozen policy.

    Each control step: `due` says which rows need a plan, `plan` gives them their next actions from an observation,
    `pop` takes one action a row. Every row draws its noise from a stream of its own, so what a row does depends on
    neither the other rows nor the episodes before. A memory, when there is one, ticks between `due` and `plan`.
    """

    def __init__(self, policy: FrozenPolicy, rows: int, execute: int) -> None:
        """`execute` actions of each chunk are carried out before the next plan. Raises ValueError unless 1..H."""
        if not 1 <= execute <= policy.spec.horizon:
            raise ValueError(
                f"execute {execute} is not possible with policy '{policy.spec.name}': its chunks have "
                f"{policy.spec.horizon} steps, choose 1 to {policy.spec.horizon}"
            )
        self._policy, self._execute = policy, execute
        self._queues: list[deque[np.ndarray]] = [deque() for _ in range(rows)]
        self._noise: list[np.random.Generator | None] = [None] * rows
        components = policy.spec.action.components
        self._low = np.concatenate([np.full(c.size, c.low, np.float32) for c in components])
        self._high = np.concatenate([np.full(c.size, c.high, np.float32) for c in components])

    def reset(self, mask: Bool[np.ndarray, "B"], noise: Sequence[np.random.Generator | None]) -> None:
        """Empties the queue of the masked rows and gives them the noise stream of their new episode."""
        for row in np.flatnonzero(mask):
            self._queues[row].clear()
            self._noise[row] = noise[row]

    def due(self) -> Int[np.ndarray, "R"]:
        """Indices of rows whose queue is empty: these need an observation with images now."""
        return np.array([row for row, queue in enumerate(self._queues) if not queue], dtype=np.int64)

    def plan(self, rows: Int[np.ndarray, "R"], obs: Observation) -> None:
        """Encodes and samples for `rows`; `obs` has one row for each of them, in this order.

        Raises ValueError for a row that was never reset.
        """
        spec = self._policy.spec
        draws = []
        for row in rows:
            generator = self._noise[row]
            if generator is None:
                raise ValueError(f"row {row} has no noise stream: reset it before its first plan")
            draws.append(generator.standard_normal((spec.horizon, spec.action.size), dtype=np.float32))
        chunks = self._policy.sample(self._policy.encode(obs), np.stack(draws))
        for row, chunk in zip(rows, np.clip(chunks, self._low, self._high), strict=True):
            self._queues[row].extend(chunk[: self._execute])

    def pop(self) -> Float[np.ndarray, "B A"]:
        """The next action of each row, in [low, high] of the action spec. Raises IndexError while a row is due."""
        return np.stack([queue.popleft() for queue in self._queues])
