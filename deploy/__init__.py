"""Serving a policy with memory, and driving a robot with it.

The robot's side (Controller, Link, Limits, robots and their files) needs numpy, msgpack and websockets alone; what the
server needs besides is imported when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.deploy.robot.controller import Controller, ControlOptions
    from vlamem.deploy.robot.limits import Limits
    from vlamem.deploy.robot.link import Link, LinkOptions
    from vlamem.deploy.robot.outbox import LinkError
    from vlamem.deploy.robot.protocol import DryRun, Robot, RobotError, RobotObservation
    from vlamem.deploy.robot.robot_file import RobotFile, RobotFileError, load_robot_file
    from vlamem.deploy.server.policy_server import PolicyServer, ServeOptions

_HOMES = {
    "Controller": "controller",
    "ControlOptions": "controller",
    "Limits": "limits",
    "Link": "link",
    "LinkError": "outbox",
    "LinkOptions": "link",
    "DryRun": "robot",
    "Robot": "robot",
    "RobotError": "robot",
    "RobotObservation": "robot",
    "RobotFile": "robot_file",
    "RobotFileError": "robot_file",
    "load_robot_file": "robot_file",
    "PolicyServer": "server",
    "ServeOptions": "server",
}

__all__ = [
    "ControlOptions", "Controller", "DryRun", "Limits", "Link", "LinkError", "LinkOptions", "PolicyServer", "Robot",
    "RobotError", "RobotFile", "RobotFileError", "RobotObservation", "ServeOptions", "load_robot_file",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names are loaded when first asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
