"""Memory for frozen vision-language-action policies."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.core.observation import Observation
    from vlamem.core.proposal import Proposal
    from vlamem.policies.memory_policy import MemoryPolicy, wrap
    from vlamem.policies.registry import load

__version__ = "0.2.0"

_LAZY = {
    "MemoryPolicy": ("vlamem.policies.memory_policy", "MemoryPolicy"),
    "Observation": ("vlamem.core.observation", "Observation"),
    "Proposal": ("vlamem.core.proposal", "Proposal"),
    "load": ("vlamem.policies.registry", "load"),
    "wrap": ("vlamem.policies.memory_policy", "wrap"),
}

__all__ = ["MemoryPolicy", "Observation", "Proposal", "__version__", "load", "wrap"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for, so that `vlamem --help` is instant."""
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
