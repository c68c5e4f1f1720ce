"""A robot driven by a served policy: control loop, safety limits, link to the server, the operator's panel.

Needs numpy, msgpack and websockets alone; LeRobot's arms and the simulated one need their own libraries. Names are
imported when first used: the simulated arm's process runs a module of this package, and needs few of the others.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.deploy.robot.connection import JoinedSession
    from vlamem.deploy.robot.controller import Controller
    from vlamem.deploy.robot.events import EventLog
    from vlamem.deploy.robot.guard import Guard
    from vlamem.deploy.robot.guarded_robot import GuardedRobot, OperatorActions
    from vlamem.deploy.robot.labelling import EpisodeLabels
    from vlamem.deploy.robot.lerobot_robot import LeRobotRobot, make_lerobot
    from vlamem.deploy.robot.lerobot_teleoperator import LeRobotTeleoperator, make_lerobot_teleoperator
    from vlamem.deploy.robot.limits import Clip, Limits
    from vlamem.deploy.robot.link import Link, LinkOptions
    from vlamem.deploy.robot.make import make_robot, make_teleoperator
    from vlamem.deploy.robot.messages import Frame, Reply
    from vlamem.deploy.robot.mujoco_robot import ArmStatus, MujocoRobot
    from vlamem.deploy.robot.outbox import LinkError
    from vlamem.deploy.robot.panel import KEYS, TAKE_KEYS, Panel
    from vlamem.deploy.robot.protocol import DryRun, Robot, RobotError, RobotObservation
    from vlamem.deploy.robot.realtime import prepare_process, restore_process
    from vlamem.deploy.robot.robot_file import Part, RobotFile, RobotFileError, load_robot_file
    from vlamem.deploy.robot.rounds import ControlOptions, Mode, Round, percentiles
    from vlamem.deploy.robot.session import drain, join, run_episode, status_of
    from vlamem.deploy.robot.takeover import TakeOver, Teleoperator
    from vlamem.deploy.robot.timeline import Planned

_MODULES = {
    "ArmStatus": "mujoco_robot",
    "Clip": "limits",
    "ControlOptions": "rounds",
    "Controller": "controller",
    "DryRun": "protocol",
    "EpisodeLabels": "labelling",
    "EventLog": "events",
    "Frame": "messages",
    "Guard": "guard",
    "GuardedRobot": "guarded_robot",
    "JoinedSession": "connection",
    "KEYS": "panel",
    "LeRobotRobot": "lerobot_robot",
    "LeRobotTeleoperator": "lerobot_teleoperator",
    "Limits": "limits",
    "Link": "link",
    "LinkError": "outbox",
    "LinkOptions": "link",
    "Mode": "rounds",
    "MujocoRobot": "mujoco_robot",
    "OperatorActions": "guarded_robot",
    "Panel": "panel",
    "Part": "robot_file",
    "Planned": "timeline",
    "Reply": "messages",
    "Robot": "protocol",
    "RobotError": "protocol",
    "RobotFile": "robot_file",
    "RobotFileError": "robot_file",
    "RobotObservation": "protocol",
    "Round": "rounds",
    "TAKE_KEYS": "panel",
    "TakeOver": "takeover",
    "Teleoperator": "takeover",
    "drain": "session",
    "join": "session",
    "load_robot_file": "robot_file",
    "make_lerobot": "lerobot_robot",
    "make_lerobot_teleoperator": "lerobot_teleoperator",
    "make_robot": "make",
    "make_teleoperator": "make",
    "percentiles": "rounds",
    "prepare_process": "realtime",
    "restore_process": "realtime",
    "run_episode": "session",
    "status_of": "session",
}

__all__ = [
    "KEYS",
    "TAKE_KEYS",
    "ArmStatus",
    "Clip",
    "ControlOptions",
    "Controller",
    "DryRun",
    "EpisodeLabels",
    "EventLog",
    "Frame",
    "Guard",
    "GuardedRobot",
    "JoinedSession",
    "LeRobotRobot",
    "LeRobotTeleoperator",
    "Limits",
    "Link",
    "LinkError",
    "LinkOptions",
    "Mode",
    "MujocoRobot",
    "OperatorActions",
    "Panel",
    "Part",
    "Planned",
    "Reply",
    "Robot",
    "RobotError",
    "RobotFile",
    "RobotFileError",
    "RobotObservation",
    "Round",
    "TakeOver",
    "Teleoperator",
    "drain",
    "join",
    "load_robot_file",
    "make_lerobot",
    "make_lerobot_teleoperator",
    "make_robot",
    "make_teleoperator",
    "percentiles",
    "prepare_process",
    "restore_process",
    "run_episode",
    "status_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
