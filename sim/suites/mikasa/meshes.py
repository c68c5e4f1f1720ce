"""Draws the wrist camera's housing coarsely: it has three quarters of a scene's triangles, most below a pixel."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt32

from vlamem.sim.suites.coarse_faces import coarse_faces

_LINK = "camera_link"
_FINEST = 2**20
"""Steps along its longest side within which two corners are one place."""
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
            for i, part in enumerate(shape.parts):
                mesh = _coarse(str(shape.filename), i, part)
                before, after = before + len(part.get_triangles()), after + len(mesh.faces)
                coarse = sapien.render.RenderShapeTriangleMesh(
                    (mesh.vertices * shape.scale).astype(np.float32),
                    mesh.faces,
                    mesh.normals,
                    np.zeros((len(mesh.vertices), 2), np.float32),
                    part.get_material(),
                )
                coarse.local_pose = shape.local_pose
                new.attach(coarse)
        entity.remove_component(old)
        entity.add_component(new)
    return before, after


class _Mesh(NamedTuple):
    vertices: Float[np.ndarray, "n 3"]
    faces: UInt32[np.ndarray, "k 3"]
    normals: Float[np.ndarray, "n 3"]


_MADE: dict[tuple[str, int], _Mesh] = {}
"""Coarse meshes by file and number of their part: each takes a second to make, and every scene has the same."""


def _coarse(file: str, number: int, part: Any) -> _Mesh:
    if (file, number) not in _MADE:
        vertices = np.asarray(part.get_vertices(), np.float64)
        merged = merged_faces(vertices, np.asarray(part.get_triangles(), np.int64))
        used, faces = np.unique(merged, return_inverse=True)
        normals = np.asarray(part.get_vertex_normal(), np.float32)[used]
        _MADE[file, number] = _Mesh(vertices[used], faces.reshape(-1, 3).astype(np.uint32), normals)
    return _MADE[file, number]


def merged_faces(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "k 3"]:
    """Faces with vertices merged in a grid; corners at one place, which the file has once a triangle, are one first."""
    steps = np.round((vertices - vertices.min(0)) / (np.ptp(vertices, axis=0).max() + 1e-12) * _FINEST).astype(np.int64)
    keys = (steps[:, 0] * (_FINEST + 1) + steps[:, 1]) * (_FINEST + 1) + steps[:, 2]
    _, first, joined = np.unique(keys, return_index=True, return_inverse=True)
    merged, _ = coarse_faces(vertices[first], joined[faces], _CELLS)
    found: Int[np.ndarray, "k 3"] = first[merged]
    return found
