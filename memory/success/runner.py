"""The success memory as a runner of one frozen policy: layout and origin from its spec, instructions by its vectors."""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.spec import ActionComponent, PolicySpec
from vlamem.memory.protocol import StepOut
from vlamem.memory.registry import PolicyView
from vlamem.memory.runner import MemorySpec, StatelessRunner
from vlamem.memory.success import EpisodeRecorder, PredicateVerifier, Trace, Verdict, Verifier
from vlamem.memory.success.experience.layout import ActionPart, EntryError, Layout, Origin, PartKind
from vlamem.memory.success.memory import MemoryOptions, SuccessMemory

TABLETOP_SCALE = (0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.04)
"""What counts as much as 1 in a tabletop robot's state: hand position [m], orientation (w, x, y, z), opening [m]."""
_NEAR = 0.2
"""Units of a joint by which a state differs as much as 1."""
_HALF_RADIAN, _RADIANS = 0.5, {"rad": 1.0, "deg": math.pi / 180}
_SENTENCES = 256
"""Remembered at a time; a client may invent new ones for ever."""
_KINDS: dict[str, PartKind] = {
    "xyz": "linear",
    "joint": "linear",
    "axis_angle": "axis_angle",
    "quaternion": "quaternion",
    "gripper": "vote",
}


def layout_of(spec: PolicySpec, scale: Sequence[float] | None = None, quaternion: int | None = None) -> Layout:
    """Layout of what a policy with this spec stores.

    Args:
        spec: of the policy.
        scale: [P] for the similarity of states; that of the tabletop robots for a pose, 0.1 rad and a tenth of a range
            where the state is as long as an action of absolute joints, as LeRobot's arms have it, 0.1 each otherwise.
        quaternion: where a unit quaternion stands in the proprioception; 3 for a pose, none for what is not declared.

    Raises EntryError for an action form that cannot be averaged, naming those that can.
    """
    parts = tuple(_part(c) for c in spec.action.components)
    if scale is None:
        pose = spec.state == "pose"
        scale = TABLETOP_SCALE if pose else _scale_of_joints(spec, parts) or (0.1,) * spec.proprioception_size
        quaternion = 3 if pose and quaternion is None else quaternion
    return Layout(spec.key_size, spec.horizon, parts, tuple(float(s) for s in scale), quaternion)


def _part(component: ActionComponent) -> ActionPart:
    if component.form not in _KINDS:
        raise EntryError(
            f"action component '{component.name}' has form {component.form!r}, which cannot be averaged: known forms "
            f"are {', '.join(_KINDS)}"
        )
    radians = 1.0
    if component.form == "axis_angle":
        number, _, name = component.unit.partition(" ")
        if name != "rad":
            raise EntryError(f"rotation '{component.name}' is in {component.unit!r}: expected a number of radians")
        radians = float(number)
    kind, unit = _KINDS[component.form], _unit(component)
    return ActionPart(component.name, component.size, kind, radians, component.low, component.high, unit)


def _unit(component: ActionComponent) -> float:
    """What counts as 1 between two chunks of joints: half the range, or half a radian where that is less, as one value
    of the tabletop's rotations is; 0 for 1 itself."""
    if component.form != "joint":
        return 0.0
    unit = 0.5 * (component.high - component.low)
    number, _, name = component.unit.partition(" ")
    if name in _RADIANS:
        try:
            unit = min(unit, _HALF_RADIAN / (float(number) * _RADIANS[name]))
        except (ValueError, ZeroDivisionError) as error:
            raise EntryError(
                f"joints '{component.name}' are in {component.unit!r}: expected a number of {name} above 0, '1 {name}'"
            ) from error
    return 0.0 if unit == 1.0 else unit


def _scale_of_joints(spec: PolicySpec, parts: Sequence[ActionPart]) -> tuple[float, ...] | None:
    """The scale of a state that has the entries of an action of absolute joints; None for another."""
    joints = all(c.form == "joint" and c.mode == "absolute" for c in spec.action.components)
    if not joints or spec.proprioception_size != spec.action.size:
        return None
    return tuple(_NEAR * (part.unit or 1.0) for part in parts for _ in range(part.size))


def origin_of(spec: PolicySpec, weights_sha256: str | None, robot: str = "") -> Origin:
    """Origin of a policy's experience; `robot` defaults to the action spec's meaning and the control rate."""
    marks = [f"{c.name}:{c.form}:{c.mode}:{c.frame}:{c.unit}" for c in spec.action.components]
    return Origin(
        spec.fingerprint,
        (weights_sha256 or "unknown")[:16],
        spec.normaliser,
        robot or f"{spec.control_hz:g}Hz/" + "/".join(marks),
    )


