"""Oracles: memories that are given the answer by the simulator, as upper bounds.

`oracle` proposes the residual from the instruction to the oracle instruction, at every tick;
`first-observation` what was so when the cue ended, as one who saw only that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.memory.protocol import StepOut
from vlamem.memory.registry import MemoryKind, MemoryRequest, PolicyView, register
from vlamem.memory.runner import MemoryRunner, MemorySpec, State
from vlamem.sim.rollout.hooks import EpisodeHooks, HookContext
from vlamem.sim.suites.protocol import SuiteEnv

if TYPE_CHECKING:
    from vlamem.sim.rollout.row import Row

ORACLES = ("oracle", "first-observation")


@runtime_checkable
class Privileged(Protocol):
    """A memory that looks into the simulator."""

    def look(self, env: SuiteEnv, row: int) -> None:
        """Takes what it needs from a row's environment; called before each tick."""
        ...


class OracleRunner:
    """A memory that knows the answer; see the module."""

    def __init__(self, name: str, policy: PolicyView, rows: int, follow: bool) -> None:
        """With `follow` the answer is that of this moment, without it that of the moment at which the cue ended."""
        self._policy, self._follow = policy, follow
        self.spec = MemorySpec(name, policy.spec.feature_size, policy.spec.context_size)
        self._residual: list[Float[np.ndarray, C] | None] = [None] * rows

    def look(self, env: SuiteEnv, row: int) -> None:
        """Takes the answer of this moment from a row's environment."""
        cue = env.cue()
        known = cue is not None and cue.known
        if not self._follow and (self._residual[row] is not None or not known):
            return
        if cue is None or cue.answer is None:
            self._residual[row] = None
            return
        now, then = self._policy.context_of([env.instruction, cue.answer])
        self._residual[row] = np.asarray(then - now, np.float32)

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Forgets the answer in the masked rows."""
        for row in np.flatnonzero(mask):
            self._residual[row] = None

    def step(self, features: Float[np.ndarray, "R D"], rows: Int[np.ndarray, "R"]) -> StepOut:
        """The residual of each row; it writes nothing."""
        nothing = np.zeros(len(rows), np.float32)
        known = np.array([self._residual[row] is not None for row in rows])
        size = self.spec.context_size
        context = np.stack([np.zeros(size, np.float32) if (r := self._residual[row]) is None else r for row in rows])
        no = np.zeros(len(rows), bool)
        return StepOut(known.astype(np.float32), None, context, None, no, nothing, nothing, no, nothing)

    def propose(
        self, out: StepOut | None, observation: Observation, encoding: Encoding, lowest_start: float
    ) -> Proposal:
        """The answer, whole, where it is known. Raises ValueError without a step."""
        if out is None:
            raise ValueError("an oracle looks at every control step: call observe before plan")
        return Proposal.of_context(np.asarray(out.context), np.asarray(out.confidence))

    def state(self, row: int) -> State:
        """No state: what it knows lies in the simulator."""
        return {}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError for any state."""
        if state:
            raise ValueError("an oracle has no state to restore")


class OracleLook(EpisodeHooks):
    """Lets privileged memories look into the simulator before each tick."""

    in_rehearsal = True

    def __init__(self, context: HookContext) -> None:
        memories = () if context.policy is None else context.policy.memories
        self._privileged = [memory for memory in memories if isinstance(memory, Privileged)]

    def before_tick(self, row: "Row") -> None:
        """Each of them looks at the row's environment."""
        for memory in self._privileged:
            memory.look(row.env, row.index)


@dataclass(frozen=True)
class OracleOptions:
    """An oracle has no options."""


def _load(request: MemoryRequest) -> MemoryRunner:
    kind = request.name.kind
    return OracleRunner(kind, request.policy, request.rows, follow=kind == "oracle")


ORACLE = MemoryKind(_load, OracleOptions, "none")
for _name in ORACLES:
    register(_name, f"{__name__}:ORACLE")
