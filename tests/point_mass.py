"""A small physical suite for tests of the rollout: a point in the plane is pushed to a mark that it sees."""

import os
import time
from typing import Any

import gymnasium
import numpy as np

from vlamem.core.observation import Encoding, Observation
from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE, ActionComponent, ActionSpec, PolicySpec
from vlamem.sim.suites.protocol import Cue, TaskInfo

SIZE = 16


class PointMass(gymnasium.Env):  # type: ignore[type-arg]
    """A damped point of mass 1; 20 Hz; succeeds within 0.1 of the mark, fails after 40 steps."""

    action_spec = OSC_POSE
    control_hz = 20.0

    def __init__(self, task: str, image_size: int, guessing: bool, delay: int) -> None:
        self.task, self.size, self.guessing, self.delay = task, image_size, guessing, delay
        self.render_on_step = True
        self.renders = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        assert options is not None
        self.episode = options["episode"]
        rng = stream(0, self.task, options["split"], self.episode)
        self.place, self.speed, self.mark = rng.uniform(-1, 1, 2), np.zeros(2), rng.uniform(-1, 1, 2)
        self.now = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self._break()
        self.now += 1
        self.speed = 0.5 * self.speed + 0.2 * np.clip(np.asarray(action[:2], float), -1, 1)
        self.place = np.clip(self.place + self.speed, -1, 1)
        success = self.now >= 3 and bool(np.linalg.norm(self.place - self.mark) < 0.1)
        return self._observation(), float(success), success, self.now >= 40, {"success": success}

    def _break(self) -> None:
        if self.now == 2 and self.episode == 1:
            if self.task == "raises":
                raise RuntimeError("mj_step: the solver diverged")
            if self.task == "hangs":
                time.sleep(600)
            if self.task == "dies":
                os._exit(7)
        if self.task == "slow":
            time.sleep(0.05)

    def observe(self) -> dict[str, Any]:
        return self._observation(True)

    def _observation(self, images: bool | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "proprioception": np.array([*self.place, *self.speed], np.float32),
            "instruction": self.instruction,
        }
        if images is None:
            images = self.render_on_step
        if images:
            self.renders += 1
            image = np.zeros((self.size, self.size, 3), np.uint8)
            at = np.clip((self.mark + 1) / 2 * self.size, 0, self.size - 1).astype(int)
            image[at[0], at[1]] = 255
            found["top"] = image
        return found

    @property
    def instruction(self) -> str:
        return "go to the mark"

    def cue(self) -> Cue | None:
        return None

    def expert_action(self) -> Any:
        action = np.zeros(7, np.float32)
        mark = np.zeros(2) if self.guessing else self.mark
        action[:2] = np.clip(3 * (mark - self.place) - self.speed, -1, 1)
        return action


class PointSuite:
    """Tasks `near` and `far` are skills, `hidden` a memory task; others break in their own way in episode 1."""

    name = "points"

    def __init__(self, *tasks: TaskInfo) -> None:
        self.tasks = {task.name: task for task in tasks}

    def make(
        self, task: str, *, image_size: int = SIZE, render: str = "fast", guessing: bool = False, delay: int = 0
    ) -> PointMass:
        return PointMass(task, image_size, guessing, delay)


SUITE = PointSuite(
    TaskInfo("near", "skill", "", 0.1, 40, ("go to the mark",)),
    TaskInfo("far", "skill", "", 0.1, 40, ("go to the mark",)),
    TaskInfo("hidden", "memory", "where the mark was", 0.1, 40),
    TaskInfo("hidden_told", "oracle", "", 0.1, 40),
)
BREAKING = PointSuite(*(TaskInfo(name, "skill", "", 0.1, 40) for name in ("near", "raises", "hangs", "dies", "slow")))
SPEC = PolicySpec("points", 8, 2, 2, 2, 20.0, ("top",), SIZE, 4, OSC_POSE, "none")


class PointPolicy:
    """Pushes towards the mark that it sees, with noise."""

    history = 1
    lowest_start = 0.2

    def __init__(self, spec: PolicySpec = SPEC) -> None:
        self.spec = spec

    def encode(self, obs: Observation) -> Encoding:
        seen = obs.images["top"][..., 0].reshape(len(obs.instruction), -1).argmax(axis=1)
        mark = (np.stack([seen // SIZE, seen % SIZE], 1) + 0.5) / SIZE * 2 - 1
        direction = 2 * (mark - obs.proprioception[:, :2])
        return Encoding(direction.astype(np.float32), direction.astype(np.float32), direction)

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        chunk = 0.8 * np.asarray(noise, np.float32)
        chunk[..., :2] += encoding.z[:, None]
        return chunk

    def context_of(self, instruction: list[str]) -> Any:
        return np.zeros((len(instruction), 2), np.float32)


def policy() -> PointPolicy:
    """The policy that fits the suite."""
    return PointPolicy()


def policy_of_another_robot() -> PointPolicy:
    """Its rotation is a quaternion's vector part."""
    rotation = ActionComponent("rotation", 3, "xyz", "delta", "base", "0.5 rad")
    action = ActionSpec((OSC_POSE.components[0], rotation, OSC_POSE.components[2]))
    return PointPolicy(PolicySpec("other", 8, 2, 2, 2, 20.0, ("top",), SIZE, 4, action, "none"))


def policy_with_two_cameras() -> PointPolicy:
    """It also wants a wrist camera."""
    return PointPolicy(PolicySpec("two_eyes", 8, 2, 2, 2, 20.0, ("top", "wrist"), SIZE, 4, OSC_POSE, "none"))
