"""A map to few dimensions that lengthens no distance: most of many vectors are ruled out by a few numbers of each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_SAMPLE = 16_384
"""Vectors that the directions are taken from."""
_BLOCK = 65_536
"""Vectors that are mapped at a time, in double precision."""
_UNIT = 2.0**-23
"""Twice the unit rounding of single precision."""
_TINY = 2.0**-126


@dataclass(frozen=True)
class Contraction:
    """T(x) = [B^T (x - c), |(I - B B^T)(x - c)|] with centre c [D] and an orthonormal basis B [D, d].

    |T(x) - T(y)| <= |x - y|: the first d entries are a projection, and by the reverse triangle inequality the last
    differs by no more than the parts beside it do. It rules out most vectors where the vectors vary in few directions.
    """

    centre: Float[np.ndarray, "D"]
    basis: Float[np.ndarray, "D d"]

    @classmethod
    def of(cls, vectors: Float[np.ndarray, "D N"], centre: Float[np.ndarray, "D"], directions: int) -> "Contraction":
        """Along the directions in which the vectors, one a column, vary most about the centre."""
        step = -(-vectors.shape[1] // _SAMPLE)
        x = vectors[:, ::step].astype(np.float64) - centre[:, None]
        x /= max(float(np.abs(x).max(initial=0.0)), 1e-300)  # so that squares stay in range
        _, found = np.linalg.eigh(x @ x.T)
        return cls(centre, found[:, ::-1][:, :directions])

    def map(self, vectors: Float[np.ndarray, "D N"]) -> Float[np.ndarray, "d1 N"]:
        """T of vectors, one a column; float32."""
        made = np.empty((self.basis.shape[1] + 1, vectors.shape[1]), np.float32)
        for start in range(0, vectors.shape[1], _BLOCK):
            part = slice(start, start + _BLOCK)
            x = vectors[:, part].astype(np.float64) - self.centre[:, None]
            along = self.basis.T @ x
            made[:-1, part] = along
            made[-1, part] = np.linalg.norm(x - self.basis @ along, axis=0)
        return made

    def slack(self, longest: float, away: float) -> float:
        """By how much rounding may lengthen the distance of two mapped vectors at these distances from the centre.

        Each is rounded to single precision; taking the centre away and the basis are off by units of double precision.
        """
        beside = 2.0**-50 * float(np.linalg.norm(self.centre))
        return _UNIT * (longest + away) + beside + _TINY * float(self.basis.shape[1] + 1)
