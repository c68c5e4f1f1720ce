"""A suite without physics for a simulated arm: every tenth step of an endless episode is one worth writing."""

from typing import Any

import numpy as np

from vlamem.core.spec import OSC_POSE


class PulsingArm:
    """20 Hz; proprioception[0] is 1 at steps 4, 14, 24, ..., and proprioception[1] is what to add to a sum."""

    action_spec = OSC_POSE
    control_hz = 20.0
    render_on_step = True

    def reset(self, *, options: dict[str, Any]) -> Any:
        self.now = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.now += 1
        return self.observe(), 0.0, False, False, {"success": False}

    def observe(self) -> dict[str, Any]:
        body = np.zeros(8, np.float32)
        body[:2] = self.now % 10 == 4, 1.0
        return {"front": np.zeros((8, 8, 3), np.uint8), "proprioception": body, "instruction": "touch it"}

    def close(self) -> None: ...


class PulsingSuite:
    """One task, `pulses`."""

    def make(self, task: str, *, image_size: int) -> PulsingArm:
        return PulsingArm()


SUITE = PulsingSuite()
