"""What a suite of tasks is, and what an environment of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vlamem.core.spec import ActionSpec

Kind = Literal["skill", "memory", "oracle"]
RenderProfile = Literal["fast", "faithful"]
KINDS: dict[str, Kind] = {"skills": "skill", "memory": "memory", "oracle": "oracle"}
"""Names that stand for all tasks of a kind."""


class SuiteError(ValueError):
    """A suite or task that does not exist; the message names the nearest one that does."""


class NoExpertError(ValueError):
    """A task that no scripted expert can do; the message says why."""


@dataclass(frozen=True)
class TaskInfo:
    """One task of a suite.

    Attributes:
        name: e.g. "touch".
        kind: "skill" (the current frame is enough), "memory" (it is not), or "oracle" (a memory task whose
            instruction tells the answer).
        remember: what has to be remembered; empty for skills.
        chance: success rate of a perfect hand with a random choice, 0 to 1.
        max_steps: control steps until an episode is truncated.
        instructions: example sentences.
    """

    name: str
    kind: Kind
    remember: str
    chance: float
    max_steps: int
    instructions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cue:
    """What a memory task hides, as it stands at this moment.

    Attributes:
        known: whether one who has seen everything until now knows the answer.
        over: whether the cue is no longer to be seen.
        answer: the oracle instruction, which contains the answer; None where the instruction contains it already.
        phase: changes where something happens that no plan made before could foresee, such as a go signal.
    """

    known: bool
    over: bool
    answer: str | None
    phase: int = 0


@dataclass(frozen=True)
class Recorder:
    """What of a suite can be recorded, and by what of its own.

    Attributes:
        family: under which recordings of suites with the same goals go; the suite's name when empty.
        demonstrations: package.module:BODY of a recording process, for 'vlamem collect': called with the Collection,
            the number of the process, and a queue that gets whether each episode succeeded. None for a suite
            without.
        features: whether the experts give an action in every state that a policy gets into, so that 'vlamem collect
            --features' can play the suite.
        visits: whether a policy may act for a while in demonstrations.
        lerobot: package.module:WRITER of LeRobotDatasets, or None.
        labels: package.module:FUNCTION from an environment to its privileged labels by name, for 'vlamem probe'; 0
            means that there is nothing to see now. None for a suite without.
        frames: package.module:OBJECT, its FrameLabels, for 'vlamem collect --features --frames'. None for a suite
            whose tasks hide nothing.
    """

    family: str = ""
    demonstrations: str | None = None
    features: bool = False
    visits: bool = False
    lerobot: str | None = None
    labels: str | None = None
    frames: str | None = None


@runtime_checkable
class FrameLabels(Protocol):
    """What recorded frames of a suite show of an answer, without the simulation that they come from.

    Attributes:
        refused: tasks whose frames show too little, and why.
    """

    refused: Mapping[str, str]

    def known(self, task: str, categories: Mapping[str, Int[np.ndarray, "N"]]) -> Bool[np.ndarray, "N"]:
        """At which frames of one episode the answer has been shown, by the privileged labels that were recorded."""
        ...


@runtime_checkable
class SuiteEnv(Protocol):
    """A gymnasium environment of a suite, as the rollout uses it.

    An observation is a dict: one uint8 [H, W, 3] RGB upright image per camera, `proprioception` float32 [P] and
    `instruction` str. With `render_on_step` False, observations come without images and `observe` gives a full one.
    `reset` takes options {"episode": int, "split": str, "wording": str}; the initial state is a function of (task,
    split, episode) alone. `step` reports {"success": bool} in its info. `expert_action` is what a scripted expert with
    privileged state does now.
    """

    action_spec: ActionSpec
    control_hz: float
    render_on_step: bool

    @property
    def instruction(self) -> str:
        """The sentence of this moment."""
        ...

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; see the class."""
        ...

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step with an action in the environment's action space."""
        ...

    def observe(self) -> dict[str, Any]:
        """The current observation with its images."""
        ...

    def expert_action(self) -> Float[np.ndarray, "A"]:
        """The scripted expert's action. Raises NoExpertError where there is none."""
        ...

    def cue(self) -> Cue | None:
        """What the task hides; None where the current frame says all that is needed."""
        ...

    def close(self) -> None:
        """Frees the simulator and its GL context."""
        ...


@runtime_checkable
class Suite(Protocol):
    """A named set of tasks. `vlamem.testing.check_suite` checks one against this contract.

    One that draws its images without GL says so by an attribute `needs_gl` of False: a rollout then asks for no
    renderer.
    """

    name: str
    tasks: Mapping[str, TaskInfo]
    recorder: Recorder

    def goals(self) -> tuple[tuple[str, ...], ...]:
        """Everything that the suite's sentences can ask, in a fixed order: all paraphrases of each, the last of them
        held out of training. A suite whose sentences have no paraphrases gives each of them twice.
        """
        ...

    def make(
        self, task: str, *, image_size: int = 84, render: RenderProfile = "fast", **task_parameters: Any
    ) -> SuiteEnv:
        """An environment for one task. `guessing=True` gives its expert a random choice in place of the answer.

        Raises SuiteError for an unknown task, and for an expert that is to guess where nothing is hidden.
        """
        ...


def images_of(observation: Mapping[str, Any], cameras: Sequence[str]) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """The images of `cameras` in an observation. Raises SuiteError naming a camera that is not there."""
    missing = [c for c in cameras if c not in observation]
    if missing:
        has = [k for k, v in observation.items() if getattr(v, "ndim", 0) == 3]
        raise SuiteError(
            f"the environment has no camera '{missing[0]}', only {has}: choose a policy trained with these cameras"
        )
    return {c: observation[c] for c in cameras}
