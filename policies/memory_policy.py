"""A frozen policy and its memories: ticked at every control step, queried when a chunk is planned."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.memory.protocol import StepOut
from vlamem.memory.runner import MemoryRunner, check_fits
from vlamem.policies.frame_history import FrameHistory, Frames
from vlamem.policies.fuse import fuse
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.observation_keys import DictionaryReader
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import PolicyError, find_policy, load_policy

State = dict[str, np.ndarray]
_OLD = {
    "aura": "'aura' or 'aura:FILE'",
    "success": "'success:FILE'",
    "way": "'aura?inject=...'",
    "abstain_below": "'aura?abstain_below=...'",
    "replan_on_write": "'aura?replan_on_write=true'",
}
"""Arguments of version 0.1 and what is written now."""


class NotFiniteError(ValueError):
    """A policy or a memory gave something that is not finite; the message says what."""


def check_finite(what: str, values: np.ndarray) -> None:
    """Raises NotFiniteError naming the first entry of `values` that is not finite."""
    if not np.isfinite(values).all():
        at = np.argwhere(~np.isfinite(values))[0].tolist()
        raise NotFiniteError(
            f"{what} is {float(values[tuple(at)])} at {at} and not executed: look at the observation, at the weights "
            "and at the normalisation of the checkpoint"
        )


@dataclass(frozen=True)
class Tick:
    """What one control step left for a plan.

    Attributes:
        rows: which rows of the MemoryPolicy, [R].
        observation: of these rows, with those before it where the policy reads several.
        encoding: of the observation; None when no memory needed it, `plan` makes it then.
        outs: of each memory of the policy, in its order, what its step gave; None for one that does not tick.
        seconds: that the pass of all its rows took, by part: "encode" and "memory"; empty where nothing was done.
        single: whether the observation was a dictionary without an axis for the rows: `plan` gives [H, A] then.
    """

    rows: Int[np.ndarray, "R"]
    observation: Observation
    encoding: Encoding | None = None
    outs: tuple[StepOut | None, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    single: bool = False

    @property
    def wrote(self) -> Bool[np.ndarray, "R"]:
        """Whether any memory was written."""
        return self._largest("wrote").astype(bool)

    @property
    def gate(self) -> Float[np.ndarray, "R"]:
        """The largest gate figure of the memories that tick, 0 to 1; 0 without one."""
        return self._largest("gate")

    @property
    def surprise(self) -> Float[np.ndarray, "R"]:
        """The largest surprise, 0 or more; 0 without a memory that ticks."""
        return self._largest("surprise")

    @property
    def confidence(self) -> Float[np.ndarray, "R"]:
        """The largest confidence of the memories that tick, 0 to 1; 0 without one."""
        return self._largest("confidence")

    def _largest(self, field: str) -> Float[np.ndarray, "R"]:
        ticked = [np.asarray(getattr(out, field), np.float32) for out in self.outs if out is not None]
        largest: Float[np.ndarray, R] = np.max([np.zeros(len(self.rows), np.float32), *ticked], axis=0)
        return largest

    def of(self, rows: Int[np.ndarray, "S"]) -> "Tick":
        """The part for some of its rows, in the order given. Raises ValueError for a row that it has not."""
        if np.array_equal(rows, self.rows):
            return self
        at = [int(np.flatnonzero(self.rows == row)[0]) if row in self.rows else -1 for row in rows]
        if -1 in at:
            raise ValueError(f"row {int(rows[at.index(-1)])} was not observed in this tick, only {self.rows.tolist()}")
        return Tick(
            rows,
            self.observation.rows(at),
            None if self.encoding is None else self.encoding.rows(at),
            tuple(None if out is None else _rows_of(out, at) for out in self.outs),
            self.seconds,
            self.single,
        )


def _rows_of(out: StepOut, at: Sequence[int]) -> StepOut:
    return StepOut(*(None if x is None else np.asarray(x)[list(at)] for x in out))


@dataclass(frozen=True)
class Decision:
    """How chunks were planned.

    Attributes:
        tick: of the rows that were planned, [R], with its encoding.
        proposals: of each memory of the policy, in its order.
        proposal: all of them fused; None where every memory abstains in every row.
        chunks: [R, H, A] in normalised action space.
        seconds: that the pass of all its rows took, by part: "encode" where the tick had no encoding, "propose" and
            "sample".
        clipped: by how much the largest entry of each action was outside the bounds of the action spec, where somebody
            has brought them back; None before.
    """

    tick: Tick
    proposals: tuple[Proposal, ...]
    proposal: Proposal | None
    chunks: Float[np.ndarray, "R H A"]
    seconds: Mapping[str, float] = field(default_factory=dict)
    clipped: Float[np.ndarray, "R H"] | None = None

    @property
    def encoding(self) -> Encoding:
        """Of the rows that were planned. Raises ValueError when the tick has none."""
        if self.tick.encoding is None:
            raise ValueError("a decision is made of an encoding: this tick has none")
        return self.tick.encoding

    @property
    def weight(self) -> Float[np.ndarray, "R"]:
        """The larger weight of the fused proposal; 0 in rows where every memory abstains."""
        return np.zeros(len(self.chunks), np.float32) if self.proposal is None else self.proposal.weight


@dataclass(frozen=True)
class Moment:
    """All that a row carries between two control steps.

    Attributes:
        state: of its memories, by name.
        frames: observations before the present one, for a policy that reads several.
    """

    state: State
    frames: Frames


class MemoryPolicy:
    """A frozen policy with its memories over B rows.

    `observe` at every control step, also inside a chunk that is executed open loop; `plan` when actions are needed.
    Without a memory, or where all abstain, `plan` is `policy.sample(policy.encode(obs), noise)` bit for bit. For a
    policy that reads several observations those before the present one are kept here, row by row.
    """

    def __init__(
        self,
        policy: FrozenPolicy,
        memories: Sequence[MemoryRunner] = (),
        rows: int = 1,
        encode_always: bool = False,
        seed: int = 0,
        reader: DictionaryReader | None = None,
    ) -> None:
        """With `encode_always` every control step is encoded though no memory ticks, for who records features.

        `seed` is that of the noise that `plan` draws where none is given; `reader` reads observations that are
        dictionaries, by the spec's names when not given.

        Raises WeightsError when a memory's sizes are not the policy's, PolicyError for a policy that is to be played
        with a temporal ensemble.
        """
        if rows < 1:
            raise ValueError(f"rows is {rows}: expected 1 or more")
        if (ensemble := getattr(policy, "ensemble", None)) is not None:
            raise PolicyError(
                f"policy '{policy.spec.name}' was saved with a temporal ensemble (coefficient {ensemble:g}), which "
                "averages at every control step what all its chunks say of it and is not carried out here: add "
                "?ensemble=none to play its chunks as they are, or have lerobot play it"
            )
        self.policy, self.spec, self.rows = policy, policy.spec, rows
        self.memories = tuple(memories)
        self._encode_always = encode_always
        components = policy.spec.action.components
        self._low = np.concatenate([np.full(c.size, c.low, np.float32) for c in components])
        self._high = np.concatenate([np.full(c.size, c.high, np.float32) for c in components])
        self._frames = FrameHistory(rows, policy.history)
        self._reader = reader or DictionaryReader(policy.spec)
        self._seed, self._episodes = seed, [0] * rows
        self._noise = [stream(seed, "plan", row, 0) for row in range(rows)]
        for memory in self.memories:
            check_fits(memory.spec, policy.spec)

    @property
    def ticks(self) -> bool:
        """Whether a memory wants to see every control step."""
        return self._encode_always or any(memory.spec.ticks for memory in self.memories)

    @property
    def history(self) -> int:
        """Observations that the frozen policy reads at once, the present one included."""
        return self._frames.depth

    @property
    def replan_on_write(self) -> bool:
        """Whether a write cuts the running chunk short."""
        return any(memory.spec.replan_on_write for memory in self.memories)

    @property
    def state_bytes(self) -> int:
        """Bytes of a row's state over all memories, measured from their arrays; 0 without one."""
        return sum(memory.spec.state_bytes for memory in self.memories)

    def reset(self, mask: Bool[np.ndarray, "B"] | None = None) -> None:
        """Clears the state of the masked rows, of all when None; to be called when an episode begins.

        The noise that `plan` draws is then that of the row's next episode.
        """
        mask = np.ones(self.rows, bool) if mask is None else mask
        self._frames.clear(mask)
        for row in np.flatnonzero(mask).tolist():
            self._episodes[row] += 1
            self._noise[row] = stream(self._seed, "plan", row, self._episodes[row])
        for memory in self.memories:
            memory.reset(mask)

    def observe(self, obs: Observation | Mapping[str, Any], rows: Int[np.ndarray, "R"] | None = None) -> Tick:
        """One control step of `rows` (all, when None); `obs` has one row for each, in this order.

        A dictionary of gymnasium, lerobot or openpi is read by the names of the policy's spec; for one row it may be
        without an axis for the rows, and `plan` gives its chunk without one, too. For a policy that reads several
        observations it is the present one, or has all of them on an axis after the rows.

        Raises ValueError when rows and observations differ in number, or that axis is of another length,
        ObservationError for a dictionary that lacks what the policy reads.
        """
        rows = np.arange(self.rows) if rows is None else rows
        single = False
        if not isinstance(obs, Observation):
            obs, single = self._reader.read(obs, len(rows))
        if len(obs) != len(rows):
            raise ValueError(f"{len(obs)} observations for rows {rows.tolist()}: expected one for each")
        seen = self._frames.stacked(obs, rows)
        if not self.ticks:  # nobody reads a feature between plans: `plan` encodes the rows that are due
            self._frames.push(obs, rows)
            return Tick(rows, seen, outs=(None,) * len(self.memories), single=single)
        began = time.perf_counter()
        encoding = self.policy.encode(seen)
        encoded = time.perf_counter()
        outs = tuple(
            memory.step(self._features(memory, encoding, seen), rows) if memory.spec.ticks else None
            for memory in self.memories
        )
        seconds = {"encode": encoded - began, "memory": time.perf_counter() - encoded}
        self._frames.push(obs, rows)
        return Tick(rows, seen, encoding, outs, seconds, single)

    def skip(self, rows: Int[np.ndarray, "R"]) -> None:
        """Control steps of `rows` were not observed: what is kept is no longer what came just before, and is left."""
        self._frames.clear(np.isin(np.arange(self.rows), rows))

    def plan(self, tick: Tick, noise: Float[np.ndarray, "*R H A"] | None = None) -> Float[np.ndarray, "*R H A"]:
        """The chunk of each of the tick's rows, in normalised action space: fused proposals, sampled once.

        Without `noise` each row draws its own, a function of the seed, the row, how often it was reset, and how often
        it was planned since.
        """
        chunks = self.decide(tick, noise).chunks
        return chunks[0] if tick.single else chunks

    def decide(self, tick: Tick, noise: Float[np.ndarray, "*R H A"] | None = None) -> Decision:
        """`plan`, with what the chunks were made of. Raises NotFiniteError for a chunk that is not finite."""
        if noise is None:
            size = (self.spec.horizon, self.spec.action.size)
            noise = np.stack([self._noise[row].standard_normal(size, dtype=np.float32) for row in tick.rows])
        elif tick.single and noise.ndim == 2:
            noise = noise[None]
        seconds = {}
        began = time.perf_counter()
        encoding = tick.encoding
        if encoding is None:
            encoding = self.policy.encode(tick.observation)
            seconds["encode"] = time.perf_counter() - began
            began += seconds["encode"]
        proposals = self.propose(tick, encoding)
        proposal = fuse(proposals)  # then one sample, whatever the number of memories
        proposed = time.perf_counter()
        steers = proposal is not None and (proposal.chunk_weight.any() or proposal.context_weight.any())
        chunks = self.policy.sample(encoding, noise, proposal if steers else None)
        seconds |= {"propose": proposed - began, "sample": time.perf_counter() - proposed}
        if proposal is not None and proposal.offset is not None:
            moved = np.clip(chunks + proposal.offset, self._low, self._high).astype(np.float32)
            chunks = np.where(proposal.offset.any(axis=(1, 2), keepdims=True), moved, chunks)
        check_finite("the chunk", chunks)
        return Decision(replace(tick, encoding=encoding), tuple(proposals), proposal, chunks, seconds)

    def propose(self, tick: Tick, encoding: Encoding) -> list[Proposal]:
        """What each memory proposes for the tick's rows."""
        outs = tick.outs or (None,) * len(self.memories)
        lowest, now = self.policy.lowest_start, tick.observation.moments[-1]
        return [memory.propose(out, now, encoding, lowest) for memory, out in zip(self.memories, outs, strict=True)]

    def state(self, row: int) -> State:
        """A copy of a row's state by name; with several memories that carry one, the names begin with its place."""
        return {self._prefix(i) + name: x for i, m in enumerate(self.memories) for name, x in m.state(row).items()}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state of a row. Raises ValueError for the state of another memory."""
        known = self.state(row).keys()
        if not known <= state.keys() or not state.keys() <= known:
            raise ValueError(
                f"a state of {sorted(state)} does not fit memories that carry {sorted(known) or 'none'}: it was saved "
                "with other memories"
            )
        for i, memory in enumerate(self.memories):
            mine = memory.state(row)
            if mine:
                memory.restore(row, {name: state[self._prefix(i) + name] for name in mine})

    def moment(self, row: int) -> Moment:
        """All that a row carries, for `return_to` when a control step is to be taken back."""
        return Moment(self.state(row), self._frames.frames(row))

    def return_to(self, row: int, moment: Moment) -> None:
        """Makes a row what it was at `moment`."""
        self.restore(row, moment.state)
        self._frames.put_back(row, moment.frames)

    def _prefix(self, index: int) -> str:
        # one memory alone keeps its bare names, so that states of version 0.1 can be restored
        carrying = [i for i, memory in enumerate(self.memories) if memory.spec.state_bytes]
        return "" if len(carrying) < 2 else f"{index}."

    def _features(self, memory: MemoryRunner, encoding: Encoding, obs: Observation) -> Float[np.ndarray, "R D"]:
        """What a memory reads: z, or z beside the instruction's context."""
        z = np.asarray(encoding.z, np.float32)
        # z does not hold the instruction, and one scene serves several tasks: a memory may be trained to read both
        if memory.spec.feature_size == self.spec.feature_size:
            return z
        both: Float[np.ndarray, "R D"] = np.concatenate([z, self.policy.context_of(list(obs.instruction))], axis=1)
        return both.astype(np.float32)


