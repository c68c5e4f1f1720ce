"""vlamem.check_robot, over an arm that stands still and over ones that break a promise; and the names of the face."""

import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import vlamem
from vlamem.deploy.robot.protocol import Robot, RobotError, RobotObservation
from vlamem.deploy.robot.robot_file import Part, RobotFile
from vlamem.testing import ConformanceError, check_robot

JOINTS = Part("joints", 3, "absolute", "1 rad", -3, 3, 1.0, -2, 2, 0.2, 4.0, measured=1)
HAND = Part("hand", 1, "delta", "1 mm", -1, 1, 0.001, -1, 1, 1.0, 4.0)
FILE = RobotFile("arm", 500, 20, ("front",), 4, (JOINTS, HAND), 0.2, 0.2, 60.0, gripper_force=None)


class Arm:
    """Goes to where it is commanded at once."""

    def __init__(self) -> None:
        self.body = np.array([9, 0.5, -0.5, 0.1], np.float32)
        self.calls: list[str] = []
        self.commands: list[list[float]] = []

    def connect(self) -> None:
        self.calls.append("connect")

    def observe(self) -> RobotObservation:
        return RobotObservation({"front": np.zeros((4, 6, 3), np.uint8)}, self.body.copy(), time.monotonic())

    def send(self, command: Any) -> None:
        self.commands.append(command.tolist())
        self.body[1:] = command[:3]

    def close(self) -> None:
        self.calls.append("close")


class Refusing(Arm):
    def send(self, command: Any) -> None:
        raise RobotError("motor 3 is off")


class Deaf(Arm):
    def connect(self) -> None:
        raise RobotError("no bus")


class Blind(Arm):
    def observe(self) -> RobotObservation:
        return replace(super().observe(), images={"top": np.zeros((4, 6, 3), np.uint8)})


class Tall(Arm):
    def observe(self) -> RobotObservation:
        return replace(super().observe(), images={"front": np.zeros((3, 4, 6), np.uint8)})


class Short(Arm):
    def observe(self) -> RobotObservation:
        return replace(super().observe(), proprioception=self.body[:3])


class Lost(Arm):
    def observe(self) -> RobotObservation:
        return replace(super().observe(), proprioception=np.full(4, np.nan, np.float32))


class Dated(Arm):
    def observe(self) -> RobotObservation:
        return replace(super().observe(), stamp=time.time() + 1e9)


class Frozen(Arm):
    began = time.monotonic()

    def observe(self) -> RobotObservation:
        return replace(super().observe(), stamp=self.began)


class Degrees(Arm):
    """Takes radians for degrees."""

    def send(self, command: Any) -> None:
        super().send(np.rad2deg(command))


class Overwriting(Arm):
    image = np.zeros((4, 6, 3), np.uint8)

    def observe(self) -> RobotObservation:
        self.image += 1
        return replace(super().observe(), images={"front": self.image})


class Meddling(Arm):
    def send(self, command: Any) -> None:
        command[3] = 1


def test_an_arm_that_stands_still_keeps_every_promise_and_is_sent_nothing_but_rest() -> None:
    arm = Arm()
    assert isinstance(arm, Robot)
    check_robot(arm, FILE, commands=3, begin=lambda: arm.calls.append("begin"))
    assert arm.calls == ["connect", "begin", "close"]
    np.testing.assert_allclose(arm.commands, [[0.5, -0.5, 0.1, 0]] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("arm", "promise"),
    [
        (Refusing, r"send takes the command of rest, \[0.5, .*: motor 3 is off"),
        (Blind, r"camera 'front' of the file is observed: there are \['top'\]"),
        (Tall, r"camera 'front' is uint8 \[H, W, 3\]: it is uint8 \[3, 4, 6\]"),
        (Short, r"floating point \[4\], as the file says: it is float32 \[3\]"),
        (Lost, "proprioception is finite"),
        (Dated, "stamp is of the monotonic clock"),
        (Frozen, "the stamp moves on"),
        (Degrees, "part 'joints' stays where it is at the command of rest: it moved by .* 'measured' may be wrong"),
        (Overwriting, "not overwritten by the next: front"),
        (Meddling, "send leaves the command as it was"),
    ],
)
def test_a_broken_promise_is_named_and_the_arm_is_closed(arm: type[Arm], promise: str) -> None:
    broken = arm()
    with pytest.raises(ConformanceError, match=promise):
        check_robot(broken, FILE, commands=3)
    assert broken.calls == ["connect", "close"]


def test_what_does_not_connect_or_has_no_such_methods_is_no_robot() -> None:
    with pytest.raises(ConformanceError, match="ready: no bus"):
        check_robot(Deaf(), FILE)
    with pytest.raises(ConformanceError, match="lacks observe, send"):
        check_robot(type("Half", (), {"connect": print, "close": print})(), FILE)
    with pytest.raises(ConformanceError, match="gripper's force is observed, which the file limits"):
        check_robot(Arm(), replace(FILE, gripper_force=9.0))


def test_a_gripper_that_is_not_measured_needs_a_first_command_within_the_limits() -> None:
    claw = Part("claw", 1, "absolute", "open or closed", -1, 1, 0.04, -1, 1, 0.1, 1.0, grips=True)
    file, arm = replace(FILE, parts=(JOINTS, claw)), Arm()
    with pytest.raises(ValueError, match="part 'claw' is absolute and not measured: give check_robot first="):
        check_robot(arm, file)
    with pytest.raises(ValueError, match=r"first is .*: range of claw: \[2.0\]"):
        check_robot(arm, file, first=[0.5, -0.5, 0.1, 2])
    with pytest.raises(ValueError, match="not 4 finite numbers"):
        check_robot(arm, file, first=[0.5])
    assert arm.commands == []
    check_robot(arm, file, commands=1, first=[0.5, -0.5, 0.1, -1])
    assert arm.commands == [[0.5, -0.5, 0.1, -1]]


def test_a_robots_computer_checks_its_arm_without_jax_and_torch() -> None:
    code = """
import sys
for name in ("jax", "flax", "torch", "jaxtyping", "scipy", "gymnasium", "lerobot"):
    sys.modules[name] = None
import vlamem
try:
    vlamem.check_robot(object(), "so101")
except AssertionError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "this one lacks connect, observe, send, close" in done.stdout, done.stderr


def test_the_face_names_the_checks_and_suite_from_gym_and_imports_them_when_they_are_asked_for() -> None:
    named = {"Observation", "check_memory", "check_policy", "check_robot", "check_suite", "suite_from_gym", "wrap"}
    assert named <= set(dir(vlamem))
    code = """
import sys
import vlamem
heavy = ("numpy", "jax", "torch", "gymnasium")
assert not set(heavy) & set(sys.modules), "import vlamem is not instant"
for name in ("torch", "gymnasium", "mujoco", "robosuite", "lerobot"):
    sys.modules[name] = None
for name in dir(vlamem):
    assert getattr(vlamem, name) is not None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
