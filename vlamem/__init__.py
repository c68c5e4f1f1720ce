"""Memory for frozen vision-language-action policies."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.core.observation import Observation
    from vlamem.core.proposal import Proposal
    from vlamem.policies.memory_policy import MemoryPolicy, wrap
    from vlamem.policies.registry import load
    from vlamem.sim.suites.gym import suite_from_gym
    from vlamem.testing import check_memory, check_policy, check_robot, check_suite

__version__ = "0.2.0"

_LAZY = {
    "MemoryPolicy": ("vlamem.policies.memory_policy", "MemoryPolicy"),
    "Observation": ("vlamem.core.observation", "Observation"),
    "Proposal": ("vlamem.core.proposal", "Proposal"),
    "check_memory": ("vlamem.testing", "check_memory"),
    "check_policy": ("vlamem.testing", "check_policy"),
    "check_robot": ("vlamem.testing", "check_robot"),
    "check_suite": ("vlamem.testing", "check_suite"),
    "load": ("vlamem.policies.registry", "load"),
    "suite_from_gym": ("vlamem.sim.suites.gym", "suite_from_gym"),
    "wrap": ("vlamem.policies.memory_policy", "wrap"),
}

__all__ = [
    "MemoryPolicy",
    "Observation",
    "Proposal",
    "__version__",
    "check_memory",
    "check_policy",
    "check_robot",
    "check_suite",
    "load",
    "suite_from_gym",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for, so that `vlamem --help` is instant."""
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
