"""When two states are alike: one Euclidean space for what the policy sees and where the robot is."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from vlamem.memory.success.experience.layout import Layout


@dataclass(frozen=True)
class Metric:
    """Similarity s = 1 - |x - x'|^2 / 2 of x = [key', sqrt(weight) * proprioception / scale].

    With keys alone that is the cosine of the angle between them. Proprioception keeps states apart that look alike.

    Attributes:
        layout: sizes, scales of the proprioception and where its quaternion is.
        weight: of the proprioception.
        centre: [K], taken from keys before they are brought to unit length again; zeros leave keys as they are. Keys
            of one policy often lie in a narrow cone, and the centre is what they have in common.
    """

    layout: Layout
    weight: float = 1.0
    centre: Float[np.ndarray, "K"] | None = field(default=None)

    @property
    def size(self) -> int:
        """Of x."""
        return self.layout.key_size + self.layout.proprioception_size

    @cached_property
    def _scale(self) -> Float[np.ndarray, "P"]:
        return np.asarray(np.sqrt(self.weight) / np.asarray(self.layout.proprioception_scale))

    def embed(
        self, keys: Float[np.ndarray, "N K"], proprioception: Float[np.ndarray, "N P"]
    ) -> Float[np.ndarray, "N K+P"]:
        """x of N states, float32."""
        k = np.asarray(keys, np.float64)
        if self.centre is not None:
            k = k - self.centre
            k = k / np.maximum(np.linalg.norm(k, axis=1, keepdims=True), 1e-6)
        p = np.array(proprioception, np.float64)
        at = self.layout.quaternion
        if at is not None:
            q = p[:, at : at + 4]
            leading = q[np.arange(len(q)), np.abs(q).argmax(axis=1)]
            q[leading < 0] *= -1.0
        p *= self._scale
        return np.concatenate([k, p], axis=1).astype(np.float32)


def similarity(squared_distance: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """s, at most 1, of squared distances in the metric's space."""
    return 1.0 - 0.5 * np.asarray(squared_distance)
