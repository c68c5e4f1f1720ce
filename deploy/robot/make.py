"""Makes a robot of its name, as `vlamem control --robot` takes it."""

import importlib
from pathlib import Path
from typing import Any

from vlamem.core.json_files import read_json_map
from vlamem.deploy.robot.protocol import Robot
from vlamem.deploy.robot.robot_file import RobotFile


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
    try:
        made: Robot = getattr(importlib.import_module(kind), rest)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"robot '{name}' cannot be made ({error}): expected module:FACTORY") from error
    return made


def read_settings(path: Path | None) -> dict[str, Any]:
    """The settings of a LeRobot arm; none without a file. Raises ValueError for what is no JSON map."""
    if path is None:
        return {}
    try:
        return read_json_map(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is no JSON map ({error}): expected the settings of the arm, as lerobot names them"
        ) from error
