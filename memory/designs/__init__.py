"""Memory designs: AURA-Mem, and the memories that it is compared with, behind the same protocol."""
