"""Memories that AURA-Mem is compared with, behind the same protocol and sized to its 4,224 bytes of state a row."""

from vlamem.memory.designs.attention import (
    AttentionMemory,
    AttentionParams,
    AttentionState,
    fifo,
    kv_growing,
    kv_window,
)
from vlamem.memory.designs.recurrent import (
    GruMemory,
    GruParams,
    LinearAttentionMemory,
    LinearAttentionParams,
    LinearAttentionState,
)
from vlamem.memory.designs.slots import SlotsMemory, SlotsParams, SlotsState

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
