"""Cameras. `fast` leaves out shadows, reflections and multisampling; `faithful` draws everything."""

import atexit
from typing import Literal

import mujoco
import numpy as np
from jaxtyping import UInt8

from vlamem.sim.gl import choose

Profile = Literal["fast", "faithful"]
CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""Name in an observation, and in the MuJoCo model."""


class Cameras:
    """Renders a model's cameras into upright RGB images of `size` x `size` pixels."""

    def __init__(self, model: mujoco.MjModel, size: int, profile: Profile = "fast") -> None:
        if profile not in ("fast", "faithful"):
            raise ValueError(f"render profile {profile!r} is unknown: choose 'fast' or 'faithful'")
        self._fast = profile == "fast"
        if self._fast:
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except Exception:
            choose()  # says which backend is broken and the mend, if that is the reason
            raise
        atexit.register(self.close)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[1] = 1
        self._option.sitegroup[:] = 0

    def __call__(self, data: mujoco.MjData, camera: str) -> UInt8[np.ndarray, "size size 3"]:
        """One image of the camera called `camera` in observations."""
        self._renderer.update_scene(data, CAMERAS[camera], self._option)
        if self._fast:
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
        image: UInt8[np.ndarray, "size size 3"] = self._renderer.render()
        return image.copy()

    def close(self) -> None:
        """Frees the GL context."""
        atexit.unregister(self.close)
        self._renderer.close()
