"""Memories that AURA-Mem is compared with, behind the same protocol and sized to its 4,224 bytes of state a row."""

from vlamem.sim.baselines.attention import (
    AttentionMemory,
    AttentionParams,
    AttentionState,
    fifo,
    kv_growing,
    kv_window,
)
from vlamem.sim.baselines.recurrent import (
    GruMemory,
    GruParams,
    LinearAttentionMemory,
    LinearAttentionParams,
    LinearAttentionState,
)
from vlamem.sim.baselines.slots import SlotsMemory, SlotsParams, SlotsState

__all__ = [
    "AttentionMemory",
    "AttentionParams",
    "AttentionState",
    "GruMemory",
    "GruParams",
    "LinearAttentionMemory",
    "LinearAttentionParams",
    "LinearAttentionState",
    "SlotsMemory",
    "SlotsParams",
    "SlotsState",
    "fifo",
    "kv_growing",
    "kv_window",
]
