"""One task of a gymnasium environment, as the rollout uses it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import integer_seed
from vlamem.core.spec import ActionSpec
from vlamem.sim.suites.gym.view import GymSuiteError, GymView
from vlamem.sim.suites.parameters import reset_options
from vlamem.sim.suites.protocol import Cue, NoExpertError, TaskInfo

SPLITS = ("test", "train")
_TOLERANCE = 1e-6
Acting = Callable[[Any], Any]
"""From an environment to an action."""


def episode_seed(task: str, split: str, episode: int) -> int:
    """The seed of an initial state: the splits of a task have none in common but by chance (32 bits)."""
    return integer_seed(0, "gym", task, split, episode)


@dataclass(frozen=True)
class Course:
    """How episodes of an environment begin, go on and end.

    Attributes:
        action: meaning of the action entries.
        seed_of: from task, split and number of an initial state to the seed of the environment's reset.
        reset_options: of every reset.
        ends_at_success: whether the first control step that reports success ends the episode.
        cue: what a memory task hides at this moment.
    """

    action: ActionSpec
    seed_of: Callable[[str, str, int], int] = episode_seed
    reset_options: Mapping[str, Any] | None = None
    ends_at_success: bool = True
    cue: Callable[[Any], Cue | None] | None = None


class GymSuiteEnv:
    """A SuiteEnv around a gymnasium environment.

    Observations have the images of the cameras, as large as the environment draws them, `proprioception` and
    `instruction`. Initial state i of a split is what the environment makes of the seed that belongs to it. An action is
    brought back to the range of the action spec. An episode ends where the environment ends it, at success, and after
    `info.max_steps` control steps.
    """

    def __init__(
        self, env: Any, info: TaskInfo, view: GymView, course: Course, expert: Acting | None, control_hz: float | None
    ) -> None:
        """Raises GymSuiteError for an environment whose actions are not those of the spec, or without a rate."""
        self.env, self.info, self.action_spec = env, info, course.action
        self.render_on_step = True
        self._view, self._course, self._expert = view, course, expert
        self.control_hz = _rate(env, control_hz)
        self._low, self._high = _range(env, course.action)
        self._seen: Any = None
        self._info: Mapping[str, Any] = {}
        self._steps = 0

    @property
    def instruction(self) -> str:
        """The sentence of this moment."""
        return self._view.sentence(self.env, self._seen, self._info)

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode. Raises ValueError for an unknown option, split or wording."""
        episode, split, wording = reset_options(options)
        if episode is None:
            raise ValueError("no episode: expected options={'episode': 0} or another number")
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: a suite from gymnasium has {' and '.join(map(repr, SPLITS))}")
        if wording != "training":
            raise ValueError(f"wording {wording!r}: a suite from gymnasium has one wording, use 'training'")
        seed = int(self._course.seed_of(self.info.name, split, episode))
        own = self._course.reset_options
        # a copy: gymnasium empties the dictionary that it is given
        self._seen, self._info = self.env.reset(seed=seed, **({} if own is None else {"options": dict(own)}))
        self._steps = 0
        return self._observation(self.render_on_step), dict(self._info)

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step. Raises ValueError for an action of another size or one that is not finite."""
        given = np.asarray(action, np.float64)
        if given.shape != self._low.shape or not np.isfinite(given).all():
            raise ValueError(f"action {action!r} must be {self._low.size} finite numbers")
        command = np.clip(given, self._low, self._high).astype(self.env.action_space.dtype)
        self._seen, reward, terminated, truncated, self._info = self.env.step(command)
        self._steps += 1
        truncated = bool(truncated) or self._steps >= self.info.max_steps
        success = self._view.succeeded(self._info, bool(terminated) or truncated)
        ended = bool(terminated) or (success and self._course.ends_at_success)
        told = {**self._info, "success": success}
        return self._observation(self.render_on_step), float(reward), ended, truncated, told

    def observe(self) -> dict[str, Any]:
        """The whole observation of this moment, images included."""
        return self._observation(True)

    def expert_action(self) -> Float[np.ndarray, "A"]:
        """The scripted expert's action. Raises NoExpertError where there is none."""
        if self._expert is None:
            raise NoExpertError(f"task '{self.info.name}' has no scripted expert: give suite_from_gym expert=")
        action = np.asarray(self._expert(self.env), np.float32)
        if action.shape != self._low.shape:
            raise GymSuiteError(f"the expert's action is {list(action.shape)}: expected {list(self._low.shape)}")
        return action

    def cue(self) -> Cue | None:
        """What the task hides; None where the suite was not told."""
        return None if self._course.cue is None else self._course.cue(self.env)

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _observation(self, images: bool) -> dict[str, Any]:
        return {
            **(self._view.images(self.env, self._seen) if images else {}),
            "proprioception": self._view.state(self._seen),
            "instruction": self.instruction,
        }


def _rate(env: Any, declared: float | None) -> float:
    """Control steps a second: as declared, else as the environment's metadata say."""
    rate = declared if declared is not None else (getattr(env, "metadata", None) or {}).get("render_fps")
    if rate is None:
        raise GymSuiteError("the environment's metadata have no render_fps: give suite_from_gym control_hz=")
    if not 0 < float(rate) < math.inf:
        raise GymSuiteError(f"{rate!r} control steps a second: expected a number above 0")
    return float(rate)


def _range(env: Any, action: ActionSpec) -> tuple[Float[np.ndarray, "A"], Float[np.ndarray, "A"]]:
    """Lowest and highest command by the action spec, which the environment's Box must hold."""
    space = env.action_space
    if not hasattr(space, "low") or len(space.shape) != 1:
        raise GymSuiteError(f"the environment's actions are {space}: expected a Box of one axis")
    if space.shape != (action.size,):
        parts = ", ".join(f"{c.name} {c.size}" for c in action.components)
        raise GymSuiteError(
            f"the environment takes {space.shape[0]} action entries and the spec declares {action.size} ({parts})"
        )
    low, high = np.array(action.low, np.float64), np.array(action.high, np.float64)
    outside = np.flatnonzero((low < space.low - _TOLERANCE) | (high > space.high + _TOLERANCE))
    if outside.size:
        i = int(outside[0])
        raise GymSuiteError(
            f"entry {i} of the action spec is from {low[i]:g} to {high[i]:g} and the environment takes "
            f"{space.low[i]:g} to {space.high[i]:g}: declare a range within it"
        )
    return low, high
