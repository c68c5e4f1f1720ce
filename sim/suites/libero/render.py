"""Cameras of LIBERO's scenes. `faithful` draws what the benchmark's own renderer draws, upright; `fast` leaves out
shadows, reflections and multisampling, and draws fine meshes coarsely.

In software, the time of a picture goes into faces: a scene has 0.4 to 1 million, most of them smaller than a pixel.
"""

import atexit
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from vlamem.sim.gl import choose
from vlamem.sim.suites.protocol import RenderProfile

if TYPE_CHECKING:
    import mujoco

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""Name in an observation, and in the MuJoCo model."""
_FINE_FACES = 1000
"""Meshes with fewer faces are drawn as they are."""
_CELLS = 36
"""A fine mesh is drawn with vertices merged in a grid of so many cells along its longest side."""


def coarse_faces(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], cells: int = _CELLS
) -> tuple[Int[np.ndarray, "k 3"], Int[np.ndarray, "k"]]:
    """The faces that stay when vertices in one grid cell that face the same way become one, and their indices.

    Such a vertex is the one of them nearest to their mean, so that normals and textures stay valid. Both sides of a
    thin wall stay apart, since they face different ways.
    """
    low = vertices.min(0)
    cell = float((vertices.max(0) - low).max()) / cells
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = np.stack(
        [np.bincount(faces.reshape(-1), np.repeat(across[:, i], 3), len(vertices)) for i in range(3)], axis=1
    )
    main = np.abs(facing).argmax(1)
    side = 2 * main + (facing[np.arange(len(facing)), main] > 0)
    keys = np.column_stack([np.floor((vertices - low) / max(cell, 1e-9)).astype(np.int64), side])
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    count = np.bincount(group)
    mean = np.stack([np.bincount(group, vertices[:, i]) / count for i in range(3)], axis=1)
    away = np.linalg.norm(vertices - mean[group], axis=1)
    order = np.lexsort((away, group))
    first = order[np.searchsorted(group[order], np.arange(len(count)))]
    merged = first[group[faces]]
    a, b, c = merged.T
    turned = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    kept = np.flatnonzero((a != b) & (b != c) & (a != c) & ((turned * across).sum(1) > 0))
    _, unique = np.unique(np.sort(merged[kept], axis=1), axis=0, return_index=True)
    kept = kept[np.sort(unique)]
    return merged[kept], kept


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
