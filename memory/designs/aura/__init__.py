"""AURA-Mem: a recurrent memory of 4,224 bytes with a gate that writes when the next action would change.

JAX is loaded when the JAX step is first asked for: a robot that carries only NumPy or torch never needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vlamem.memory.designs.aura.config import GATE_KINDS, AuraConfig, HeadConfig
from vlamem.memory.designs.aura.reference import AuraTick

if TYPE_CHECKING:
    from vlamem.memory.designs.aura.step import AuraMemory, AuraParams, AuraState

_JAX = {"AuraMemory": "step", "AuraParams": "step", "AuraState": "step"}

__all__ = [
    "GATE_KINDS",
    "AuraConfig",
    "AuraMemory",
    "AuraParams",
    "AuraState",
    "AuraTick",
    "HeadConfig",
]


def __getattr__(name: str) -> Any:
    if name not in _JAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_JAX[name]}"), name)
