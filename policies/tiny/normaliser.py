"""Fixed constants between raw and network units: never a division by a measured, near-zero deviation."""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True)
class Normaliser:
    """Raw proprioception to network input; actions pass unchanged, they are in -1..1 already.

    Attributes:
        position_centre, position_scale: middle and half-width of the workspace [m].
        opening_scale: gripper opening that reads as 1 [m].
        label_scale: length that a position label of 1 stands for in the training losses [m].
    """

    position_centre: tuple[float, float, float] = (0.0, 0.0, 0.12)
    position_scale: float = 0.2
    opening_scale: float = 0.08
    label_scale: float = 0.1

    @property
    def digest(self) -> str:
        """Hash of the constants: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def proprioception(self, raw: Float[NDArray[np.float32], "B 8"]) -> Float[NDArray[np.float32], "B 10"]:
        """Position (3), first two columns of the rotation matrix (6), gripper opening (1), all about -1..1.

        The rotation matrix, since a quaternion and its negative are the same orientation.
        """
        position = (raw[:, :3] - np.array(self.position_centre, np.float32)) / self.position_scale
        w, x, y, z = raw[:, 3:7].T
        columns = [
            1 - 2 * (y * y + z * z),
            2 * (x * y + w * z),
            2 * (x * z - w * y),
            2 * (x * y - w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z + w * x),
        ]
        opening = raw[:, 7:8] / self.opening_scale
        return np.asarray(np.concatenate([position, np.stack(columns, 1), opening], 1), np.float32)
