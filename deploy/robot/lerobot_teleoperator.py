"""Every teleoperator that LeRobot supports, behind the three methods of one."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlamem.deploy.robot.lerobot_robot import modules_of
from vlamem.deploy.robot.protocol import RobotError, Vector
from vlamem.deploy.robot.robot_file import RobotFile, RobotFileError


class LeRobotTeleoperator:
    """A LeRobot teleoperator whose action has the entries that the robot's file names with `action_keys`.

    One that has events (a gamepad's buttons) takes the arm over by its own `is_intervention`.

    Args:
        teleoperator: an instance of lerobot's Teleoperator.
        robot_file: of the arm that it moves.

    Raises RobotFileError when the file names entries that the teleoperator does not give.
    """

    def __init__(self, teleoperator: Any, robot_file: RobotFile) -> None:
        self._teleoperator, self._keys = teleoperator, robot_file.action_keys
        features: Mapping[str, Any] = teleoperator.action_features
        names = features.get("names")
        gives = names if isinstance(names, Mapping) else features
        missing = [key for key in self._keys if key not in gives]
        if missing or not self._keys:
            what = f"action_keys has '{missing[0]}'" if missing else "no action_keys"
            raise RobotFileError(
                f"robot file '{robot_file.name}': {what}, and this teleoperator gives {', '.join(gives)}: choose one "
                "that commands the entries of this arm"
            )

    def connect(self) -> None:
        """Connects it; calibrates where it asks for that."""
        try:
            self._teleoperator.connect()
        except Exception as error:  # drivers raise what they like
            raise RobotError(f"the teleoperator does not connect: {type(error).__name__}: {error}") from error

    def read(self) -> Vector:
        """Reads it."""
        try:
            found: Mapping[str, Any] = self._teleoperator.get_action()
            return np.array([float(found[key]) for key in self._keys])
        except Exception as error:
            raise RobotError(f"the teleoperator does not answer: {type(error).__name__}: {error}") from error

    def intervening(self) -> bool | None:
        """What its buttons say; None for one without."""
        events = getattr(self._teleoperator, "get_teleop_events", None)
        if events is None:
            return None
        from lerobot.teleoperators.utils import TeleopEvents

        return bool(events().get(TeleopEvents.IS_INTERVENTION, False))

    def close(self) -> None:
        """Disconnects it."""
        if self._teleoperator.is_connected:
            self._teleoperator.disconnect()


def make_lerobot_teleoperator(kind: str, settings: Mapping[str, Any], robot_file: RobotFile) -> LeRobotTeleoperator:
    """A teleoperator of LeRobot by its type, e.g. "so101_leader", with settings as its configuration takes them.

    Raises RobotFileError for an unknown type or setting and for one of another arm, ModuleNotFoundError without lerobot
    or a driver.
    """
    modules = modules_of("lerobot.teleoperators")
    import draccus
    from lerobot.teleoperators import TeleoperatorConfig, make_teleoperator_from_config
    from lerobot.utils import import_utils

    if kind in modules:
        importlib.import_module(modules[kind])
    else:
        import_utils.register_third_party_plugins()
    known = TeleoperatorConfig.get_known_choices()
    if kind not in known:
        raise RobotFileError(
            f"LeRobot knows no teleoperator '{kind}': it knows {', '.join(sorted({*modules, *known}))}"
        )
    try:
        config = draccus.decode(known[kind], dict(settings))
    except Exception as error:  # draccus raises what it likes
        raise RobotFileError(f"settings of '{kind}' do not fit: {error}") from error
    return LeRobotTeleoperator(make_teleoperator_from_config(config), robot_file)
