"""A tabletop task in the form that lerobot-eval expects of an environment."""

from typing import Any

import gymnasium
import numpy as np
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from numpy.typing import NDArray

from vlamem.sim.suites.tabletop import SUITE


class TabletopForLeRobot(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """Pixels and agent_pos in place of the suite's own observation; the seed of a reset is the episode's number.

    Once its episode has ended it stands still until the next rollout begins: lerobot-eval runs a batch until its last
    row is done, and takes no notice of the others meanwhile.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  # gymnasium declares it

    def __init__(self, task: str, *, size: int, render: str, split: str, wording: str, max_steps: int | None) -> None:
        self._env = SUITE.make(task, image_size=size, render=render)  # type: ignore[arg-type]  # checked there
        self._options = {"split": split, "wording": wording}
        self.task = task
        self._max_episode_steps = max_steps or SUITE.tasks[task].max_steps
        self._steps = 0
        self._last: dict[str, Any] = {}
        self._ended: tuple[bool, bool, dict[str, Any]] | None = None
        self.render_mode = "rgb_array"
        self.action_space = self._env.action_space
        spaces = self._env.observation_space.spaces
        self.cameras = self._env.cameras
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Dict({name: spaces[name] for name in self.cameras}),
                "agent_pos": spaces["proprioception"],
            }
        )

    @property
    def task_description(self) -> str:
        """The sentence of this moment."""
        return self._env.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts episode `seed`; a reset that no new rollout asked for leaves an ended episode as it is."""
        if self._ended is not None and not (options or {}).get(NEW_ROLLOUT_OPTION):
            return self._last, {}
        chosen = {} if seed is None else {"episode": seed}
        seen, _ = self._env.reset(options=self._options | chosen)
        self._steps, self._ended = 0, None
        self._last = self._form(seen)
        return self._last, {"is_success": False}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step; an ended episode repeats its end, without a reward of its own."""
        if self._ended is None:
            seen, reward, terminated, truncated, info = self._env.step(action)
            self._steps += 1
            truncated = truncated or self._steps >= self._max_episode_steps
            self._last = self._form(seen)
            told = {"is_success": bool(info["success"])}
            if terminated or truncated:
                self._ended = (terminated, truncated, told)
            return self._last, reward, terminated, truncated, told
        # lerobot-eval adds the reward of the step behind an episode's end to its sum
        return self._last, 0.0, *self._ended

    def render(self) -> Any:
        """The agentview image."""
        return self._env.render()

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()

    def _form(self, seen: dict[str, Any]) -> dict[str, Any]:
        return {"pixels": {name: seen[name] for name in self.cameras}, "agent_pos": seen["proprioception"]}
