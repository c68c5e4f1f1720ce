"""deploy/robot/watchdog.py: the arm comes to rest and the operator's stop is carried out when the loop hangs."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from controller_cases import ARM, Arm, Scene, Server
from deploy_cases import LONG_S, wait

from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.protocol import RobotObservation
from vlamem.deploy.robot.rounds import Mode
from vlamem.deploy.robot.watchdog import Reason, Watchdog

REST = np.float64([0, 0, 0, 0, 0, 0, 0.3])


class Clocked:
    """A watchdog on a clock that the test moves."""

    def __init__(self) -> None:
        self.now, self.said = 0.0, list[tuple[float, Reason]]()
        self.dog = Watchdog(lambda why: self.said.append((self.now, why)), 0.1, 0.04, 0.02, lambda: self.now)

    def pass_(self, seconds: float, rounds: bool = False, halted: bool = False) -> None:
        for _ in range(round(seconds / 0.01)):
            self.now = round(self.now + 0.01, 9)
            if rounds:
                self.dog.rounded(halted)
            self.dog.check()


def test_a_loop_that_makes_its_rounds_is_left_alone() -> None:
    clocked = Clocked()
    clocked.dog.rounded(False)
    clocked.pass_(1.0, rounds=True)
    assert clocked.said == []


def test_a_loop_that_makes_no_round_is_replaced_until_it_is_back() -> None:
    clocked = Clocked()
    clocked.dog.rounded(False)
    clocked.pass_(0.2)
    assert clocked.said[0] == (0.11, "late")
    calls = len(clocked.said)
    assert 4 <= calls <= 5  # one each 0.02 s
    clocked.pass_(1.0, rounds=True)
    assert len(clocked.said) == calls


def test_a_stop_that_the_loop_carries_out_is_left_to_it() -> None:
    clocked = Clocked()
    clocked.dog.rounded(False)
    clocked.dog.stop()
    clocked.pass_(0.02, rounds=True)
    clocked.pass_(1.0, rounds=True, halted=True)
    assert clocked.said == []


@pytest.mark.parametrize("rounds", [False, True])
def test_a_stop_that_the_loop_does_not_carry_out_is_carried_out_within_a_tenth_of_a_second(rounds: bool) -> None:
    clocked = Clocked()
    clocked.dog.rounded(False)
    clocked.dog.stop()
    clocked.pass_(0.1, rounds=rounds)
    assert clocked.said[0] == (0.05, "stop")
    clocked.dog.go()
    before = len(clocked.said)
    clocked.pass_(0.1, rounds=True)
    assert len(clocked.said) == before


def test_a_stop_that_is_pressed_again_and_again_is_carried_out_as_soon_as_one_that_is_pressed_once() -> None:
    clocked = Clocked()
    clocked.dog.rounded(False)
    for _ in range(10):
        clocked.dog.stop()
        clocked.pass_(0.01)
    assert clocked.said[0] == (0.05, "stop")


def test_a_round_that_began_before_a_stop_does_not_count_as_its_service() -> None:
    clocked = Clocked()
    clocked.dog.rounded(False)
    clocked.pass_(0.02, rounds=True)
    began = clocked.now
    clocked.now += 0.01
    clocked.dog.stop()  # of an operator who had said stop, and go during this round
    clocked.dog.rounded(True, began)
    clocked.pass_(0.06)
    assert [why for _, why in clocked.said] == ["stop"]


class Hung(Arm):
    """Its observe hangs when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers, self.hanging = threading.Event(), threading.Event()
        self.answers.set()

    def observe(self) -> RobotObservation:
        if not self.answers.is_set():
            self.hanging.set()
            assert self.answers.wait(LONG_S)
        return super().observe()

    def send(self, command: np.ndarray) -> None:
        self.sent.append(command)


@pytest.mark.parametrize("stopped", [True, False])
def test_an_arm_whose_camera_hangs_comes_to_rest_and_goes_on_when_it_is_back(stopped: bool) -> None:
    arm, ending = Hung(), threading.Event()
    file = replace(ARM, stale_s=LONG_S, hold_s=LONG_S)  # a busy machine ends neither
    controller = Controller(arm, file, Server(horizon=190))
    controller.begin("touch it", 1)
    loop = threading.Thread(target=controller.run, args=(lambda now: ending.is_set(),))
    loop.start()
    try:
        wait(lambda: controller.mode is Mode.RUN)
        arm.answers.clear()
        assert arm.hanging.wait(LONG_S)
        if stopped:
            controller.stop()
        wait(lambda: np.array_equal(arm.sent[-1][:6], REST[:6]))
        assert controller.events.counts["watchdog"] >= 1
        arm.answers.set()
        if stopped:
            wait(lambda: controller.mode is Mode.HALT)
            controller.go()
        wait(lambda: arm.sent[-1][0] > 0.2)
    finally:
        arm.answers.set()
        ending.set()
        loop.join(LONG_S)


def test_the_rest_of_the_watchdog_is_within_the_limits_and_on_record() -> None:
    scene = Scene()
    scene.play(20)
    scene.controller.watchdog.stop()
    scene.now += 0.05
    assert scene.controller.watchdog.check()
    assert scene.modes[-1] is Mode.HALT
    np.testing.assert_allclose(scene.arm.sent[-1], REST, atol=1e-6)
    np.testing.assert_array_equal(scene.rounds[-1].command, scene.arm.sent[-1])
    assert scene.controller.limits.violations(scene.arm.sent[-1], *scene.arm.before[-1]) == []


def test_before_the_first_observation_of_an_episode_nothing_is_sent() -> None:
    scene = Scene()
    scene.play(20)
    scene.controller.begin("again", 2, now=scene.now)
    before = len(scene.arm.sent)
    scene.controller.watchdog.stop()
    scene.now += 1.0
    assert scene.controller.watchdog.check()
    assert len(scene.arm.sent) == before


@pytest.mark.parametrize("first", ["stop", "go"])
def test_a_stop_and_a_go_of_two_threads_come_one_after_the_other_for_loop_and_watchdog_alike(first: str) -> None:
    scene = Scene()
    scene.play(20)
    controller, dog = scene.controller, scene.controller.watchdog
    if first == "go":
        controller.stop()
    calls = {"stop": controller.stop, "go": controller.go}
    second = threading.Thread(target=calls["go" if first == "stop" else "stop"])
    said = getattr(dog, first)

    def meanwhile() -> None:
        """The other button is pressed in the middle of the first."""
        second.start()
        second.join(0.2)  # it waits for this one: its end comes later
        said()

    setattr(dog, first, meanwhile)
    calls[first]()
    second.join(LONG_S)
    scene.play(10)
    assert scene.modes[-1] is (Mode.HALT if first == "go" else Mode.RUN)
    assert not dog.check()  # nothing is left of the stop that was taken back, or was carried out
