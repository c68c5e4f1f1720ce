"""Contracts between a policy and what executes its actions, checked before a run."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

StateForm = Literal["", "pose"]
"""What proprioception means: nothing is declared, or position [m] (3), unit quaternion w, x, y, z (4), gripper opening
[m] (1)."""
POSE_SIZE = 8
"""Entries of a pose."""


class SpecMismatchError(ValueError):
    """Two parts that were not made for each other; the message names both values."""


@dataclass(frozen=True)
class ActionComponent:
    """A run of action entries with one meaning.

    Attributes:
        name: e.g. "translation", "rotation", "gripper".
        size: number of entries.
        form: "xyz", "axis_angle", "joint", "gripper" (-1 open, +1 closed), or "undeclared".
        mode: "delta" or "absolute".
        frame: "base", "end_effector" or "none".
        unit: physical size of the value 1, e.g. "0.05 m"; actions are in [low, high] before scaling.
        low, high: range of each entry.
    """

    name: str
    size: int
    form: str
    mode: str
    frame: str
    unit: str
    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True)
class ActionSpec:
    """Meaning of every entry of an action, in order."""

    components: tuple[ActionComponent, ...]

    @property
    def size(self) -> int:
        """Number of action entries A."""
        return sum(c.size for c in self.components)

    @property
    def low(self) -> tuple[float, ...]:
        """[A], the lowest value of each entry."""
        return tuple(c.low for c in self.components for _ in range(c.size))

    @property
    def high(self) -> tuple[float, ...]:
        """[A], the highest value of each entry."""
        return tuple(c.high for c in self.components for _ in range(c.size))

    @property
    def entries(self) -> tuple[str, ...]:
        """[A], a name of each entry: the component's, numbered where it has several."""
        return tuple(c.name if c.size == 1 else f"{c.name}.{i}" for c in self.components for i in range(c.size))

    def check(self, other: "ActionSpec", mine: str, theirs: str) -> None:
        """Raises SpecMismatchError naming the first difference between two specs and what carries each."""
        undeclared = next((c for c in other.components if c.form == "undeclared"), None)
        if undeclared is not None:
            raise SpecMismatchError(
                f"{theirs} does not say what its {other.size} action entries mean and {mine} has "
                f"{', '.join(f'{c.name} {c.size}' for c in self.components)}: if they mean the same, add "
                "?actions=osc_pose after the checkpoint"
            )
        for a, b in zip(self.components, other.components, strict=False):
            for field, value in asdict(a).items():
                if getattr(b, field) != value:
                    raise SpecMismatchError(
                        f"action component '{a.name}' has {field} {value!r} in {mine} but {getattr(b, field)!r} in "
                        f"{theirs}: convert the actions or choose a policy made for this environment"
                    )
        if len(self.components) != len(other.components):
            raise SpecMismatchError(
                f"{mine} has {self.size} action entries and {theirs} has {other.size}: "
                "choose a policy made for this environment"
            )


@dataclass(frozen=True)
class PolicySpec:
    """Sizes and conventions of a frozen policy.

    Attributes:
        name: of the policy, e.g. "tiny".
        horizon: chunk length H in control steps.
        feature_size: D of the memory feature z.
        key_size: K of the retrieval key.
        context_size: C of the conditioning vector.
        control_hz: control rate in Hz.
        cameras: names of the images that the policy reads.
        image_size: height and width of these images in pixels; the smallest side where they differ.
        proprioception_size: P.
        action: meaning of the action entries.
        normaliser: hash of the constants that map raw to normalised proprioception and actions.
        image_sizes: height and width of each camera's image [pixels], in their order; empty where all are image_size.
        state: what proprioception means.
        reads_instruction: whether a sentence changes what the policy does.
    """

    name: str
    horizon: int
    feature_size: int
    key_size: int
    context_size: int
    control_hz: float
    cameras: tuple[str, ...]
    image_size: int
    proprioception_size: int
    action: ActionSpec
    normaliser: str
    image_sizes: tuple[tuple[int, int], ...] = ()
    state: StateForm = ""
    reads_instruction: bool = True

    def size_of(self, camera: str) -> tuple[int, int]:
        """Height and width of a camera's image [pixels]. Raises ValueError for a camera that is not read."""
        at = self.cameras.index(camera)
        return self.image_sizes[at] if self.image_sizes else (self.image_size, self.image_size)

    def computed(self) -> dict[str, Any]:
        """What the policy computes with, by name: what is hashed, stored beside weights and compared with them."""
        body = asdict(self)
        del body["state"]  # a word about the robot: no number of the policy changes by it
        if not body.pop("reads_instruction"):
            body["context_size"] = 0  # what was made before a context could enter such a policy still fits
        if not self.image_sizes:
            del body["image_sizes"]  # what was made before there were other sizes still fits
        return body

    @property
    def fingerprint(self) -> str:
        """Hash of what the policy computes with: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.computed(), sort_keys=True).encode()).hexdigest()[:16]


OSC_POSE = ActionSpec(
    (
        ActionComponent("translation", 3, "xyz", "delta", "base", "0.05 m"),
        ActionComponent("rotation", 3, "axis_angle", "delta", "base", "0.5 rad"),
        ActionComponent("gripper", 1, "gripper", "absolute", "none", "-1 open, +1 closed"),
    )
)
"""robosuite's and LIBERO's OSC_POSE controller at its default limits."""

SO101 = ActionSpec(
    (
        ActionComponent("joints", 5, "joint", "absolute", "none", "1 deg", -180.0, 180.0),
        ActionComponent("gripper", 1, "joint", "absolute", "none", "1 % open", 0.0, 100.0),
    )
)
"""LeRobot's SO-100 and SO-101: shoulder pan and lift, elbow, wrist flex and roll in degrees, the gripper in percent."""

BI_SO101 = ActionSpec(
    tuple(
        replace(component, name=f"{side}_{component.name}")
        for side in ("left", "right")
        for component in SO101.components
    )
)
"""LeRobot's pair of SO-100 or SO-101 arms (bi_so_follower): the left arm's entries, then the right arm's."""
