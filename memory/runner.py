"""Memories of B rows as a policy uses them: ticked in one call, queried for a proposal when a chunk is planned."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.spec import PolicySpec
from vlamem.memory.step_out import StepOut
from vlamem.memory.weights import WeightsError

if TYPE_CHECKING:
    from vlamem.memory.success import EpisodeRecorder, Trace, Verdict

__all__ = [
    "HoldsFile",
    "InjectOptions",
    "Injection",
    "LearnsFromEpisodes",
    "MemoryRunner",
    "MemorySpec",
    "RecurrentRunner",
    "StatelessRunner",
    "StepRows",
    "check_fits",
]

Injection = Literal["context", "chunk", "both"]
INJECTIONS: tuple[Injection, ...] = get_args(Injection)
State = dict[str, np.ndarray]


@dataclass(frozen=True)
class MemorySpec:
    """What a memory reads, proposes and carries.

    Attributes:
        name: its kind, e.g. "aura" or "success".
        feature_size: of what `step` reads: D for z, D + C for z and the instruction's context; 0 for a memory that
            does not tick.
        context_size: C of the residual that it proposes, 0 for none.
        chunk_shape: (H, A) of the chunks that it proposes, or None.
        state_bytes: of one row's state, measured from its arrays.
        ticks: whether it is to see every control step.
        replan_on_write: whether a write cuts the running chunk short.
    """

    name: str
    feature_size: int = 0
    context_size: int = 0
    chunk_shape: tuple[int, int] | None = None
    state_bytes: int = 0
    ticks: bool = True
    replan_on_write: bool = False


@runtime_checkable
class MemoryRunner(Protocol):
    """A memory of B rows with its state; rows never share state, so that a batch equals single rows."""

    @property
    def spec(self) -> MemorySpec:
        """What it reads, proposes and carries."""
        ...

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Back to the empty state in the masked rows."""
        ...

    def step(self, features: Float[np.ndarray, "R D"], rows: Int[np.ndarray, "R"]) -> StepOut:
        """One control step of `rows`; NumPy arrays of R rows that later steps leave alone."""
        ...

    def propose(
        self, out: StepOut | None, observation: Observation, encoding: Encoding, lowest_start: float
    ) -> Proposal:
        """What it proposes for the next chunk of the rows of `encoding`; `out` is its own last step of these rows.

        `lowest_start` is the policy's: see `vlamem.policies.steering`.
        """
        ...

    def state(self, row: int) -> State:
        """A copy of a row's state by name; empty for a memory without one."""
        ...

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state of a row. Raises ValueError for arrays of other names or shapes."""
        ...


@runtime_checkable
class LearnsFromEpisodes(Protocol):
    """What a MemoryRunner has besides where it stores episodes when they have ended."""

    @property
    def recorder(self) -> "EpisodeRecorder":
        """A new recorder of what it wants to know of an episode."""
        ...

    def meaning(self, instruction: str) -> Float[np.ndarray, "C"]:
        """The policy's vector of a sentence."""
        ...

    def used(self, at: int) -> Int[np.ndarray, "U"]:
        """Ids of what the last proposal was made of, in its row `at`."""
        ...

    def verify(self, trace: "Trace", success: bool) -> "Verdict":
        """Its verifier's verdict on an ended episode, whose success in the environment is `success`."""
        ...

    def observe_episode(self, trace: "Trace", verdict: "Verdict") -> None:
        """Stores what the verdict allows, durably, and how the episode ended in which stored things were used.

        Raises OSError when it cannot be stored now.
        """
        ...

    def retract(self, run: str, kept: Collection[str]) -> None:
        """Takes back episodes whose identity begins with `run`, but for those that are to be `kept`."""
        ...

    @property
    def segments(self) -> int:
        """Segments of successes that it holds."""
        ...


@runtime_checkable
class HoldsFile(Protocol):
    """What a MemoryRunner has besides that keeps a file open."""

    def close(self) -> None:
        """Closes it."""
        ...


