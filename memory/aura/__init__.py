"""AURA-Mem: a recurrent memory of 4,224 bytes with a gate that writes when the next action would change."""

from vlamem.memory.aura.config import GATE_KINDS, AuraConfig
from vlamem.memory.aura.step import AuraMemory, AuraParams, AuraState

__all__ = ["GATE_KINDS", "AuraConfig", "AuraMemory", "AuraParams", "AuraState"]