class SuccessRunner(StatelessRunner):
    """A success memory as a policy uses it: asked at a re-plan, by the policy's own key of the observation.

    A paraphrase is known by the policy's own vector of it. `memory.last` keeps the priors behind the last proposal.
    Whoever plays episodes may have it learn from them: it is a LearnsFromEpisodes, with the verifier that is given.

    Attributes:
        learning: whether offsets of a residual prior are tried out; only for who stores every episode as a trial.
        explore_asked: whether the memory's name has `explore`, without which a server tries nothing out.
    """

    def __init__(
        self, memory: SuccessMemory, policy: PolicyView, name: str = "success", verifier: Verifier | None = None
    ) -> None:
        self.memory, self.policy, self.verifier = memory, policy, verifier or PredicateVerifier()
        self.spec = MemorySpec(name, chunk_shape=(policy.spec.horizon, policy.spec.action.size), ticks=False)
        self.proposed: Callable[[Proposal], None] = lambda proposal: None
        self.learning = False
        self.explore_asked = False
        self._noting = False
        self._offset: np.ndarray | None = None
        self._meanings: dict[str, np.ndarray] = {}

    def meaning(self, instruction: str) -> Float[np.ndarray, "C"]:
        """The policy's vector of a sentence, computed once while not too many others are asked for."""
        known = self._meanings = self._meanings if len(self._meanings) < _SENTENCES else {}
        if instruction not in known:
            known[instruction] = np.asarray(self.policy.context_of([instruction])[0], np.float32)
        return known[instruction]

    def propose(
        self, out: StepOut | None, observation: Observation, encoding: Encoding, lowest_start: float
    ) -> Proposal:
        """The prior of each row: elite, of weight 0 where nothing similar succeeded; or residual, one offset in every
        row, 0 where none is known to help."""
        if self.memory.options.prior == "residual":
            proposal = self._residual(len(observation))
            self.proposed(proposal)
            return proposal
        proposal = self.query(encoding.key, observation.proprioception, observation.instruction)
        self.proposed(proposal)
        return proposal

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """The next plan asks for the offset of a new trial."""
        self._offset = None

    def _residual(self, rows: int) -> Proposal:
        if self._offset is None:
            self._offset = self.memory.residual(explore=self.learning).offset
        size = (rows, self.policy.spec.horizon, len(self._offset))
        return Proposal.of_offset(np.broadcast_to(self._offset, size).astype(np.float32))

    @property
    def offset(self) -> Float[np.ndarray, "A"] | None:
        """What the last proposal adds to every command; None without residual priors."""
        return self._offset

    def query(
        self,
        key: Float[np.ndarray, "R K"],
        proprioception: Float[np.ndarray, "R P"],
        instruction: Sequence[str],
    ) -> Proposal:
        """What the memory proposes for R states; see SuccessMemory.query."""
        meanings = np.stack([self.meaning(text) for text in instruction])
        return self.memory.query(key, proprioception, instruction, meanings)

    @property
    def recorder(self) -> EpisodeRecorder:
        """A new recorder of one episode."""
        return EpisodeRecorder(self.memory.layout)

    @property
    def segments(self) -> int:
        """Segments of successes in the memory."""
        return len(self.memory)

    def used(self, at: int) -> Int[np.ndarray, "U"]:
        """Ids of the segments that the last prior of row `at` was made of; a residual prior is made of none."""
        return self.memory.last[at].used if self.memory.options.prior == "elite" else np.zeros(0, np.int64)

    def close(self) -> None:
        """Closes the memory's file."""
        self.memory.close()

    def verify(self, trace: Trace, success: bool) -> Verdict:
        """The verifier's verdict."""
        return self.verifier.verify(trace, success)

    def observe_episode(self, trace: Trace, verdict: Verdict) -> None:
        """Stores what the verdict allows, and credits the segments that were used. Raises as SuccessMemory's."""
        undoing = self.memory.undoing if self._noting else None
        if undoing is None:
            self.memory.observe_episode(trace, verdict)
            return
        undoing.name_episode(trace.identity)
        try:
            self.memory.observe_episode(trace, verdict)
        finally:
            undoing.name_episode(None)

    def retract(self, run: str, kept: Collection[str]) -> None:
        """Takes back what the run's episodes that are not to be `kept` have stored; it is about to learn.

        Credits and merges are undone too, and what was evicted is there again. Where the store cannot undo, or an
        episode is one of long ago, its segments and trials are deleted and no more.
        """
        self.learning = True
        store, origin = self.memory.store, self.memory.origin
        undoing, self._noting = self.memory.undoing, True
        if undoing is not None and undoing.take_back(f"{run}/", kept):
            self.memory.reload()
        trials = [t.identity for t in store.trials(origin) if t.identity.startswith(f"{run}/")]
        self.memory.trials.delete([identity for identity in trials if identity not in kept])
        late = {
            head.id
            for head in store.episode_heads(origin)
            if head.identity.startswith(f"{run}/") and head.identity not in kept
        }
        gone = [segment.id for segment in store.segments(origin) if segment.episode in late] if late else []
        if gone:
            self.memory.prune(np.array(gone, np.int64))


def open_success(
    path: str | Path,
    policy: PolicyView,
    weights_sha256: str | None = None,
    robot: str = "",
    options: MemoryOptions | None = None,
    admit: bool = False,
    verifier: Verifier | None = None,
) -> SuccessRunner:
    """The success memory at an address (a path or `sqlite:PATH`), for `policy`; made when missing.

    Raises OriginError naming what differs when it was made with another policy, weights, normaliser or robot.
    """
    layout = layout_of(policy.spec)
    origin = origin_of(policy.spec, weights_sha256, robot)
    return SuccessRunner(SuccessMemory(path, origin, layout, options, admit), policy, verifier=verifier)
