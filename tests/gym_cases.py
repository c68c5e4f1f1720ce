"""A gymnasium environment that gives its images and infos in every form, and a suite of it."""

from typing import Any

import gymnasium
import numpy as np

import vlamem
from vlamem.core.spec import ActionComponent, ActionSpec
from vlamem.sim.suites.gym import GymSuite

PLANE = ActionSpec((ActionComponent("translation", 2, "xyz", "delta", "base", "1 step"),))
START = {"episode": 0, "split": "test", "wording": "training"}


class Dot(gymnasium.Env):  # type: ignore[type-arg]
    """Walks along a line; done beyond 3. Draws into one array again and again, as simulators do."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012  # gymnasium declares it
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation_space = gymnasium.spaces.Dict({})

    def __init__(self, form: Any = None, silent: bool = False, key: str = "is_success", longest: int = 99) -> None:
        self.form, self.silent, self.key, self.longest = form, silent, key, longest
        self.picture = np.zeros((4, 6, 3), np.uint8)
        self.drawn = 0
        self.options: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seed, self.options, self.now = seed, options, 0
        self.at = self.np_random.uniform(0, 0.5)
        return self._observation(), {"sentence": "walk"}

    def step(self, action: Any) -> Any:
        assert action.dtype == np.float32
        self.at, self.now = self.at + float(action[0]), self.now + 1
        done = self.at > 3
        info = {} if self.silent and not done else {self.key: np.bool_(done)}
        return self._observation(), 0.0, False, self.now >= self.longest, info | {"sentence": "walk on"}

    def render(self) -> Any:
        self.drawn += 1
        self.picture[:] = int(10 * abs(self.at))
        return self.picture

    def _observation(self) -> dict[str, Any]:
        self.picture[:] = int(10 * abs(self.at))
        image = self.picture if self.form is None else self.form(self.picture)
        body = {"joints": np.array([[self.at, 1.0]]), "opening": 0.5}
        return {"pixels": {"top": image}, "body": body, "text": "stand", "nothing": np.array([np.nan])}


def made(make_env: Any = Dot, **changed: Any) -> GymSuite:
    """A suite of the walking dot."""
    given: dict[str, Any] = {
        "name": "dots", "cameras": {"pixels/top": "top"}, "proprioception": ["body/opening", "body/joints"],
        "instruction": "walk", "action": PLANE, "horizon": 8,
    }  # fmt: skip
    return vlamem.suite_from_gym(make_env, **(given | changed))