def wrap(
    policy: str | Path | FrozenPolicy,
    memory: str | MemoryRunner | Sequence[str | MemoryRunner] = (),
    rows: int = 1,
    *,
    seed: int = 0,
    rename: Mapping[str, str] | None = None,
    instruction: str | None = None,
    **old: object,
) -> MemoryPolicy:
    """A frozen policy with memory.

    Args:
        policy: "tiny", "tiny-libero", a weights file, a LeRobot checkpoint, "package.module:FACTORY", or a policy that
            is loaded already.
        memory: one or several of KIND[:FILE][?option=value], e.g. "aura" (the gate that comes with the shipped
            policy), "aura:gate.safetensors?inject=chunk", "success:kitchen.db", or a runner that is made already.
        rows: environments that run side by side.
        seed: of the noise that `plan` draws where it is given none.
        rename: where observations are dictionaries, the policy's name of an entry by theirs, besides those that are
            known: {"observation/image": "agentview"}; several that are "proprioception" are concatenated.
        instruction: the sentence of dictionaries without one.

    Raises PolicyError, MemoryNameError, WeightsError or OriginError for what is missing, broken or made for another
    policy, ValueError for a rename to what the policy does not read.
    """
    for name in old:
        if name not in _OLD:
            raise TypeError(
                f"wrap has no argument '{name}': it takes policy, memory, rows, seed, rename and instruction"
            )
        raise TypeError(f"wrap has no argument '{name}' any more: write memory={_OLD[name]}")
    sha256 = None
    given = (memory,) if isinstance(memory, str) or not isinstance(memory, Sequence) else memory
    names = parse_memories([m for m in given if isinstance(m, str)])
    if isinstance(policy, str | Path):
        source = find_policy(str(policy))
        policy, sha256 = load_policy(source), source.sha256
    loaded = iter(load_memories(names, policy, sha256, rows))
    runners = [m if not isinstance(m, str) else next(loaded) for m in given if m != "none"]
    return MemoryPolicy(policy, runners, rows, seed=seed, reader=DictionaryReader(policy.spec, rename, instruction))
