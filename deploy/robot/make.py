"""Makes a robot or a teleoperator of its name, as `vlamem control` takes it."""

import importlib
from pathlib import Path
from typing import Any

from vlamem.core.json_files import read_json_map
from vlamem.deploy.robot.protocol import Robot
from vlamem.deploy.robot.robot_file import RobotFile
from vlamem.deploy.robot.takeover import Teleoperator


def make_robot(name: str, settings: Path | None, robot_file: RobotFile, cameras: bool = True) -> Robot:
    """mujoco:TASK, lerobot:TYPE with its JSON `settings`, or what module:FACTORY returns.

    Without `cameras` a LeRobot arm is made without those that its settings name: another process has them.
    Raises ValueError for a name or settings of another kind, RobotFileError when arm and file do not fit.
    """
    kind, _, rest = name.partition(":")
    if kind == "mujoco":
        from vlamem.deploy.robot.mujoco_robot import MujocoRobot

        return MujocoRobot(rest)
    if kind == "lerobot":
        from vlamem.deploy.robot.lerobot_robot import make_lerobot

        return make_lerobot(rest, read_settings(settings), robot_file, cameras)
    if not rest:
        raise ValueError(f"robot '{name}': expected mujoco:TASK, lerobot:TYPE or module:FACTORY")
    made: Robot = _made("robot", name)
    return made


def make_teleoperator(name: str, settings: Path | None, robot_file: RobotFile) -> Teleoperator:
    """lerobot:TYPE with its JSON `settings`, or what module:FACTORY returns.

    Raises ValueError for a name or settings of another kind, RobotFileError for one that does not fit the robot.
    """
    kind, _, rest = name.partition(":")
    if kind == "lerobot":
        from vlamem.deploy.robot.lerobot_teleoperator import make_lerobot_teleoperator

        return make_lerobot_teleoperator(rest, read_settings(settings), robot_file)
    if not rest:
        raise ValueError(f"teleoperator '{name}': expected lerobot:TYPE or module:FACTORY")
    made: Teleoperator = _made("teleoperator", name)
    return made


def _made(what: str, name: str) -> Any:
    """What module:FACTORY returns."""
    module, _, factory = name.partition(":")
    try:
        return getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} '{name}' cannot be made ({error}): expected module:FACTORY") from error


def read_settings(path: Path | None) -> dict[str, Any]:
    """The settings of a LeRobot arm or teleoperator; none without a file. Raises ValueError for what is no JSON map."""
    if path is None:
        return {}
    try:
        return read_json_map(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is no JSON map ({error}): expected the settings of the arm or teleoperator, as lerobot names them"
        ) from error
