"""AURA-Mem's step in NumPy for one row: the yardstick of the other implementations, and the tick of a robot.

A jitted call costs several times more than this arithmetic, so one row on a CPU is best done here. The equations are
those of `step.py`; matrices that meet the same vector are laid side by side, and every buffer is made once.
"""

from collections.abc import Mapping
from math import exp, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import add, dot, maximum, multiply, subtract

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
        # y = [z~, 1] F: k | q | v | gate hidden; what r_prev adds to the last two is r_prev R
        biases = np.hstack([np.zeros(2 * d_k + d_v, np.float32), gate_bias])
        self._F = np.vstack([np.hstack([a["Wk"], a["Wq"], a["Wv"], gate_z]), biases[None]])
        self._R = np.hstack([a["Wvr"], sr[1:]])
        self._gate_s, self._gate_out = np.ascontiguousarray(sr[0]), a.get("gate.out", none[0])
        self._gate_bias = float(a.get("gate.out_bias", 0.0))
        # the head's hidden layer is [z~, 1] H + r Hr, its last entry a 1 for the bias of what follows
        units = np.hstack([a["head.z"], np.zeros((D, 1), np.float32)])
        self._H = np.vstack([units, np.append(a["head.bias"], np.float32(1))[None]])
        self._Hr = np.hstack([a["head.r"], np.zeros((d_v, 1), np.float32)])
        self._out = np.vstack([a["head.out"], a["head.out_bias"][None]])

        self._zb = np.ones(D + 1, np.float32)
        self._z = self._zb[:D]
        self._y = np.empty(self._F.shape[1], np.float32)
        self._k, self._q, self._tail = self._y[:d_k], self._y[d_k : 2 * d_k], self._y[2 * d_k :]
        self._kq = self._y[: 2 * d_k].reshape(2, d_k)
        self._v, self._gate_h = self._tail[:d_v], self._tail[d_v:]
        self._u, self._hidden = np.empty(d_v + width, np.float32), np.empty(width, np.float32)
        self._reads = np.empty((2, d_v), np.float32)
        self._prediction, self._r = self._reads
        self._norms = np.empty((2, 1), np.float32)
        self._e, self._step = np.empty(d_v, np.float32), np.empty(d_v, np.float32)
        self._outer = np.empty((d_v, d_k), np.float32)
        self._units, self._from_r = (np.empty(self._H.shape[1], np.float32) for _ in range(2))
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

    def tick(self, z: Float[Vector, "D"], propose: bool = True) -> TickOut:
        """One control tick: gate, write if it opens, read, propose. W and b change on a write only.

        Without `propose`, for ticks at which no plan is made, the head is left out: confidence is 0, the rest None.

        Raises ValueError for a feature of another size.
        """
        zn = self._z
        if z.shape != zn.shape:
            raise ValueError(
                f"feature of shape {z.shape} does not match this memory ({zn.size},): load the policy that it was "
                "trained for"
            )
        subtract(z, self._mean, zn)
        multiply(zn, self._scale, zn)
        trusted = bool(zn.dot(zn) <= self._limit)  # NaN and infinity fail the comparison
        if not trusted:
            zn[:] = 0
        dot(self._zb, self._F, self._y)
        k, q, e, reads, tail, r = self._k, self._q, self._e, self._reads, self._tail, self._r
        k_unit, q_unit = 1.0 / sqrt(k.dot(k) + 1e-12), 1.0 / sqrt(q.dot(q) + 1e-12)

        dot(self._kq, self.W.T, reads)  # W k and W q in one pass
        self._norms[0, 0], self._norms[1, 0] = k_unit, q_unit
        multiply(reads, self._norms, reads)
        add(reads, self.b, reads)
        dot(r, self._R, self._u)  # r is r_prev until the row is written
        add(tail, self._u, tail)
        subtract(self._v, self._prediction, e)
        s = log1p(float(e.dot(e)))

        if self._hidden.size:
            hidden = self._hidden
            multiply(self._gate_s, s, hidden)
            add(hidden, self._gate_h, hidden)
            maximum(hidden, 0, hidden)
            logit = float(hidden.dot(self._gate_out)) + self._gate_bias
        else:
            logit = 20.0 if self._always else -20.0
        wrote = trusted and logit > 0
        if wrote:
            self._write(float(k.dot(q)) * k_unit * q_unit, k_unit)

        p = sigmoid(logit) if trusted else 0.0
        if not propose:
            return TickOut(0.0, None, None, None, wrote, p, s, not trusted)
        units = self._units
        dot(self._zb, self._H, units)
        dot(r, self._Hr, self._from_r)
        add(units, self._from_r, units)
        maximum(units, 0, units)
        dot(units, self._out, self._result)
        confidence = sigmoid(float(self._result[0])) if trusted else 0.0
        return TickOut(confidence, self._chunk, self._context, self._answer, wrote, p, s, not trusted)

    def _write(self, k_dot_q: float, k_unit: float) -> None:
        """W <- W + beta e k^T, b <- b + gamma e, r <- what is read after it."""
        e, step = self._e, self._step
        multiply(e, self._beta * k_unit, step)
        multiply(step[:, None], self._k, self._outer)
        add(self.W, self._outer, self.W)
        multiply(e, self._gamma, step)
        add(self.b, step, self.b)
        multiply(e, self._beta * k_dot_q + self._gamma, step)
        add(self._r, step, self._r)