@dataclass(frozen=True)
class InjectOptions:
    """How what a recurrent memory proposes reaches the policy.

    Attributes:
        inject: "context" adds its residual to the policy's conditioning, "chunk" enters its chunk into the sampler,
            "both" does both.
        abstain_below: confidence under which a row is left to the policy as if there were no memory, 0 to 1.
        replan_on_write: whether a write cuts the running chunk short.

    Raises ValueError for an unknown injection or a confidence outside 0 to 1.
    """

    inject: Injection = "context"
    abstain_below: float = 0.5
    replan_on_write: bool = False

    def __post_init__(self) -> None:
        if self.inject not in INJECTIONS:
            raise ValueError(f"inject is {self.inject!r}: choose one of {', '.join(INJECTIONS)}")
        if not 0 <= self.abstain_below <= 1:
            raise ValueError(f"abstain_below {self.abstain_below} is outside 0 to 1: it is a confidence")

    def proposal(self, out: StepOut, lowest_start: float) -> Proposal:
        """What of a step reaches the policy.

        A residual that is trusted is added whole: a point between the contexts of two sentences is the context of
        none. A learned chunk is a sketch: its weight is cut so that the sampler has at least `lowest_start` left.
        """
        sure = np.where(out.confidence >= self.abstain_below, out.confidence, 0).astype(np.float32)
        none = np.zeros_like(sure)
        chunk = np.asarray(out.chunk) if self.inject != "context" and out.chunk is not None else None
        context = np.asarray(out.context) if self.inject != "chunk" and out.context is not None else None
        return Proposal(
            chunk,
            none if chunk is None else np.minimum(sure, np.float32(1 - lowest_start)),
            context,
            none if context is None else (sure > 0).astype(np.float32),
        )


