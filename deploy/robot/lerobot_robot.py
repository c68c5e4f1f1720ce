"""Every arm that LeRobot supports, behind the four methods of a robot."""

import importlib
import importlib.util
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.protocol import RobotError, RobotObservation, Vector
from vlamem.deploy.robot.robot_file import RobotFile, RobotFileError

_REGISTERED = re.compile(r'@(?:Robot|Camera|Teleoperator)Config\.register_subclass\("([\w-]+)"\)')


class LeRobotRobot:
    """A LeRobot arm; proprioception and action are made of the entries that the robot's file names.

    Images keep the names of the arm's cameras. LeRobot reads its motors and cameras one after the other, so `observe`
    takes as long as they do: choose a control rate that leaves room for it.

    Args:
        robot: an instance of lerobot's Robot.
        robot_file: with `state_keys` and `action_keys`, e.g. "shoulder_pan.pos".
        cameras: whether the arm has them; otherwise another process reads them.

    Raises RobotFileError when the file names entries or cameras that the arm has not, or limits a force without naming
    the entry that carries it.
    """

    def __init__(self, robot: Any, robot_file: RobotFile, cameras: bool = True) -> None:
        self._robot, self._file = robot, robot_file
        self._cameras = robot_file.cameras if cameras else ()
        for what, named, has in (
            ("state_keys", robot_file.state_keys, robot.observation_features),
            ("action_keys", robot_file.action_keys, robot.action_features),
            ("cameras", robot_file.cameras, robot.observation_features),
            ("force_key", (robot_file.force_key,) if robot_file.force_key else (), robot.observation_features),
        ):
            if what == "cameras" and not cameras:
                continue
            if not named and what != "force_key":
                raise RobotFileError(f"robot file '{robot_file.name}' has no {what}: a LeRobot arm needs them")
            missing = [key for key in named if key not in has]
            if missing:
                raise RobotFileError(
                    f"{what} of robot file '{robot_file.name}' has '{missing[0]}', this arm has {', '.join(has)}"
                )
        if robot_file.gripper_force is not None and not robot_file.force_key:
            raise RobotFileError(
                f"robot file '{robot_file.name}' limits gripper_force to {robot_file.gripper_force:g} N: name the "
                "arm's entry that carries it with force_key, or take gripper_force out"
            )

    def connect(self) -> None:
        """Connects motors and cameras; calibrates where the arm asks for it."""
        try:
            self._robot.connect()
        except Exception as error:  # drivers raise what they like
            raise RobotError(f"the arm does not connect: {type(error).__name__}: {error}") from error

    def observe(self) -> RobotObservation:
        """Reads motors and cameras."""
        try:
            found: Mapping[str, Any] = self._robot.get_observation()
        except Exception as error:
            raise RobotError(f"the arm does not answer: {type(error).__name__}: {error}") from error
        stamp = time.monotonic()
        images = {camera: np.asarray(found[camera], np.uint8) for camera in self._cameras}
        state = np.array([float(found[key]) for key in self._file.state_keys], np.float32)
        force = float(found[self._file.force_key]) if self._file.force_key else None
        return RobotObservation(images, state, stamp, force)

    def send(self, command: Vector) -> None:
        """Commands the motors."""
        action = {key: float(x) for key, x in zip(self._file.action_keys, command, strict=True)}
        try:
            self._robot.send_action(action)
        except Exception as error:
            raise RobotError(f"the arm does not take a command: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Disconnects; what that does to the torque is the arm's own setting."""
        if self._robot.is_connected:
            self._robot.disconnect()


def known_arms() -> dict[str, str]:
    """The module of each arm that comes with LeRobot, by its type."""
    return modules_of("lerobot.robots")


def lerobot_config(kind: str, settings: Mapping[str, Any]) -> Any:
    """The configuration of a LeRobot arm and its cameras, by its type, e.g. "so101_follower".

    Raises RobotFileError for an unknown type or setting, ModuleNotFoundError without lerobot or a driver.
    """
    import draccus
    from lerobot.robots import RobotConfig
    from lerobot.utils import import_utils

    arms = known_arms()
    modules, named = arms | modules_of("lerobot.cameras"), {kind, *_types(settings)}
    for one in sorted(named & modules.keys()):
        importlib.import_module(modules[one])
    if not named <= modules.keys():
        import_utils.register_third_party_plugins()
    known = RobotConfig.get_known_choices()
    if kind not in known:
        raise RobotFileError(f"LeRobot knows no arm '{kind}': it knows {', '.join(sorted({*arms, *known}))}")
    try:
        return draccus.decode(known[kind], dict(settings))
    except Exception as error:  # draccus raises what it likes
        raise RobotFileError(f"settings of '{kind}' do not fit: {error}") from error


def make_lerobot(kind: str, settings: Mapping[str, Any], robot_file: RobotFile, cameras: bool = True) -> LeRobotRobot:
    """An arm of LeRobot with settings as its configuration takes them; raises as `lerobot_config`.

    Without `cameras` it has none of those that the settings name (see LeRobotCameras).
    """
    if not cameras:
        settings = {key: value for key, value in settings.items() if key != "cameras"}
    config = lerobot_config(kind, settings)
    from lerobot.robots import make_robot_from_config

    return LeRobotRobot(make_robot_from_config(config), robot_file, cameras)


class LeRobotCameras:
    """The cameras that a LeRobot arm's settings name, apart from its motors: one that hangs does not hold the bus.

    Raises RobotFileError when the settings lack a camera of the robot's file; raises as `lerobot_config`.
    """

    def __init__(self, kind: str, settings: Mapping[str, Any], robot_file: RobotFile) -> None:
        from lerobot.cameras.utils import make_cameras_from_configs

        missing = [name for name in robot_file.cameras if name not in settings.get("cameras", {})]
        if missing:
            raise RobotFileError(
                f"robot file '{robot_file.name}' has camera '{missing[0]}', the arm's settings name "
                f"{', '.join(settings.get('cameras', {})) or 'none'}: add it to 'cameras' there"
            )
        configs = lerobot_config(kind, settings).cameras
        self._cameras = make_cameras_from_configs({name: configs[name] for name in robot_file.cameras})

    def connect(self) -> None:
        """Opens each. Raises RobotError."""
        for name, camera in self._cameras.items():
            try:
                camera.connect()
            except Exception as error:  # drivers raise what they like
                raise RobotError(f"camera '{name}' does not open: {type(error).__name__}: {error}") from error

    def read(self) -> dict[str, NDArray[np.uint8]]:
        """The newest image of each. Raises RobotError."""
        found = {}
        for name, camera in self._cameras.items():
            try:
                found[name] = np.asarray(camera.read_latest(), np.uint8)
            except Exception as error:
                raise RobotError(f"camera '{name}' gives no image: {type(error).__name__}: {error}") from error
        return found

    def close(self) -> None:
        """Closes those that are open."""
        for camera in self._cameras.values():
            if camera.is_connected:
                camera.disconnect()


def modules_of(package: str) -> dict[str, str]:
    """The module of each arm, camera or teleoperator in a package, by its type; read from its sources: to import all
    is slow."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("no module named 'lerobot'", name="lerobot")
    found = {}
    for file in sorted(Path(spec.submodule_search_locations[0]).glob("*/config*.py")):
        for kind in _REGISTERED.findall(file.read_text(encoding="utf-8")):
            found[kind] = f"{package}.{file.parent.name}"
    return found


def _types(settings: Mapping[str, Any]) -> set[str]:
    """Every "type" that settings name, at any depth: those of cameras."""
    found = {str(settings["type"])} if "type" in settings else set()
    return found.union(*(_types(v) for v in settings.values() if isinstance(v, Mapping)))
