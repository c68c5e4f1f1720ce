"""Fixed local shifts: what differs between the bench where a policy was trained and the place where it works.

A shift is one number along one fixed direction. It is set on an environment and stays for all its episodes; initial
states, tasks and verdicts are those of the unshifted suite.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import mujoco
import numpy as np
from jaxtyping import Float

from vlamem.core.spec import ActionSpec
from vlamem.sim.suites.protocol import Cue

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.env import TabletopEnv

ShiftKind = Literal["none", "camera", "actuator", "table", "friction", "lighting"]
KINDS: dict[str, str] = {
    "none": "nothing is shifted",
    "camera": "agentview is moved along y and up [m]",
    "actuator": "added to every translation command, along a fixed direction [action units]",
    "table": "the table is higher than the robot was set up for [m]",
    "friction": "friction of blocks, fingers and table is divided by 1 + strength",
    "lighting": "lamps and headlight are dimmed by this share, 0 to 1, and turned as far to a warm colour",
}
"""What the strength of each kind means."""
CAMERA_WAY = np.array([0.0, 0.8, 0.6])
BIAS_WAY = np.array([0.64, -0.48, 0.6])
_WARM = np.array([1.0, 0.85, 0.6])
"""Colour that white light turns to as the strength goes to 1."""
_BASE = "robot0_base"


@dataclass(frozen=True)
class Shift:
    """One local shift.

    Attributes:
        kind: a key of KINDS.
        strength: in the unit that KINDS names; 0 changes nothing.
    """

    kind: ShiftKind = "none"
    strength: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"shift '{self.kind}' is unknown: choose one of {', '.join(KINDS)}")
        if not np.isfinite(self.strength) or (self.kind == "lighting" and not 0 <= self.strength <= 1):
            raise ValueError(f"strength {self.strength} of shift '{self.kind}' is out of range: {KINDS[self.kind]}")
        if self.kind == "friction" and self.strength < 0:
            raise ValueError(f"strength {self.strength} of shift 'friction' is below 0: {KINDS['friction']}")

    @classmethod
    def parse(cls, text: str) -> "Shift":
        """A shift written as kind=strength, e.g. "camera=0.05". Raises ValueError for anything else."""
        kind, equals, strength = text.partition("=")
        try:
            return cls(kind, float(strength) if equals else 0.0)  # type: ignore[arg-type]  # checked above
        except ValueError as error:
            raise ValueError(f"shift {text!r} is not kind=strength ({error})") from error


class ShiftedEnv:
    """A tabletop environment under a local shift; a SuiteEnv.

    The simulation is lent on to other environments, so `close` puts the model back as it was.
    """

    def __init__(self, env: "TabletopEnv", shift: Shift) -> None:
        self.env = env
        self.action_spec: ActionSpec = env.action_spec
        self.control_hz = env.control_hz
        model = env.scene.model
        self._arrays = {
            "cam_pos": model.cam_pos,
            "geom_friction": model.geom_friction,
            "light_diffuse": model.light_diffuse,
            "light_ambient": model.light_ambient,
            "light_specular": model.light_specular,
        }
        head = model.vis.headlight
        self._arrays |= {f"headlight_{n}": getattr(head, n) for n in ("ambient", "diffuse", "specular")}
        self._blank = {name: array.copy() for name, array in self._arrays.items()}
        self._camera = env.scene.id("camera", "agentview")
        self._base = env.scene.id("body", _BASE)
        self.shift = shift
        self.change(shift)

    def change(self, shift: Shift) -> None:
        """Puts another shift in place of this one; takes full effect at the next `reset`."""
        self.shift = shift
        for name, blank in self._blank.items():
            self._arrays[name][:] = blank
        if shift.kind == "camera":
            self._arrays["cam_pos"][self._camera] += shift.strength * CAMERA_WAY
        elif shift.kind == "table":
            self._arrays["cam_pos"][self._camera, 2] -= shift.strength
        elif shift.kind == "friction":
            self._arrays["geom_friction"] /= 1.0 + shift.strength
        elif shift.kind == "lighting":
            for name, array in self._arrays.items():
                if "light_" in name:
                    array *= (1.0 - shift.strength) * (1.0 - shift.strength * (1.0 - _WARM))

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode of the unshifted suite under this shift; `options` as TabletopEnv takes them."""
        observation, info = self.env.reset(options=options)
        if self.shift.kind == "table":
            self._lower_robot()
            observation = self.env.observe() if self.render_on_step else observation | self._measured()
        return self._in_robot_frame(observation), info

    def step(self, action: Float[np.ndarray, "7"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step; under an actuator bias the arm does something else than its command."""
        command = np.asarray(action, np.float64)
        if self.shift.kind == "actuator":
            command = command.copy()
            command[:3] += self.shift.strength * BIAS_WAY
        observation, reward, terminated, truncated, info = self.env.step(command)
        return self._in_robot_frame(observation), reward, terminated, truncated, info

    def observe(self) -> dict[str, Any]:
        """The whole observation of this moment, images included."""
        return self._in_robot_frame(self.env.observe())

    @property
    def render_on_step(self) -> bool:
        """Whether observations come with images."""
        return self.env.render_on_step

    @render_on_step.setter
    def render_on_step(self, wanted: bool) -> None:
        self.env.render_on_step = wanted

    @property
    def instruction(self) -> str:
        """The sentence of this moment."""
        return self.env.instruction

    def cue(self) -> Cue | None:
        """What the task hides at this moment."""
        return self.env.cue()

    def expert_action(self) -> Float[np.ndarray, "7"]:
        """The scripted expert's action, with privileged state; it knows nothing of an actuator bias."""
        return self.env.expert_action()

    def close(self) -> None:
        """Puts the model back and gives the simulation on."""
        self.change(Shift())
        self.env.close()

    def _measured(self) -> dict[str, Any]:
        return {"proprioception": self.env.scene.proprioception()}

    def _in_robot_frame(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation by the robot's own kinematics, which measure from its base, not from the table."""
        if self.shift.kind != "table":
            return observation
        proprioception = observation["proprioception"].copy()
        proprioception[2] += self.shift.strength
        return observation | {"proprioception": proprioception}

    def _lower_robot(self) -> None:
        """A higher table is a lower robot: base, arm and controller goal move down; everything on the table stays."""
        scene = self.env.scene
        scene.model.body_pos[self._base, 2] -= self.shift.strength
        mujoco.mj_forward(scene.model, scene.data)
        controller = scene.robot.controller
        controller.update(force=True)
        controller.reset_goal()
