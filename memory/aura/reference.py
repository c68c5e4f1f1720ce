"""AURA-Mem's step in NumPy for one row: the yardstick of the other implementations, and the tick of a robot.

A jitted call costs several times more than this arithmetic, so one row on a CPU is best done here. The equations are
those of `step.py`; matrices that meet the same vector are laid side by side, so a tick without a write is four
matrix-vector products over buffers that are made once.
"""

from collections.abc import Mapping
from math import exp, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vlamem.memory.aura.config import FEATURE_LIMIT, AuraConfig

Vector = np.ndarray[Any, np.dtype[np.float32]]


class TickOut(NamedTuple):
    """What one tick says; fields as in `vlamem.memory.protocol.MemoryOut`, for one row.

    `chunk` [H, A], `context` [C] and `answer` [n] are views that the next tick overwrites.
    """

    confidence: float
    chunk: Float[Vector, "H A"] | None
    context: Float[Vector, "C"] | None
    answer: Float[Vector, "n"] | None
    wrote: bool
    gate: float
    surprise: float
    refused: bool


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + exp(-x)) if x >= 0 else 1.0 - 1.0 / (1.0 + exp(x))


class AuraTick:
    """One row of AURA-Mem; `W` and `b` are the state, to be saved and restored at will.

    Args:
        config: sizes and gate; its gate is a learned one, "always" or "never".
        arrays: parameters by dotted name, as `weights.load_weights` gives them.

    Raises ValueError for another gate.
    """

    def __init__(self, config: AuraConfig, arrays: Mapping[str, Vector]) -> None:
        learned = config.gate in ("learned", "counterfactual")
        if not learned and config.gate not in ("always", "never"):
            raise ValueError(
                f"gate {config.gate!r} is a control of benchmarks: a tick runs learned gates, always, never"
            )
        self.config = config
        D, d_k, d_v, head = config.feature_size, config.key_size, config.value_size, config.head
        a = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        width = config.gate_hidden if learned else 0
        self._always = config.gate == "always"
        self.W: Vector = np.zeros((d_v, d_k), np.float32)
        self.b: Vector = np.zeros(d_v, np.float32)
        self._mean, self._scale = a["mean"], a["scale"]
        self._beta, self._gamma = sigmoid(float(a["beta_logit"])), sigmoid(float(a["gamma_logit"]))
        self._limit = FEATURE_LIMIT**2 * D

        none = np.zeros((D, 0), np.float32)
        gate_z, gate_bias = (a["gate.z"], a["gate.bias"]) if learned else (none, none[0])
        sr = a["gate.sr"] if learned else np.zeros((1 + d_v, 0), np.float32)
        # y = [z~, 1] F: k | q | v | gate hidden | head hidden | 1
        from_z = np.hstack([a["Wk"], a["Wq"], a["Wv"], gate_z, a["head.z"], np.zeros((D, 1))])
        biases = np.hstack([np.zeros(2 * d_k + d_v), gate_bias, a["head.bias"], np.ones(1)])
        self._F = np.vstack([from_z, biases[None]]).astype(np.float32)
        # u = r_prev R, added to y from v on
        self._R = np.hstack([a["Wvr"], sr[1:], a["head.r"], np.zeros((d_v, 1))]).astype(np.float32)
        self._head_r = np.ascontiguousarray(a["head.r"])
        self._out = np.vstack([a["head.out"], a["head.out_bias"][None]]).astype(np.float32)
        self._gate_s, self._gate_out = np.ascontiguousarray(sr[0]), a.get("gate.out", np.zeros(0, np.float32))
        self._gate_bias = float(a.get("gate.out_bias", 0.0))

        self._zb = np.ones(D + 1, np.float32)
        self._z = self._zb[:D]
        self._y = np.empty(self._F.shape[1], np.float32)
        self._k, self._q, self._tail = self._y[:d_k], self._y[d_k : 2 * d_k], self._y[2 * d_k :]
        self._kq = self._y[: 2 * d_k].reshape(2, d_k)
        self._v, self._gate_h = self._tail[:d_v], self._tail[d_v : d_v + width]
        self._head_h, self._head_1 = self._tail[d_v + width : -1], self._tail[d_v + width :]
        self._u = np.empty(self._R.shape[1], np.float32)
        self._reads = np.empty((2, d_v), np.float32)
        self._prediction, self._r_prev = self._reads
        self._norms = np.empty((2, 1), np.float32)
        self._e, self._step, self._hidden = (np.empty(n, np.float32) for n in (d_v, d_v, width))
        self._outer = np.empty((d_v, d_k), np.float32)
        self._result = np.empty(head.outputs, np.float32)
        at, self._chunk, self._context, self._answer = 1, None, None, None
        if head.chunk:
            at += head.chunk[0] * head.chunk[1]
            self._chunk = self._result[1:at].reshape(head.chunk)
        if head.context:
            self._context, at = self._result[at : at + head.context], at + head.context
        if head.answer:
            self._answer = self._result[at:]

    def reset(self) -> None:
        """Back to the empty state."""
        self.W[:] = 0
        self.b[:] = 0

    def tick(self, z: Float[Vector, "D"]) -> TickOut:
        """One control tick: gate, write if it opens, read, propose. W and b change on a write only.

        Raises ValueError for a feature of another size.
        """
        zn = self._z
        if z.shape != zn.shape:
            raise ValueError(
                f"feature of shape {z.shape} does not match this memory ({zn.size},): load the policy that it was "
                "trained for"
            )
        np.subtract(z, self._mean, zn)
        np.multiply(zn, self._scale, zn)
        trusted = bool(zn.dot(zn) <= self._limit)  # NaN and infinity fail the comparison
        if not trusted:
            zn[:] = 0
        np.dot(self._zb, self._F, self._y)
        k, q, e, reads, tail = self._k, self._q, self._e, self._reads, self._tail
        k_unit, q_unit = 1.0 / sqrt(k.dot(k) + 1e-12), 1.0 / sqrt(q.dot(q) + 1e-12)

        np.dot(self._kq, self.W.T, reads)  # W k and W q in one pass
        self._norms[0, 0], self._norms[1, 0] = k_unit, q_unit
        np.multiply(reads, self._norms, reads)
        np.add(reads, self.b, reads)
        np.dot(self._r_prev, self._R, self._u)
        np.add(tail, self._u, tail)
        np.subtract(self._v, self._prediction, e)
        s = log1p(float(e.dot(e)))

        if self._hidden.size:
            hidden = self._hidden
            np.multiply(self._gate_s, s, hidden)
            np.add(hidden, self._gate_h, hidden)
            np.maximum(hidden, 0, hidden)
            logit = float(hidden.dot(self._gate_out)) + self._gate_bias
        else:
            logit = 20.0 if self._always else -20.0
        wrote = trusted and logit > 0
        if wrote:
            self._write(float(k.dot(q)) * k_unit * q_unit, k_unit)

        np.maximum(self._head_h, 0, self._head_h)
        np.dot(self._head_1, self._out, self._result)
        confidence = sigmoid(float(self._result[0])) if trusted else 0.0
        p = sigmoid(logit) if trusted else 0.0
        return TickOut(confidence, self._chunk, self._context, self._answer, wrote, p, s, not trusted)

    def _write(self, k_dot_q: float, k_unit: float) -> None:
        """W <- W + beta e k^T, b <- b + gamma e, and what the write adds to r in the head's hidden layer."""
        e, step = self._e, self._step
        np.multiply(e, self._beta * k_unit, step)
        np.multiply(step[:, None], self._k, self._outer)
        np.add(self.W, self._outer, self.W)
        np.multiply(e, self._gamma, step)
        np.add(self.b, step, self.b)
        np.multiply(e, self._beta * k_dot_q + self._gamma, step)
        self._head_h += step.dot(self._head_r)