@runtime_checkable
class StepRows(Protocol):
    """The recurrence of B rows, without what becomes of its answers."""

    feature_size: int
    context_size: int
    chunk_shape: tuple[int, int] | None

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Back to the empty state in the masked rows."""
        ...

    def step(self, features: Float[np.ndarray, "R D"], rows: Int[np.ndarray, "R"]) -> StepOut:
        """One control step of `rows`."""
        ...

    def state(self, row: int) -> State:
        """A copy of a row's state by name."""
        ...

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state of a row."""
        ...


class RecurrentRunner:
    """A recurrent memory as a policy uses it: its recurrence, and how its answers are injected."""

    def __init__(self, name: str, recurrence: StepRows, options: InjectOptions | None = None) -> None:
        """Raises ValueError when the memory was not trained for the injection that is asked for."""
        self.options, self._recurrence = options or InjectOptions(), recurrence
        _check_proposes(recurrence, self.options.inject)
        self.spec = MemorySpec(
            name,
            recurrence.feature_size,
            recurrence.context_size,
            recurrence.chunk_shape,
            # measured, not computed from the sizes of the design: results report it
            sum(x.nbytes for x in recurrence.state(0).values()),
            replan_on_write=self.options.replan_on_write,
        )

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Back to the empty state in the masked rows."""
        self._recurrence.reset(mask)

    def step(self, features: Float[np.ndarray, "R D"], rows: Int[np.ndarray, "R"]) -> StepOut:
        """One control step of `rows`."""
        return self._recurrence.step(features, rows)

    def propose(
        self, out: StepOut | None, observation: Observation, encoding: Encoding, lowest_start: float
    ) -> Proposal:
        """What of the last step reaches the policy. Raises ValueError without one: it ticks at every control step."""
        if out is None:
            raise ValueError(f"memory '{self.spec.name}' was not ticked before this plan: call observe at every step")
        return self.options.proposal(out, lowest_start)

    def state(self, row: int) -> State:
        """A copy of a row's state by name."""
        return self._recurrence.state(row)

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state of a row. Raises ValueError for arrays of other names or shapes."""
        mine = self._recurrence.state(row)
        shapes, given = ({k: v.shape for k, v in s.items()} for s in (mine, state))
        if shapes != given:
            raise ValueError(f"a state of {given} does not fit a memory of {shapes}: it was saved by another memory")
        self._recurrence.restore(row, state)


class StatelessRunner:
    """What a memory has that carries nothing within an episode: base of memories queried at re-plans alone."""

    spec: MemorySpec

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Nothing to clear."""

    def step(self, features: Float[np.ndarray, "R D"], rows: Int[np.ndarray, "R"]) -> StepOut:
        """Raises ValueError: it does not tick."""
        raise ValueError(f"memory '{self.spec.name}' does not tick: ask it for a proposal when a chunk is planned")

    def state(self, row: int) -> State:
        """No state."""
        return {}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError for anything but no state."""
        if state:
            raise ValueError(f"memory '{self.spec.name}' carries no state within an episode: got {sorted(state)}")


class JaxRows:
    """B rows of a memory of vlamem.memory.protocol, stepped in one jitted call for the rows that are asked."""

    def __init__(self, memory: Any, params: Any, rows: int) -> None:
        import jax

        self.feature_size, self.context_size = memory.feature_size, memory.head.context
        self.chunk_shape = memory.head.chunk
        self._params, self._tree = params, jax.tree
        self._step = _jitted(memory)
        self._empty = self._tree.map(np.asarray, memory.init(1))
        # one tree a row: which rows tick together changes as episodes end
        self._rows: list[Any] = [self._empty] * rows

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Back to the empty state in the masked rows."""
        for row in np.flatnonzero(mask):
            self._rows[row] = self._empty

    def step(self, features: Float[np.ndarray, "R D"], rows: Int[np.ndarray, "R"]) -> StepOut:
        """One control step of `rows`."""
        state = self._tree.map(lambda *x: np.concatenate(x), *[self._rows[row] for row in rows])
        nothing = np.zeros(len(rows), bool)  # `reset` has emptied rows already: the step resets none
        after, out = self._step(self._params, state, features.astype(np.float32), nothing)
        after, on_host = self._tree.map(np.asarray, (after, out))
        for i, row in enumerate(rows):
            self._rows[row] = self._tree.map(lambda x, i=i: x[i : i + 1], after)
        found: StepOut = on_host
        return found

    def state(self, row: int) -> State:
        """A copy of a row's state by name."""
        from vlamem.memory.protocol import flatten

        return {name or "state": np.array(x[0]) for name, x in flatten(self._rows[row]).items()}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state of a row."""
        leaves = [np.array(state[name])[None] for name in self.state(row)]
        self._rows[row] = self._tree.unflatten(self._tree.structure(self._empty), leaves)


_STEPS: dict[Any, Any] = {}


def _jitted(memory: Any) -> Any:
    """The compiled step of a memory; memories are hashable so that each is compiled once."""
    if memory not in _STEPS:
        import jax

        _STEPS[memory] = jax.jit(memory.step)
    return _STEPS[memory]


def _check_proposes(recurrence: StepRows, inject: Injection) -> None:
    """Raises ValueError when a memory has not been trained for an injection."""
    missing = []
    if inject in ("context", "both") and not recurrence.context_size:
        missing.append("context")
    if inject in ("chunk", "both") and recurrence.chunk_shape is None:
        missing.append("chunk")
    if missing:
        raise ValueError(
            f"this memory proposes no {' and no '.join(missing)}, which inject={inject} needs: train one with "
            "'vlamem train-gate --targets both', or inject otherwise"
        )


def check_fits(memory: MemorySpec, policy: PolicySpec) -> None:
    """Raises WeightsError when a memory's sizes are not those of the policy that it is to be used with."""
    sizes = {policy.feature_size: "z", policy.feature_size + policy.context_size: "z and context"}
    if memory.ticks and memory.feature_size not in sizes:
        raise WeightsError(
            f"this memory reads features of size {memory.feature_size}, policy '{policy.name}' gives "
            f"{' or '.join(f'{size} ({name})' for size, name in sizes.items())}: retrain with 'vlamem train-gate'"
        )
    if memory.context_size not in (0, policy.context_size):
        raise WeightsError(
            f"this memory proposes contexts of size {memory.context_size}, policy '{policy.name}' is conditioned by "
            f"{policy.context_size}: retrain with 'vlamem train-gate'"
        )
    expected = (policy.horizon, policy.action.size)
    if memory.chunk_shape not in (None, expected):
        raise WeightsError(
            f"this memory proposes chunks of {memory.chunk_shape}, policy '{policy.name}' takes {expected}: retrain "
            "with 'vlamem train-gate'"
        )


def stack_rows(outs: Sequence[StepOut]) -> StepOut:
    """Single-row answers (no leading axis) as one of R rows, in arrays of their own."""
    fields: dict[str, Any] = {}
    for name, values in zip(StepOut._fields, zip(*outs, strict=True), strict=True):
        kind = bool if name in ("wrote", "refused") else np.float32
        fields[name] = None if values[0] is None else np.array(values, kind)
    return StepOut(**fields)
