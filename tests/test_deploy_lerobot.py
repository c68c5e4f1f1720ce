"""deploy/robot/lerobot_robot.py with an arm of LeRobot's own class that has no motors."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vlamem.deploy.robot.lerobot_robot import LeRobotRobot, known_arms, lerobot_config, make_lerobot
from vlamem.deploy.robot.protocol import RobotError
from vlamem.deploy.robot.robot_file import Part, RobotFile, RobotFileError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    robots = pytest.importorskip("lerobot.robots")

KEYS = ("shoulder.pos", "elbow.pos")
JOINTS = Part("joints", 2, "absolute", "1 rad", -3, 3, 1.0, -2, 2, 0.2, 4.0, measured=0)
FILE = RobotFile("two", 30, 30, ("front",), 2, (JOINTS,), 0.2, 0.2, 1.0, state_keys=KEYS, action_keys=KEYS).check()


class Paper(robots.Robot):  # type: ignore[name-defined,misc]  # imported when it is there
    config_class = robots.RobotConfig
    name = "paper"

    def __init__(self) -> None:
        self.joints = {"elbow.pos": 0.5, "shoulder.pos": -0.25}
        self.sent: list[dict[str, float]] = []
        self._on = self.broken = False

    observation_features = {"elbow.pos": float, "shoulder.pos": float, "front": (4, 4, 3)}  # noqa: RUF012
    action_features = {"elbow.pos": float, "shoulder.pos": float}  # noqa: RUF012
    is_calibrated = True

    @property
    def is_connected(self) -> bool:
        return self._on

    def connect(self, calibrate: bool = True) -> None:
        self._on = True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        if self.broken:
            raise ConnectionError("no reply from motor 3")
        return self.joints | {"front": np.ones((4, 4, 3), np.uint8)}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append(action)
        return action

    def disconnect(self) -> None:
        self._on = False


def test_entries_go_by_name_and_not_by_order() -> None:
    paper = Paper()
    robot = LeRobotRobot(paper, FILE)
    robot.connect()
    seen = robot.observe()
    np.testing.assert_allclose(seen.proprioception, [-0.25, 0.5])
    assert seen.images["front"].shape == (4, 4, 3)
    robot.send(np.array([0.1, 0.2]))
    assert paper.sent == [{"shoulder.pos": 0.1, "elbow.pos": 0.2}]
    robot.close()
    assert not paper.is_connected


def test_the_entry_that_the_file_names_is_the_force() -> None:
    robot = LeRobotRobot(Paper(), replace(FILE, gripper_force=20.0, force_key="elbow.pos"))
    robot.connect()
    assert robot.observe().gripper_force == 0.5
    assert LeRobotRobot(Paper(), FILE).observe().gripper_force is None


def test_an_arm_that_does_not_answer_is_a_robot_error() -> None:
    paper = Paper()
    robot = LeRobotRobot(paper, FILE)
    robot.connect()
    paper.broken = True
    with pytest.raises(RobotError, match="no reply from motor 3"):
        robot.observe()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"state_keys": ("wrist.pos", "elbow.pos")}, "state_keys .* 'wrist.pos', this arm has"),
        ({"action_keys": ()}, "has no action_keys"),
        ({"cameras": ("top",)}, "cameras .* 'top'"),
        ({"gripper_force": 20.0}, "limits gripper_force to 20 N: name .* with force_key"),
        ({"gripper_force": 20.0, "force_key": "grip.force"}, "force_key .* 'grip.force', this arm has"),
    ],
)
def test_a_file_of_another_arm_is_refused_by_name(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(RobotFileError, match=expected):
        LeRobotRobot(Paper(), replace(FILE, **changed))
    with pytest.raises(RobotFileError, match="names 1 entries, there are 2"):
        replace(FILE, state_keys=("elbow.pos",)).check()


def test_an_arm_that_lerobot_does_not_know_is_refused_with_those_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lerobot.utils.import_utils.register_third_party_plugins", lambda: None)
    assert known_arms()["so101_follower"] == "lerobot.robots.so_follower"
    with pytest.raises(RobotFileError, match=r"no arm 'so999': .*so101_follower"):
        make_lerobot("so999", {}, FILE)


def test_an_arm_with_cameras_is_configured_by_type() -> None:
    camera = {"type": "opencv", "index_or_path": 0, "width": 640, "height": 480, "fps": 30}
    depth = {"type": "intelrealsense", "serial_number_or_name": "0123456789", "width": 640, "height": 480, "fps": 30}
    config = lerobot_config("so101_follower", {"port": "/dev/null", "cameras": {"front": camera, "wrist": depth}})
    assert config.port == "/dev/null"
    assert [config.cameras[name].type for name in ("front", "wrist")] == ["opencv", "intelrealsense"]
    assert (config.cameras["front"].width, config.cameras["front"].fps) == (640, 30)
    assert known_arms()["reachy2"] == "lerobot.robots.reachy2"


def test_a_camera_that_lerobot_does_not_know_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lerobot.utils.import_utils.register_third_party_plugins", lambda: None)
    with pytest.raises(RobotFileError, match=r"settings of 'so101_follower' do not fit: .*pinhole"):
        lerobot_config("so101_follower", {"port": "/dev/null", "cameras": {"front": {"type": "pinhole"}}})
