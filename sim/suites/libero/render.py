"""Cameras of LIBERO's scenes. `faithful` draws what the benchmark's own renderer draws, upright; `fast` leaves out
shadows, reflections and multisampling, and draws fine meshes coarsely.

In software, the time of a picture goes into faces: a scene has 0.4 to 1 million, most of them smaller than a pixel.
"""

import atexit
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from vlamem.sim.gl import choose
from vlamem.sim.suites.coarse_faces import coarse_faces
from vlamem.sim.suites.protocol import RenderProfile

if TYPE_CHECKING:
    import mujoco

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""Name in an observation, and in the MuJoCo model."""
_FINE_FACES = 1000
"""Meshes with fewer faces are drawn as they are."""


def draw_coarsely(model: "mujoco.MjModel") -> tuple[int, int]:
    """Thins what is drawn of fine meshes, in place; physics does not read it. Returns faces before and after."""
    before = int(model.mesh_facenum.sum())
    for mesh in range(model.nmesh):
        start, number = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        if number < _FINE_FACES:
            continue
        corner, vertices = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        rows = slice(start, start + number)
        faces = model.mesh_face[rows].copy()
        merged, kept = coarse_faces(model.mesh_vert[corner : corner + vertices].astype(np.float64), faces)
        if not len(kept):
            continue
        first = slice(start, start + len(kept))
        moved = merged != faces[kept]
        for name in ("mesh_facenormal", "mesh_facetexcoord"):
            column = getattr(model, name)
            old = column[rows].copy()
            index_of = np.zeros(vertices, np.int64)
            index_of[faces.reshape(-1)] = old.reshape(-1)
            column[first] = np.where(moved, index_of[merged], old[kept])
        model.mesh_face[first] = merged
        model.mesh_facenum[mesh] = len(kept)
    return before, int(model.mesh_facenum.sum())


class Cameras:
    """Renders a model's cameras into upright RGB images of `size` x `size` pixels."""

    def __init__(self, model: "mujoco.MjModel", size: int, profile: RenderProfile) -> None:
        """`fast` changes what is drawn of `model` for good. Raises NoGLError when nothing can render."""
        import mujoco

        self._flags: tuple[int, ...] = ()
        if profile == "fast":
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
            draw_coarsely(model)
            flags = mujoco.mjtRndFlag
            self._flags = (int(flags.mjRND_SHADOW), int(flags.mjRND_REFLECTION))
        try:
            self._renderer: Any = mujoco.Renderer(model, size, size)
        except Exception:
            choose()  # says which backend is broken and the mend, if that is the reason
            raise
        atexit.register(self.close)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0

    def __call__(self, data: "mujoco.MjData", camera: str) -> UInt8[np.ndarray, "size size 3"]:
        """One image of the camera called `camera` in observations."""
        self._renderer.update_scene(data, CAMERAS[camera], self._option)
        for flag in self._flags:
            self._renderer.scene.flags[flag] = 0
        image: UInt8[np.ndarray, "size size 3"] = self._renderer.render()
        return image.copy()

    def close(self) -> None:
        """Frees the GL context."""
        atexit.unregister(self.close)
        self._renderer.close()
