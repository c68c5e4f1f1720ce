"""Coarser meshes for drawing: vertices that lie close together and face the same way become one."""

import numpy as np
from jaxtyping import Float, Int

CELLS = 36
"""A fine mesh is drawn with vertices merged in a grid of so many cells along its longest side."""


def coarse_faces(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], cells: int = CELLS
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
