"""A frozen policy and its memories: ticked at every control step, heard when a chunk is planned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.proposal import Proposal
from vlamem.memory.runner import AuraVoice, Said, Voice, check_fits, identity
from vlamem.policies.fuse import SpeakOptions, SuccessVoice, fuse
from vlamem.policies.protocol import Encoding, FrozenPolicy, Observation
from vlamem.policies.registry import find_policy, load_policy
from vlamem.policies.steering import LOWEST

SHIPPED_GATE = Path(__file__).parent / "tiny" / "gate.safetensors"


@dataclass(frozen=True)
class Tick:
    """What one control step left for a plan.

    Attributes:
        rows: which rows of the MemoryPolicy, [R].
        observation: of these rows.
        encoding: of the observation; None when no memory needed it, `plan` makes it then.
        proposal: the recurrent memory's, as it was said, or None.
        wrote, gate, surprise: of the recurrent memory, [R]; zeros without one.
    """

    rows: Int[np.ndarray, "R"]
    observation: Observation
    encoding: Encoding | None = None
    proposal: Proposal | None = None
    wrote: Bool[np.ndarray, "R"] = field(default_factory=lambda: np.zeros(0, bool))
    gate: Float[np.ndarray, "R"] = field(default_factory=lambda: np.zeros(0, np.float32))
    surprise: Float[np.ndarray, "R"] = field(default_factory=lambda: np.zeros(0, np.float32))

    def of(self, rows: Int[np.ndarray, "S"]) -> "Tick":
        """The part for some of its rows, in the order given. Raises ValueError for a row that it has not."""
        if np.array_equal(rows, self.rows):
            return self
        at = [int(np.flatnonzero(self.rows == row)[0]) if row in self.rows else -1 for row in rows]
        if -1 in at:
            raise ValueError(f"row {int(rows[at.index(-1)])} was not observed in this tick, only {self.rows.tolist()}")
        obs, said = self.observation, self.proposal
        part = Observation(
            {name: images[at] for name, images in obs.images.items()},
            obs.proprioception[at],
            tuple(obs.instruction[i] for i in at),
        )
        if said is not None:
            said = Proposal(
                said.confidence[at],
                None if said.chunk is None else said.chunk[at],
                None if said.context is None else said.context[at],
            )
        return Tick(rows, part, None, said, self.wrote[at], self.gate[at], self.surprise[at])


class MemoryPolicy:
    """A frozen policy with a recurrent memory, a success memory, both or none, over B rows.

    `observe` at every control step, also inside a chunk that is executed open loop; `plan` when actions are needed.
    Without a memory, or where confidence is 0, `plan` is `policy.sample(policy.encode(obs), noise)` bit for bit.
    """

    def __init__(
        self,
        policy: FrozenPolicy,
        aura: Voice | None = None,
        success: SuccessVoice | None = None,
        rows: int = 1,
        options: SpeakOptions | None = None,
    ) -> None:
        """Raises WeightsError when the memory's sizes are not the policy's, ValueError for a way it cannot speak."""
        if rows < 1:
            raise ValueError(f"rows is {rows}: expected 1 or more")
        self.policy, self.spec, self.success = policy, policy.spec, success
        self.options = options or SpeakOptions()
        self.rows = rows
        self._aura = aura
        self._with_context = False
        self._memories = []
        if aura is not None:
            check_fits(aura, policy.spec)
            _check_speaks(aura, self.options)
            self._with_context = aura.feature_size != policy.spec.feature_size
            self._memories = [aura.row() for _ in range(rows)]

    @property
    def ticks(self) -> bool:
        """Whether a recurrent memory wants to see every control step."""
        return self._aura is not None

    @property
    def state_bytes(self) -> int:
        """Bytes of a row's recurrent state, measured from its arrays; 0 without one."""
        return sum(x.nbytes for x in self._memories[0].state().values()) if self._memories else 0

    def reset(self, mask: Bool[np.ndarray, "B"] | None = None) -> None:
        """Clears the recurrent state of the masked rows, of all when None; to be called when an episode begins."""
        for row, memory in enumerate(self._memories):
            if mask is None or mask[row]:
                memory.reset()

    def observe(self, obs: Observation, rows: Int[np.ndarray, "R"] | None = None) -> Tick:
        """One control step of `rows` (all, when None); `obs` has one row for each, in this order.

        Raises ValueError when the two differ in number.
        """
        rows = np.arange(self.rows) if rows is None else rows
        if len(obs.instruction) != len(rows):
            raise ValueError(f"{len(obs.instruction)} observations for rows {rows.tolist()}: expected one for each")
        if not self._memories:
            return Tick(rows, obs, wrote=np.zeros(len(rows), bool), gate=_zeros(rows), surprise=_zeros(rows))
        encoding = self.policy.encode(obs)
        features = encoding.z
        if self._with_context:
            features = np.concatenate([encoding.z, self.policy.context_of(list(obs.instruction))], axis=1)
        said = [self._memories[row].tick(np.asarray(f, np.float32)) for row, f in zip(rows, features, strict=True)]
        return Tick(
            rows,
            obs,
            encoding,
            _together(said),
            np.array([s.wrote for s in said]),
            np.array([s.gate for s in said], np.float32),
            np.array([s.surprise for s in said], np.float32),
        )

    def plan(self, tick: Tick, noise: Float[np.ndarray, "R H A"]) -> Float[np.ndarray, "R H A"]:
        """The chunk of each of the tick's rows, in normalised action space; the success memory is asked here."""
        encoding = tick.encoding or self.policy.encode(tick.observation)
        spoken = self.heard(tick)
        says = [] if spoken is None else [spoken]
        if self.success is not None:
            obs = tick.observation
            says.append(self.success.query(encoding.key, obs.proprioception, obs.instruction))
        steering = says
        if self.options.way in ("blend", "alone"):
            steering = [Proposal(p.confidence, None, p.context) for p in says if p.context is not None]
        parts = fuse(steering)
        chunks = self.policy.sample(encoding, noise, parts[0] if parts else None)
        for part in parts[1:]:
            chunks = np.where((part.confidence > 0)[:, None, None], self.policy.sample(encoding, noise, part), chunks)
        for p in says:
            if self.options.way in ("blend", "alone") and p.chunk is not None:
                share = p.confidence if self.options.way == "blend" else (p.confidence > 0).astype(np.float32)
                c = share[:, None, None]
                chunks = np.where(c > 0, (1 - c) * chunks + c * p.chunk, chunks).astype(np.float32)
        return chunks

    def heard(self, tick: Tick) -> Proposal | None:
        """What of the recurrent memory's proposal reaches the policy: as the options say, low confidences as 0.

        A residual that is trusted is heard whole: a part of the way from one sentence to another is no sentence. A
        learned chunk is a sketch: its confidence is cut where the sampler would no longer have the last word.
        """
        said, options = tick.proposal, self.options
        if said is None:
            return None
        sure = np.where(said.confidence >= options.abstain_below, said.confidence, 0).astype(np.float32)
        chunk = None if options.way == "context" else said.chunk
        if options.way in ("chunk", "both"):
            sure = np.minimum(sure, np.float32(1 - getattr(self.policy, "lowest_start", LOWEST)))
        if options.way not in ("context", "both") or said.context is None:
            return Proposal(sure, chunk)
        if chunk is None:
            return Proposal((sure > 0).astype(np.float32), None, said.context)
        whole = np.divide(said.context, sure[:, None], out=np.zeros_like(said.context), where=sure[:, None] > 0)
        return Proposal(sure, chunk, whole)

    def state(self, row: int) -> dict[str, np.ndarray]:
        """A copy of a row's recurrent state by name; empty without a recurrent memory."""
        return self._memories[row].state() if self._memories else {}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the recurrent state of a row. Raises ValueError for the state of another memory."""
        if not self._memories:
            if state:
                raise ValueError("this policy has no recurrent memory to restore a state into: wrap it with aura=")
            return
        self._memories[row].restore(state)


def _zeros(rows: Int[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
    return np.zeros(len(rows), np.float32)


def _check_speaks(voice: Voice, options: SpeakOptions) -> None:
    """Raises ValueError when a memory has not been trained for the way in which it is to speak."""
    missing = []
    if options.way in ("context", "both") and not voice.context_size:
        missing.append("context")
    if options.way in ("chunk", "both", "blend", "alone") and voice.chunk_shape is None:
        missing.append("chunk")
    if missing:
        raise ValueError(
            f"this memory proposes no {' and no '.join(missing)}, which speaking by {options.way!r} needs: "
            "train one with 'vlamem train-gate --targets both' or speak otherwise"
        )


def _together(said: list[Said]) -> Proposal:
    """The rows' proposals as one batch."""
    chunks = [s.chunk for s in said if s.chunk is not None]
    contexts = [s.context for s in said if s.context is not None]
    confidence = np.array([s.confidence for s in said], np.float32)
    return Proposal(confidence, np.stack(chunks) if chunks else None, np.stack(contexts) if contexts else None)


