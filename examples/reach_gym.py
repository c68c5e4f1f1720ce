"""A gymnasium environment as a suite: a point in the plane is sent to the red or to the blue mark of a picture.

    PYTHONPATH=. vlamem rollout --suite examples.reach_gym:SUITE --tasks all --policy expert --out runs/reach

`vlamem.check_suite(SUITE)` checks it. The environment knows nothing of vlamem; all that does is `suite_from_gym`.
"""

from typing import Any

import gymnasium
import numpy as np

import vlamem
from vlamem.core.spec import ActionComponent, ActionSpec

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
SIZE, NEAR, STRIDE = 64, 0.1, 0.1
"""Pixels of a side; how near is there, and how far a command of 1 moves, in a square from -1 to 1."""


class ReachEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A point that moves by a tenth of each command, two marks, and one of them to reach."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # gymnasium declares it
    render_mode = "rgb_array"

    def __init__(self, task: str) -> None:
        self.colour = task
        picture = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        place = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.observation_space = gymnasium.spaces.Dict({"pixels": picture, "agent_pos": place})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.2, 0.2, 2)
        side = self.np_random.choice([-1.0, 1.0])
        self.marks = {
            colour: np.array([x, self.np_random.uniform(-0.9, 0.9)])
            for colour, x in zip(COLOURS, (0.8 * side, -0.8 * side), strict=True)
        }
        return self._observation(), {}

    def step(self, action: np.ndarray) -> Any:
        self.place = np.clip(self.place + STRIDE * action, -1, 1)
        reached = bool(np.linalg.norm(self.place - self.marks[self.colour]) < NEAR)
        return self._observation(), float(reached), reached, False, {"is_success": reached}

    def render(self) -> Any:
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        for place, colour in (*((self.marks[c], rgb) for c, rgb in COLOURS.items()), (self.place, (255, 255, 255))):
            column, row = np.rint((place + 1) / 2 * (SIZE - 5)).astype(int)
            picture[row : row + 5, column : column + 5] = colour
        return picture

    def _observation(self) -> dict[str, Any]:
        return {"pixels": self.render(), "agent_pos": self.place.copy()}


def expert(env: ReachEnv) -> np.ndarray:
    """Straight to the mark."""
    return np.clip((env.marks[env.colour] - env.place) / STRIDE, -1, 1)


SUITE = vlamem.suite_from_gym(
    ReachEnv,  # called with the task, since it takes an argument of this name
    name="reach",
    tasks=tuple(COLOURS),
    cameras={"pixels": "top"},
    proprioception=["agent_pos"],
    instruction={colour: f"go to the {colour} mark" for colour in COLOURS},
    action=ActionSpec((ActionComponent("translation", 2, "xyz", "delta", "base", "0.1 of the half side"),)),
    horizon=40,
    expert=expert,
)
