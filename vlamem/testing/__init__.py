"""Conformance checks for what others plug in: run them over your own memory, policy, suite or robot before its use.

Names are imported when they are first used: a check of a robot needs no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.testing.errors import ConformanceError
    from vlamem.testing.memory import check_memory
    from vlamem.testing.policy import check_policy
    from vlamem.testing.robot import check_robot
    from vlamem.testing.suite import check_suite

_MODULES = {
    "ConformanceError": "errors",
    "check_memory": "memory",
    "check_policy": "policy",
    "check_robot": "robot",
    "check_suite": "suite",
}

__all__ = ["ConformanceError", "check_memory", "check_policy", "check_robot", "check_suite"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
