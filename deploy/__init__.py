"""Serving a policy with memory, and driving a robot with it.

The robot's side needs numpy, msgpack and websockets alone; what the server needs besides is imported when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.deploy.robot import (
        Controller,
        ControlOptions,
        DryRun,
        Limits,
        Link,
        LinkError,
        LinkOptions,
        Robot,
        RobotError,
        RobotFile,
        RobotFileError,
        RobotObservation,
        load_robot_file,
    )
    from vlamem.deploy.server import PolicyServer, ServeOptions

_MODULES = {
    "ControlOptions": "robot",
    "Controller": "robot",
    "DryRun": "robot",
    "Limits": "robot",
    "Link": "robot",
    "LinkError": "robot",
    "LinkOptions": "robot",
    "PolicyServer": "server",
    "Robot": "robot",
    "RobotError": "robot",
    "RobotFile": "robot",
    "RobotFileError": "robot",
    "RobotObservation": "robot",
    "ServeOptions": "server",
    "load_robot_file": "robot",
}

__all__ = [
    "ControlOptions", "Controller", "DryRun", "Limits", "Link", "LinkError", "LinkOptions", "PolicyServer",
    "Robot", "RobotError", "RobotFile", "RobotFileError", "RobotObservation", "ServeOptions", "load_robot_file",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
