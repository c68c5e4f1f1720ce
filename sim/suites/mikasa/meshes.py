"""Draws the wrist camera's housing coarsely: it has three quarters of a scene's triangles, most below a pixel."""

from typing import Any

import numpy as np

from vlamem.sim.suites.coarse_faces import coarse_faces

_LINK = "camera_link"
_CELLS = 24
"""Cells along its longest side in which vertices become one."""


def simplify_camera(scene: Any) -> tuple[int, int]:
    """Replaces what is drawn of the wrist camera's housing; physics does not read it.

    Returns triangles before and after.
    """
    import sapien

    before = after = 0
    for link in scene.agent.robot.links_map[_LINK]._objs:
        entity = link.entity
        old = entity.find_component_by_type(sapien.render.RenderBodyComponent)
        new = sapien.render.RenderBodyComponent()
        for shape in old.render_shapes:
            for part in shape.parts:
                vertices = np.asarray(part.vertices, np.float64) * shape.scale
                faces = np.asarray(part.triangles, np.int64)
                merged, kept = _merged(vertices, faces)
                before, after = before + len(faces), after + len(kept)
                used, numbers = np.unique(merged, return_inverse=True)
                normals = np.asarray(part.vertex_normal, np.float32)[used]
                coarse = sapien.render.RenderShapeTriangleMesh(
                    vertices[used].astype(np.float32),
                    numbers.reshape(-1, 3).astype(np.uint32),
                    normals,
                    np.zeros((len(used), 2), np.float32),
                    part.material,
                )
                coarse.local_pose = shape.local_pose
                new.attach(coarse)
        entity.remove_component(old)
        entity.add_component(new)
    return before, after


def _merged(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces with vertices merged; a mesh that has each corner of each triangle by itself is joined first."""
    places, joined = np.unique(vertices.round(7), axis=0, return_inverse=True)
    merged, kept = coarse_faces(places, joined.reshape(-1)[faces], _CELLS)
    first = np.full(len(places), -1, np.int64)
    first[joined.reshape(-1)[::-1]] = np.arange(len(vertices))[::-1]
    return first[merged], kept
