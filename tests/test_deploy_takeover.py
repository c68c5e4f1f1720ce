"""deploy/robot/takeover.py: a person takes the arm over and gives it back; nothing jumps, and a stop comes first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controller_cases import Arm

from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.make import make_teleoperator
from vlamem.deploy.robot.messages import Frame, Reply
from vlamem.deploy.robot.protocol import RobotError
from vlamem.deploy.robot.robot_file import load_robot_file
from vlamem.deploy.robot.rounds import ControlOptions, Mode, Round
from vlamem.deploy.robot.takeover import EASE_S, EventfulTeleoperator, TakeOver, Teleoperator

JOINTS = load_robot_file("so101")
DELTAS = load_robot_file("tabletop")
PERIOD = 1 / JOINTS.control_hz


class Leader:
    """Held where the test says."""

    def __init__(self, at: np.ndarray) -> None:
        self.at: np.ndarray | None = at

    def connect(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> np.ndarray:
        if self.at is None:
            raise RobotError("unplugged")
        return self.at


class Gamepad(Leader):
    """One with a button."""

    def __init__(self, at: np.ndarray) -> None:
        super().__init__(at)
        self.pressed = False

    def intervening(self) -> bool:
        return self.pressed


class Server:
    """Plans a chunk that stays `at`, in the round after it was asked for; a test may keep replies back."""

    def __init__(self, at: np.ndarray) -> None:
        self.at, self.frames, self.due = at, list[Frame](), list[Reply]()
        self.keeps = False

    def begin(self, episode: int) -> None: ...

    def send(self, frame: Frame) -> None:
        self.frames.append(frame)
        if frame.plan:
            chunk = np.tile(self.at, (30, 1)).astype(np.float32)
            self.due.append(Reply("chunk", frame.episode, frame.step, chunk, "", 0.0))

    def poll(self) -> list[Reply]:
        if self.keeps:
            return []
        ready, self.due = self.due, []
        return ready


class Scene:
    def __init__(self, leader: Leader, wanted: np.ndarray, robot_file: Any = JOINTS) -> None:
        self.arm, self.server, self.now, self.leader = Arm(), Server(wanted), 100.0, leader
        self.arm.position = np.zeros(robot_file.proprioception)
        self.events, self.said = EventLog(), list[str]()
        self.takeover = TakeOver(leader, robot_file, self.events, self.said.append, lambda: self.now)
        self.rounds: list[Round] = []
        self.controller = Controller(
            self.arm, robot_file, self.server, ControlOptions(), self.events, self.rounds.append,
            clock=lambda: self.now, takeover=self.takeover,
        )  # fmt: skip
        self.controller.begin("touch it", 1, now=self.now)

    def play(self, seconds: float) -> list[Round]:
        before = len(self.rounds)
        for _ in range(round(seconds / PERIOD)):
            self.takeover.poll()
            self.controller.round(self.now)
            self.now += PERIOD
        return self.rounds[before:]

    def fastest(self, rounds: list[Round]) -> float:
        """Largest change of an entry from one command to the next, from the round before these on."""
        first = self.rounds.index(rounds[0]) - 1
        commands = [r.command for r in self.rounds[first : first + 1 + len(rounds)] if r.command is not None]
        return float(np.abs(np.diff(commands, axis=0)).max())


def joints(degrees: float) -> np.ndarray:
    return np.array([degrees, 0, 0, 0, 0, 50.0])


def test_a_person_gets_the_arm_without_a_jump_and_nothing_is_planned_meanwhile() -> None:
    scene = Scene(Leader(joints(-30)), joints(10))
    scene.play(2)
    assert scene.rounds[-1].mode is Mode.RUN
    scene.takeover.take(True)
    taken = scene.play(2)
    assert {r.mode for r in taken} == {Mode.TELEOP}
    np.testing.assert_allclose(taken[-1].command, joints(-30))
    assert scene.fastest(taken) <= 40 / EASE_S * PERIOD + 1e-9  # over the whole time, not as fast as limits allow
    frames = scene.server.frames[-len(taken) :]
    assert not any(frame.plan for frame in frames)
    np.testing.assert_allclose(frames[-1].executed, joints(-30))  # memory sees what the person did
    assert frames[-1].report["mode"] == "teleop"
    scene.leader.at = joints(-31)  # it follows at once from now on
    np.testing.assert_allclose(scene.play(2 * PERIOD)[-1].command, joints(-31))
    assert (scene.events.counts["taken_over"], scene.events.counts["given_back"]) == (1, 0)


def test_the_policy_gets_the_arm_back_without_a_jump_by_a_chunk_planned_since() -> None:
    scene = Scene(Leader(joints(-30)), joints(10))
    scene.play(1.5)
    while not scene.server.frames[-1].plan:  # a chunk is on its way when the person takes over
        scene.play(PERIOD)
    scene.server.keeps = True
    scene.takeover.take(True)
    scene.play(1.5)
    old, scene.server.due, scene.server.at = scene.server.due, [], joints(20)
    scene.takeover.take(False)
    scene.server.keeps = False
    scene.server.due = [replace(reply, chunk=np.tile(joints(90), (99, 1))) for reply in old]
    back = scene.play(2)
    assert back[0].mode is Mode.STOP  # where the person left it
    np.testing.assert_allclose(back[0].command, joints(-30))
    assert scene.server.frames[-len(back)].plan
    assert [r.mode for r in back[2:]] == [Mode.RUN] * (len(back) - 2)
    np.testing.assert_allclose(back[-1].command, joints(20))
    assert max(r.command[0] for r in back if r.command is not None) <= 20  # not what was planned before
    assert scene.fastest(back) <= 50 / EASE_S * PERIOD + 1e-9


def test_a_stop_comes_before_the_person_who_goes_on_from_rest_after_it() -> None:
    scene = Scene(Leader(joints(0)), joints(10))
    scene.play(1)
    scene.takeover.take(True)
    scene.play(1.5)
    scene.controller.stop()
    scene.leader.at = joints(60)
    halted = scene.play(1)
    assert {r.mode for r in halted} == {Mode.HALT}
    assert all(abs(r.command[0]) < 1e-9 for r in halted if r.command is not None)
    scene.controller.go()
    after = scene.play(1.5)
    assert {r.mode for r in after} == {Mode.TELEOP}
    assert scene.fastest(after) <= 60 / EASE_S * PERIOD + 1e-9
    np.testing.assert_allclose(after[-1].command, joints(60))


def test_a_teleoperator_that_says_nothing_leaves_the_arm_at_rest_and_is_complained_about_once() -> None:
    scene = Scene(Leader(joints(-30)), joints(10))
    scene.takeover.take(True)
    scene.play(2)
    scene.leader.at = None
    scene.play(JOINTS.stale_s + 2 * PERIOD)
    silent = scene.play(1)
    assert {r.mode for r in silent} == {Mode.STOP}
    np.testing.assert_allclose([r.command for r in silent if r.command is not None][-1], joints(-30))
    assert scene.said == ["the teleoperator fails: RobotError: unplugged"]
    for broken in (np.full(6, np.nan), np.zeros(7)):
        scene.leader.at = broken
        assert {r.mode for r in scene.play(0.2)} == {Mode.STOP}
    scene.leader.at = joints(40)
    again = scene.play(2)
    assert scene.fastest(again) <= 70 / EASE_S * PERIOD + 1e-9
    np.testing.assert_allclose(again[-1].command, joints(40))


def test_what_a_person_commands_stays_within_the_limits() -> None:
    far = np.array([900.0, 0, 0, 0, 0, 200])
    scene = Scene(Leader(far), joints(0))
    scene.takeover.take(True)
    rounds = scene.play(8)
    np.testing.assert_allclose(rounds[-1].command, [180, 0, 0, 0, 0, 100])
    for (before, seen), command in zip(scene.arm.before[1:], scene.arm.sent[1:], strict=True):
        assert scene.controller.limits.violations(command, before, seen) == []


def test_a_persons_deltas_end_with_the_take_over() -> None:
    push = np.array([0.4, 0, 0, 0, 0, 0, 1.0])
    scene = Scene(Leader(push), np.zeros(7), DELTAS)
    scene.play(1)
    scene.takeover.take(True)
    taken = scene.play(2)
    np.testing.assert_allclose(taken[-1].command, push)
    assert taken[0].command is not None
    assert taken[0].command[6] == 1.0  # a gripper has no half-way
    scene.server.keeps = True
    scene.takeover.take(False)
    after = [r.command for r in scene.play(DELTAS.stop_s + 2 * PERIOD) if r.command is not None]
    np.testing.assert_allclose(after[-1][:6], 0)


def test_without_a_take_over_a_policy_is_as_fast_as_it_was() -> None:
    scene = Scene(Leader(joints(0)), joints(5))
    rounds = scene.play(1)
    first = next(r for r in rounds if r.planned is not None)
    np.testing.assert_allclose(first.command, [5, 0, 0, 0, 0, first.command[5]])  # type: ignore[index]


def test_buttons_take_the_arm_over_and_the_last_word_counts() -> None:
    pad = Gamepad(joints(0))
    assert isinstance(pad, EventfulTeleoperator)
    assert not isinstance(Leader(joints(0)), EventfulTeleoperator)
    scene = Scene(pad, joints(10))
    scene.play(1)
    pad.pressed = True
    assert scene.play(0.2)[-1].mode is Mode.TELEOP
    scene.takeover.take(False)  # by a key, while the button is still down
    assert scene.play(1)[-1].mode is Mode.RUN
    pad.pressed = False
    scene.play(0.2)
    scene.takeover.take(True)  # by the key, with no button pressed
    assert scene.play(0.2)[-1].mode is Mode.TELEOP
    pad.pressed = True
    scene.play(0.2)
    pad.pressed = False
    assert scene.play(1)[-1].mode is Mode.RUN


def leader() -> Leader:
    """For `--teleop`."""
    return Leader(joints(0))


def test_a_teleoperator_is_named_as_a_robot_is() -> None:
    assert isinstance(make_teleoperator("test_deploy_takeover:leader", None, JOINTS), Teleoperator)
    with pytest.raises(ValueError, match="expected lerobot:TYPE or module:FACTORY"):
        make_teleoperator("so101_leader", None, JOINTS)
    with pytest.raises(ValueError, match="teleoperator 'test_deploy_takeover:follower' cannot be made"):
        make_teleoperator("test_deploy_takeover:follower", None, JOINTS)


def test_a_lerobot_teleoperator_of_another_arm_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("lerobot.teleoperators")
    from vlamem.deploy.robot.robot_file import RobotFileError

    with pytest.raises(RobotFileError, match=r"LeRobot knows no teleoperator 'so1_leader': it knows .*so101_leader"):
        make_teleoperator("lerobot:so1_leader", None, JOINTS)
    with pytest.raises(RobotFileError, match="settings of 'so101_leader' do not fit"):
        make_teleoperator("lerobot:so101_leader", None, JOINTS)
    settings = tmp_path / "settings.json"
    settings.write_text(f'{{"id": "pad", "calibration_dir": "{tmp_path}"}}')
    wrong = "action_keys has 'shoulder_pan.pos', and this teleoperator gives delta_x, delta_y, delta_z, gripper"
    with pytest.raises(RobotFileError, match=wrong):
        make_teleoperator("lerobot:gamepad", settings, JOINTS)
