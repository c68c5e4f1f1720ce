"""AURA-Mem in torch, with the same parameters: for robots that carry torch and no JAX."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vlamem.memory.designs.aura.config import FEATURE_LIMIT, AuraConfig


class TorchOut(NamedTuple):
    """What one step says; fields and shapes as in `vlamem.memory.protocol.StepOut`."""

    confidence: Tensor
    chunk: Tensor | None
    context: Tensor | None
    answer: Tensor | None
    wrote: Tensor
    gate: Tensor
    surprise: Tensor
    refused: Tensor


def unit(x: Tensor) -> Tensor:
    """x / |x|, and 0 for 0."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-12)


class TorchAura(nn.Module):
    """A learned-gate AURA memory; state is (W [B, d_v, d_k], b [B, d_v]), passed in and out.

    Args:
        config: sizes; the gate must be a learned one.
        arrays: parameters by dotted name, as `vlamem.memory.designs.aura.load_weights` gives them.

    Raises ValueError for a control gate.
    """

    def __init__(self, config: AuraConfig, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().__init__()
        if config.gate not in ("learned", "counterfactual"):
            raise ValueError(f"gate {config.gate!r} is a control of benchmarks: this module runs learned gates")
        self.config = config
        for name, array in arrays.items():
            self.register_buffer(name.replace(".", "_"), torch.tensor(np.asarray(array), dtype=torch.float32))

    def init(self, batch: int) -> tuple[Tensor, Tensor]:
        """The empty state of `batch` rows: zeros."""
        c = self.config
        zeros = self.get_buffer("mean").new_zeros
        return zeros((batch, c.value_size, c.key_size)), zeros((batch, c.value_size))

    @torch.no_grad()
    def forward(self, W: Tensor, b: Tensor, z: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, TorchOut]:
        """One control tick of B rows: (W, b, out). The equations are those of `vlamem.memory.designs.aura.step`.

        Raises ValueError for a feature of another size.
        """
        if z.shape[-1] != self.config.feature_size:
            raise ValueError(
                f"feature size {z.shape[-1]} does not match this memory ({self.config.feature_size}); "
                "load the policy that it was trained for"
            )
        p = dict(self.named_buffers())
        x = (z - p["mean"]) * p["scale"]
        trusted = (x * x).sum(-1) <= FEATURE_LIMIT**2 * x.shape[-1]
        x = torch.where(trusted[:, None], x, torch.zeros_like(x))
        keep = 1.0 - reset.to(x.dtype)
        W, b = W * keep[:, None, None], b * keep[:, None]
        beta, gamma = torch.sigmoid(p["beta_logit"]), torch.sigmoid(p["gamma_logit"])

        k, q = unit(x @ p["Wk"]), unit(x @ p["Wq"])
        r_prev = torch.einsum("bij,bj->bi", W, q) + b
        e = x @ p["Wv"] + r_prev @ p["Wvr"] - (torch.einsum("bij,bj->bi", W, k) + b)
        s = torch.log1p((e * e).sum(-1))
        hidden = torch.relu(x @ p["gate_z"] + p["gate_bias"] + torch.cat([s[:, None], r_prev], -1) @ p["gate_sr"])
        logit = hidden @ p["gate_out"] + p["gate_out_bias"]
        wrote = (logit > 0) & trusted
        g = wrote.to(x.dtype)[:, None]

        W = W + (g * beta)[:, :, None] * e[:, :, None] * k[:, None, :]
        b = b + g * gamma * e
        if self.config.bound is not None:
            fits = torch.clamp(self.config.bound * torch.rsqrt((W * W).sum((1, 2)) + 1e-12), max=1.0)
            fits = torch.where(wrote, fits, torch.ones_like(fits))
            W, b = W * fits[:, None, None], b * fits[:, None]
        r = torch.einsum("bij,bj->bi", W, q) + b
        y = torch.relu(x @ p["head_z"] + r @ p["head_r"] + p["head_bias"]) @ p["head_out"] + p["head_out_bias"]
        confidence = torch.where(trusted, torch.sigmoid(y[:, 0]), torch.zeros_like(s))
        gate = torch.where(trusted, torch.sigmoid(logit), torch.zeros_like(s))
        return W, b, TorchOut(confidence, *self._parts(y), wrote, gate, s, ~trusted)

    def _parts(self, y: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        head = self.config.head
        chunk_size = head.chunk[0] * head.chunk[1] if head.chunk else 0
        chunk, context, answer = torch.split(y[:, 1:], [chunk_size, head.context, head.answer], dim=-1)
        shaped = chunk.reshape(-1, *head.chunk) if head.chunk else None
        return shaped, context if head.context else None, answer if head.answer else None
