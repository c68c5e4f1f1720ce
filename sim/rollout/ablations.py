"""Ablations: controls that act on a memory while it is used, or on where its proposal enters.

`freeze`, `noise` and `swap` act on the state of a row from the end of the cue on: held as it is then, replaced by
noise of its own size at every tick, or replaced once by what the memory held in another episode. `blend` mixes the
proposed chunk into the policy's finished chunk, `proposal_only` executes it in the policy's place.
"""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.core.spec import PolicySpec
from vlamem.policies.protocol import FrozenPolicy
from vlamem.sim.rollout.hooks import EpisodeHooks, HookContext

if TYPE_CHECKING:
    from vlamem.sim.rollout.row import Row

State = dict[str, np.ndarray]
Ablation = Literal["none", "freeze", "noise", "swap", "blend", "proposal_only"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
OF_THE_STATE = ("freeze", "noise", "swap")
OF_THE_OUTPUT = ("blend", "proposal_only")
DONOR_OFFSET = 500_000
"""How far away the episode is whose memory content `swap` takes."""


class StateAblation(EpisodeHooks):
    """Acts on the memory from the end of the cue on; what it does depends on (task, episode, seed) alone.

    It works on one environment at a time, row 0.
    """

    def __init__(self, context: HookContext) -> None:
        """Raises ValueError for a scripted expert, which has no memory."""
        if context.policy is None:
            raise ValueError("a scripted expert has no memory to act on")
        self._kind, self._policy, self._seed = context.config.ablation, context.policy, context.config.seed
        self._rehearse = context.rehearse
        self._donor: State = {}
        self._frozen: State | None = None
        self._done = False

    def before_reset(self, row: "Row") -> None:
        """`swap` plays another episode up to its cue's end, and keeps what the memory holds then."""
        self._noise = stream(self._seed, "memory control", row.task, row.episode)
        self._frozen, self._done = None, False
        if self._kind != "swap":
            return
        shown = False

        def enough(donor: "Row") -> bool:
            nonlocal shown
            if shown and donor.steps > 1:
                return True
            cue = donor.env.cue()
            shown = cue is None or cue.over
            return False

        self._rehearse(row, row.episode + DONOR_OFFSET, enough)
        self._donor = self._policy.state(row.index)

    def before_tick(self, row: "Row") -> None:
        """Changes the memory's state."""
        cue = row.env.cue()
        if cue is not None and not cue.over:
            return
        state = self._policy.state(row.index)
        if self._kind == "freeze":
            self._frozen = self._frozen or state
            self._policy.restore(row.index, self._frozen)
        elif self._kind == "noise":
            self._policy.restore(row.index, {name: noise_like(x, self._noise) for name, x in state.items()})
        elif not self._done:
            self._policy.restore(row.index, self._donor)
            self._done = True


def noise_like(x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Noise of the size of a state array: normal with its standard deviation, or whole numbers within its range.

    Marks of what is filled stay as they are: where nothing was stored there is nothing to replace.
    """
    if x.dtype.kind == "b":
        return x
    noise: np.ndarray = (
        (x.std() * draw.standard_normal(x.shape)).astype(x.dtype)
        if x.dtype.kind == "f"
        else draw.integers(x.min(), x.max(), x.shape, dtype=x.dtype, endpoint=True)
    )
    return noise


class OutputAblation:
    """A frozen policy into whose finished chunk a proposed one is mixed, or which is replaced by it."""

    def __init__(self, policy: FrozenPolicy, kind: Ablation) -> None:
        self._policy, self._kind = policy, kind
        self.lowest_start = 0.0  # nothing is left to a sampler: the weight is taken as it is

    @property
    def spec(self) -> PolicySpec:
        """Of the policy."""
        return self._policy.spec

    @property
    def history(self) -> int:
        """Of the policy."""
        return self._policy.history

    @property
    def ensemble(self) -> float | None:
        """Of the policy."""
        return getattr(self._policy, "ensemble", None)

    def encode(self, obs: Observation) -> Encoding:
        """As the policy does."""
        return self._policy.encode(obs)

    def context_of(self, instruction: list[str]) -> Float[np.ndarray, "B C"]:
        """As the policy does."""
        return self._policy.context_of(instruction)

    def sample(
        self, encoding: Encoding, noise: Float[np.ndarray, "B H A"], proposal: Proposal | None = None
    ) -> Float[np.ndarray, "B H A"]:
        """The policy's chunk under the proposed context, and the proposed chunk mixed into it or in its place."""
        if proposal is None or proposal.chunk is None:
            return self._policy.sample(encoding, noise, proposal)
        context = Proposal.of_context(proposal.context, proposal.context_weight)
        chunk = self._policy.sample(encoding, noise, None if context.abstains else context)
        weight = proposal.chunk_weight
        share = (weight if self._kind == "blend" else (weight > 0).astype(np.float32))[:, None, None]
        return np.where(share > 0, (1 - share) * chunk + share * proposal.chunk, chunk).astype(np.float32)