def wrap(
    policy: str | Path | FrozenPolicy,
    aura: str | Path | Voice | None = None,
    success: str | Path | SuccessVoice | None = None,
    rows: int = 1,
    **options: object,
) -> MemoryPolicy:
    """A frozen policy with memory.

    Args:
        policy: "tiny", "tiny-libero", a weights file, "package.module:FACTORY", or a policy that is loaded already.
        aura: a gate's weights file, "shipped" for the one that comes with the shipped policy, a voice, or None.
        success: a success memory's file, which is made when missing, a voice, or None.
        rows: environments that run side by side.
        options: of SpeakOptions, e.g. way="chunk".

    Raises PolicyError, WeightsError or OriginError for files that are missing, broken or made for another policy.
    """
    sha256 = None
    if isinstance(policy, str | Path):
        source = find_policy(str(policy))
        policy, sha256 = load_policy(source), source.sha256
    if isinstance(aura, str | Path):
        path = SHIPPED_GATE if aura == "shipped" else Path(aura)
        aura = AuraVoice.load(path, identity(policy.spec, sha256))
    if isinstance(success, str | Path):
        from vlamem.policies.success import open_success

        success = open_success(success, policy, sha256)
    return MemoryPolicy(policy, aura, success, rows, SpeakOptions(**options))  # type: ignore[arg-type]  # checked there
