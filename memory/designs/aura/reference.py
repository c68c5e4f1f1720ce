"""AURA-Mem's step in NumPy for one row: the yardstick of the other implementations, and the tick of a robot.

A jitted call costs several times more than this arithmetic, so one row on a CPU is best done here. The equations are
those of `step.py`; matrices that meet the same vector are laid side by side, and every buffer is made once. A good part
of the time of a NumPy call is its way in: methods (`x.dot`) have a shorter one than functions, and arrays of one shape
than numbers and shapes that have to be matched.
"""

from collections.abc import Mapping
from math import exp, log1p, sqrt
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import add, maximum, multiply, subtract

from vlamem.memory.config import FEATURE_LIMIT
from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.step_out import StepOut

Vector = np.ndarray[Any, np.dtype[np.float32]]


_made = tuple.__new__  # of a StepOut: half the time of its constructor


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + exp(-x)) if x >= 0 else 1.0 - 1.0 / (1.0 + exp(x))


class AuraTick:
    """One row of AURA-Mem; `W` and `b` are the state, to be saved at will and restored in place (`tick.W[:] = saved`).

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
        self._mean, self._scale, self._shape = a["mean"], a["scale"], (D,)
        self._beta, self._gamma = sigmoid(float(a["beta_logit"])), sigmoid(float(a["gamma_logit"]))
        self._bound = config.bound or 0.0
        self._limit = FEATURE_LIMIT**2 * D
        self._surely = self._limit / max(float(self._scale.max()) ** 2, 1e-30)

        none = np.zeros((D, 0), np.float32)
        gate_z, gate_bias = (a["gate.z"], a["gate.bias"]) if learned else (none, none[0])
        sr = a["gate.sr"] if learned else np.zeros((1 + d_v, 0), np.float32)
        self._gate_out, self._gate_bias = a.get("gate.out", none[0]), float(a.get("gate.out_bias", 0.0))

        # x = [z - mean, 1 | prediction, r]: the scale is in the matrices, and the head sees r where it is made
        self._x = np.ones(D + 1 + 2 * d_v, np.float32)
        self._z, self._zb, self._pr = self._x[:D], self._x[: D + 1], self._x[D + 1 :]
        self._reads = self._pr.reshape(2, d_v)
        self._r = self._reads[1]
        # y = [z - mean, 1] F: k | q | what z~ adds to v and to the gate's hidden layer
        scale = a["scale"][:, None]
        self._F = np.zeros((D + 1, 2 * d_k + d_v + width), np.float32)
        self._F[:D] = scale * np.hstack([a["Wk"], a["Wq"], a["Wv"], gate_z])
        self._F[D, 2 * d_k + d_v :] = gate_bias
        self._y = np.empty(self._F.shape[1], np.float32)
        self._k, self._q = self._y[:d_k], self._y[d_k : 2 * d_k]
        self._tail = self._y[2 * d_k :]
        # [prediction, r_prev] M: what they add to e and to the gate's hidden layer
        self._M = np.zeros((2 * d_v, d_v + width), np.float32)
        self._M[:d_v, :d_v], self._M[d_v:] = -np.eye(d_v), np.hstack([a["Wvr"], sr[1:]])
        # e | the gate's hidden layer without s | its weights for s, so that [1, s] times the last two rows is all of it
        seen = np.concatenate([np.empty(d_v + width, np.float32), sr[0]])
        self._e, self._eh, self._hs = seen[:d_v], seen[: d_v + width], seen[d_v:].reshape(2, width)
        self._one_s, self._hidden = np.ones(2, np.float32), np.empty(width, np.float32)
        # prediction and r_prev are the rows of [[1/|k|, 0, 1], [0, 1/|q|, 1]] [W k; W q; b]
        self._scales, self._Wkq_b = np.array([[0, 0, 1], [0, 0, 1]], np.float32), np.zeros((3, d_v), np.float32)
        self._Wk, self._Wq, self.b = self._Wkq_b
        self.W = np.zeros((d_v, d_k), np.float32)
        # assignment of one number is three times quicker through a memoryview
        self._set_scale: Any = memoryview(self._scales.reshape(-1))
        self._set_s: Any = memoryview(self._one_s)
        self._step, self._outer = np.empty(d_v, np.float32), np.empty((d_v, d_k), np.float32)
        # the head's hidden layer is x H, its last entry a 1 for the bias of what follows
        self._H = np.zeros((self._x.size, head.hidden + 1), np.float32)
        self._H[:D, :-1], self._H[D, :-1], self._H[D, -1] = scale * a["head.z"], a["head.bias"], 1.0
        self._H[D + 1 + d_v :, :-1] = a["head.r"]
        self._out = np.vstack([a["head.out"], a["head.out_bias"][None]])
        self._units, self._result = np.empty(head.hidden + 1, np.float32), np.empty(head.outputs, np.float32)
        # a comparison with an array of zeros is three times quicker than with the number 0
        self._no_hidden, self._no_units = np.zeros_like(self._hidden), np.zeros_like(self._units)
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

    def tick(self, z: Float[Vector, "D"], propose: bool = True) -> StepOut:
        """One control tick: gate, write if it opens, read, propose. W and b change on a write only.

        Fields are those of a StepOut for one row, numbers for [B] and arrays without the leading axis; chunk [H, A],
        context [C] and answer [n] are views that the next tick overwrites.

        Without `propose`, for ticks at which no plan is made, the head is left out: confidence is 0, the rest None.

        Raises ValueError for a feature of another size.
        """
        zn = self._z
        if z.shape != self._shape:
            raise ValueError(
                f"feature of shape {z.shape} does not match this memory ({zn.size},): load the policy that it was "
                "trained for"
            )
        subtract(z, self._mean, zn)
        # |z~| is at most |z - mean| times the largest scale: only where that will not do is z~ made; NaN fails both
        trusted = float(zn.dot(zn)) <= self._surely or bool(np.sum((zn * self._scale) ** 2) <= self._limit)
        if not trusted:
            zn[:] = 0
        self._zb.dot(self._F, self._y)
        k, q, e, eh = self._k, self._q, self._e, self._eh
        k_unit, q_unit = 1.0 / sqrt(float(k.dot(k)) + 1e-12), 1.0 / sqrt(float(q.dot(q)) + 1e-12)

        self.W.dot(k, self._Wk)
        self.W.dot(q, self._Wq)
        self._set_scale[0], self._set_scale[4] = k_unit, q_unit
        self._scales.dot(self._Wkq_b, self._reads)  # r is r_prev until the row is written
        self._pr.dot(self._M, eh)
        add(eh, self._tail, eh)
        s = log1p(float(e.dot(e)))

        hidden = self._hidden
        if hidden.size:
            self._set_s[1] = s
            self._one_s.dot(self._hs, hidden)
            maximum(hidden, self._no_hidden, hidden)
            logit = float(hidden.dot(self._gate_out)) + self._gate_bias
        else:
            logit = 20.0 if self._always else -20.0
        wrote = trusted and logit > 0
        if wrote:
            self._write(float(k.dot(q)) * k_unit * q_unit, k_unit)

        p = sigmoid(logit) if trusted else 0.0
        if not propose:
            return _made(StepOut, (0.0, None, None, None, wrote, p, s, not trusted, 0.0))
        units = self._units
        self._x.dot(self._H, units)
        maximum(units, self._no_units, units)
        units.dot(self._out, self._result)
        confidence = sigmoid(float(self._result[0])) if trusted else 0.0
        fields = confidence, self._chunk, self._context, self._answer, wrote, p, s, not trusted, 0.0
        return _made(StepOut, fields)

    def _write(self, k_dot_q: float, k_unit: float) -> None:
        """W <- W + beta e k^T, b <- b + gamma e, r <- what is read after it; all shrunk where |W| exceeds the bound."""
        e, step = self._e, self._step
        multiply(e, self._beta * k_unit, step)
        step[:, None].dot(self._k[None], self._outer)
        add(self.W, self._outer, self.W)
        multiply(e, self._gamma, step)
        add(self.b, step, self.b)
        multiply(e, self._beta * k_dot_q + self._gamma, step)
        add(self._r, step, self._r)
        if self._bound and (size := sqrt(float(np.vdot(self.W, self.W)))) > self._bound:
            for part in (self.W, self.b, self._r):
                multiply(part, self._bound / size, part)
