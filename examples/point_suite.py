"""A suite of one's own: a point in the plane goes to one of two sides, and only its first frames show to which.

    PYTHONPATH=. vlamem rollout --suite examples.point_suite:SUITE --tasks all --policy expert --out runs/points

`vlamem.testing.check_suite` checks it, and one line gives it a name:

    vlamem.sim.suites.registry.register("points", "examples.point_suite:SUITE")
"""

from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE
from vlamem.sim.suites.protocol import Cue, Recorder, SuiteError, TaskInfo

SENTENCES = {0: "go to the side that the light showed", -1: "go to the left", 1: "go to the right"}
SHOWN, LONGEST, DISTANCE = 5, 60, 0.8
"""Control steps for which the light is on, and after which an episode fails; how far away a side is [m]."""


class PointEnv:
    """One task: a point that moves by a tenth of each translation command, and must reach its side after the cue."""

    action_spec, control_hz, render_on_step = OSC_POSE, 20.0, True

    def __init__(self, oracle: bool, image_size: int, guessing: bool) -> None:
        self.oracle, self.size, self.guessing = oracle, image_size, guessing

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        draw = stream(0, "point", options["split"], options["episode"])
        self.now, self.place = 0, draw.uniform(-0.1, 0.1, 2)
        self.side, self.guess = (int(x) for x in draw.choice((-1, 1), 2))
        return self._observation(self.render_on_step), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.now += 1
        self.place = np.clip(self.place + 0.1 * np.clip(action[:2], -1, 1) * (self.now > SHOWN), -1, 1)
        reached = abs(self.place[1]) >= DISTANCE
        success = bool(reached and np.sign(self.place[1]) == self.side)
        ended = bool(reached or self.now >= LONGEST)
        return self._observation(self.render_on_step), float(success), ended, False, {"success": success}

    def observe(self) -> dict[str, Any]:
        return self._observation(True)

    @property
    def instruction(self) -> str:
        return SENTENCES[self.side if self.oracle else 0]

    def cue(self) -> Cue:
        answer = None if self.oracle else SENTENCES[self.side]
        return Cue(self.now > 0, self.now >= SHOWN, answer, int(self.now >= SHOWN))

    def expert_action(self) -> Any:
        action = np.zeros(7, np.float32)
        action[1] = self.guess if self.guessing else self.side
        return action

    def close(self) -> None:
        """Nothing to free."""

    def _observation(self, images: bool) -> dict[str, Any]:
        seen: dict[str, Any] = {"proprioception": self.place.astype(np.float32), "instruction": self.instruction}
        if images:
            seen["top"] = image = np.zeros((self.size, self.size, 3), np.uint8)
            x, y = ((self.place + 1) / 2 * (self.size - 1)).round().astype(int)
            image[x, y] = 255
            if self.now < SHOWN and not self.oracle:  # the light
                image[:, 0 if self.side < 0 else -1] = (0, 255, 0)
        return seen


class PointSuite:
    """A memory task and its oracle variant."""

    name, recorder = "points", Recorder(features=True)
    needs_gl = False  # its images are NumPy's
    tasks = {  # noqa: RUF012  # constant
        "side": TaskInfo("side", "memory", "which side the light showed", 0.5, LONGEST, (SENTENCES[0],)),
        "side_told": TaskInfo("side_told", "oracle", "", 0.5, LONGEST, (SENTENCES[-1], SENTENCES[1])),
    }

    def goals(self) -> tuple[tuple[str, ...], ...]:
        return tuple((sentence, sentence) for sentence in SENTENCES.values())

    def make(self, task: str, *, image_size: int = 16, render: str = "fast", guessing: bool = False) -> PointEnv:
        if task not in self.tasks:
            raise SuiteError(f"unknown task '{task}' in suite 'points': choose one of {', '.join(self.tasks)}")
        return PointEnv(task == "side_told", image_size, guessing)


SUITE = PointSuite()
