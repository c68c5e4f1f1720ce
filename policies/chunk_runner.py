"""Executes a frozen policy over several environments: action queues, re-planning, and per-row reset."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.observation import Observation
from vlamem.policies.memory_policy import Decision, MemoryPolicy, Tick
from vlamem.policies.protocol import FrozenPolicy


class ChunkRunner:
    """Action queues of B environments, filled by a frozen policy and its memories.

    Each control step: `observe`, where the policy has a memory that ticks, takes every row's observation; `due` says
    which rows need a plan, `plan` gives them their next actions, `pop` takes one action a row. Every row draws its
    noise from a stream of its own, so what a row does depends on neither the other rows nor the episodes before.
    """

    def __init__(self, policy: FrozenPolicy | MemoryPolicy, rows: int, execute: int) -> None:
        """`execute` actions of each chunk are carried out before the next plan.

        Raises ValueError unless that is 1..H, and when a MemoryPolicy has another number of rows.
        """
        if not 1 <= execute <= policy.spec.horizon:
            raise ValueError(
                f"execute {execute} is not possible with policy '{policy.spec.name}': its chunks have "
                f"{policy.spec.horizon} steps, choose 1 to {policy.spec.horizon}"
            )
        self.policy = policy if isinstance(policy, MemoryPolicy) else MemoryPolicy(policy, rows=rows)
        if self.policy.rows != rows:
            raise ValueError(f"the memory policy has {self.policy.rows} rows and the runner {rows}: make them equal")
        self._execute = execute
        self._queues: list[deque[np.ndarray]] = [deque() for _ in range(rows)]
        self._noise: list[np.random.Generator | None] = [None] * rows
        action = policy.spec.action
        self._low, self._high = np.array(action.low, np.float32), np.array(action.high, np.float32)

    def reset(self, mask: Bool[np.ndarray, "B"], noise: Sequence[np.random.Generator | None]) -> None:
        """Empties queue and memory of the masked rows and gives them the noise stream of their new episode."""
        self.policy.reset(mask)  # with queue and noise: whatever is left over would reach into the next episode
        for row in np.flatnonzero(mask):
            self._queues[row].clear()
            self._noise[row] = noise[row]

    def observe(self, obs: Observation, rows: Int[np.ndarray, "R"] | None = None) -> Tick:
        """One control step of the memories of `rows` (all, when None).

        With `replan_on_write` what is left of the chunk of a row that was written is dropped, so that the row is due.
        """
        tick = self.policy.observe(obs, rows)
        if self.policy.replan_on_write:
            self.drop(tick.rows[tick.wrote])
        return tick

    def drop(self, rows: Int[np.ndarray, "R"]) -> None:
        """What is left of the chunks of `rows` is dropped, since another acted meanwhile: these rows are due."""
        for row in rows:
            self._queues[row].clear()

    def due(self, rows: Int[np.ndarray, "R"] | None = None) -> Int[np.ndarray, "S"]:
        """Those of `rows` (of all, when None) whose queue is empty: these need an observation with images now."""
        chosen = range(len(self._queues)) if rows is None else rows
        return np.array([row for row in chosen if not self._queues[row]], dtype=np.int64)

    def plan(self, rows: Int[np.ndarray, "R"], seen: Observation | Tick) -> Decision:
        """Samples for `rows`; an observation has one row for each of them, in this order, a tick at least these rows.

        Gives how the chunks were made, these within the bounds of the action spec. A bare observation is a control step
        of its own: only where no memory ticks. Raises ValueError for a row that was never reset, or that the tick has
        not seen, and for a bare observation without those before it where the policy reads several.
        """
        if isinstance(seen, Observation) and self.policy.history > 1 and seen.history is None:
            raise ValueError(
                f"policy '{self.policy.spec.name}' reads {self.policy.history} observations at once: give 'observe' "
                "every control step and 'plan' the tick of the last, or an observation with all of them"
            )
        tick = seen.of(rows) if isinstance(seen, Tick) else self.policy.observe(seen, rows)
        spec = self.policy.spec
        draws = []  # each row from its own stream, so that a batch equals single runs whichever rows are due together
        for row in rows:
            generator = self._noise[row]
            if generator is None:
                raise ValueError(f"row {row} has no noise stream: reset it before its first plan")
            draws.append(generator.standard_normal((spec.horizon, spec.action.size), dtype=np.float32))
        decision = self.policy.decide(tick, np.stack(draws))
        # samplers and proposals are not bound to the action space
        chunks = np.clip(decision.chunks, self._low, self._high)
        decision = replace(decision, chunks=chunks, clipped=np.abs(decision.chunks - chunks).max(axis=-1))
        for row, chunk in zip(rows, decision.chunks, strict=True):
            # actions further on were predicted from an observation that is old by then
            self._queues[row].extend(chunk[: self._execute])
        return decision

    def pop(self, rows: Int[np.ndarray, "R"] | None = None) -> Float[np.ndarray, "R A"]:
        """The next action of each of `rows` (all, when None), in [low, high] of the action spec.

        Raises IndexError while one of them is due.
        """
        chosen = range(len(self._queues)) if rows is None else rows
        return np.stack([self._queues[row].popleft() for row in chosen])
