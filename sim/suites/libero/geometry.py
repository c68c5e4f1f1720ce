"""Where things are in a LIBERO scene: points that fill the collision boxes of every body, in the world frame."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from vlamem.sim.suites.libero.simulation import Simulation

_FINE, _COARSE = 0.006, 0.03
"""Distance between the points that fill a box, to plan a grasp with and to find a way over things [m]."""
_MOST_A_SIDE = 24
_BOX = 6
"""MuJoCo's number for boxes, of which all that can be touched in these scenes is made."""
_NOT_THINGS = ("robot0", "gripper0", "mount0", "world", "floor", "main_table", "table", "wall", "left_eef", "right_eef")


def fill_box(half: Float[np.ndarray, "3"], step: float = _FINE) -> Float[np.ndarray, "n 3"]:
    """A grid of points that fills a box of these half sizes, its faces and corners included."""
    axes = [np.linspace(-h, h, int(np.clip(np.ceil(2 * h / step), 1, _MOST_A_SIDE)) + 1) for h in half]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


class _Cloud:
    """Points that fill boxes, and to which geom and body each belongs."""

    def __init__(self, boxes: dict[int, Float[np.ndarray, "3"]], model: Any, step: float) -> None:
        local = {geom: fill_box(half, step) for geom, half in boxes.items()}
        self.points = np.concatenate(list(local.values())) if local else np.zeros((0, 3))
        self.geom = np.repeat(list(local), [len(v) for v in local.values()]).astype(np.int64)
        self.body = model.geom_bodyid[self.geom].astype(np.int64)

    def of(self, data: Any, chosen: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "m 3"]:
        """The chosen points in the world frame."""
        geom = self.geom[chosen]
        rotation = data.geom_xmat.reshape(-1, 3, 3)[geom]
        return np.asarray(np.einsum("nij,nj->ni", rotation, self.points[chosen]) + data.geom_xpos[geom])


class Geometry:
    """Points of a scene's movable objects, fixtures and their parts. Distances are in m."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._model: Any = simulation.model
        names = [self._model.body(i).name for i in range(self._model.nbody)]
        boxes: dict[int, np.ndarray] = {}
        for geom in range(self._model.ngeom):
            solid = self._model.geom_contype[geom] or self._model.geom_conaffinity[geom]
            body = names[int(self._model.geom_bodyid[geom])]
            if self._model.geom_type[geom] == _BOX and solid and not body.startswith(_NOT_THINGS):
                boxes[geom] = np.array(self._model.geom_size[geom])
        geoms = [self._model.geom(i).name for i in range(self._model.ngeom)]
        self._fingers = [
            [i for i, name in enumerate(geoms) if name.startswith(f"gripper0_finger{side}")] for side in (1, 2)
        ]
        self._fine, self._coarse = _Cloud(boxes, self._model, _FINE), _Cloud(boxes, self._model, _COARSE)

    def root(self, name: str) -> int:
        """Body of an object or fixture of the benchmark."""
        return int(self._simulation.problem.obj_body_id[name])

    def bodies(self, root: int) -> set[int]:
        """A body and all that hang on it."""
        found = {root}
        for body in range(root + 1, self._model.nbody):
            if int(self._model.body_parentid[body]) in found:
                found.add(body)
        return found

    def pose(self, body: int) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
        """Position and rotation of a body."""
        data: Any = self._simulation.data
        return np.array(data.xpos[body]), np.array(data.xmat[body]).reshape(3, 3)

    def points(self, bodies: set[int], fine: bool = False) -> Float[np.ndarray, "n 3"]:
        """Points in the boxes of `bodies`; none for bodies without a box."""
        cloud = self._fine if fine else self._coarse
        return cloud.of(self._simulation.data, np.isin(cloud.body, list(bodies)))

    def others(self, bodies: set[int], fine: bool = False) -> Float[np.ndarray, "n 3"]:
        """Points in the boxes of everything but `bodies` and the arm."""
        cloud = self._fine if fine else self._coarse
        return cloud.of(self._simulation.data, ~np.isin(cloud.body, list(bodies)))

    def touching(self, bodies: set[int]) -> tuple[bool, bool]:
        """Whether the first and the second finger touch one of `bodies`."""
        data: Any = self._simulation.data
        if not data.ncon:
            return False, False
        pairs = np.array(data.contact.geom[: data.ncon]).reshape(-1, 2)
        theirs = np.isin(self._model.geom_bodyid[pairs], list(bodies))
        first, second = (bool((np.isin(pairs[:, ::-1], finger) & theirs).any()) for finger in self._fingers)
        return first, second


def highest_near(
    points: Float[np.ndarray, "n 3"], start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"], within: float
) -> float:
    """Height of the highest point within a distance of the line from `start` to `end` seen from above; -1 for none."""
    if not len(points):
        return -1.0
    way = end - start
    share = ((points[:, :2] - start) @ way) / max(float(way @ way), 1e-9)
    nearest = start + np.clip(share, 0.0, 1.0)[:, None] * way
    near = np.linalg.norm(points[:, :2] - nearest, axis=1) < within
    return float(points[near, 2].max()) if near.any() else -1.0
