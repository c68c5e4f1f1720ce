"""Memory for frozen vision-language-action policies."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.policies.memory_policy import MemoryPolicy, wrap

__version__ = "0.1.0"

__all__ = ["MemoryPolicy", "__version__", "wrap"]


def __getattr__(name: str) -> Any:
    """`wrap` and `MemoryPolicy` are loaded when first asked for, so that `vlamem --help` is instant."""
    if name in ("MemoryPolicy", "wrap"):
        from vlamem.policies import memory_policy

        return getattr(memory_policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
