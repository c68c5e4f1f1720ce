"""Memory designs behind one protocol: AURA-Mem, what it is compared with, and yours by one line."""

from vlamem.memory.designs.registry import DESIGNS, DesignError, design, make_design, name_of, register

__all__ = ["DESIGNS", "DesignError", "design", "make_design", "name_of", "register"]
