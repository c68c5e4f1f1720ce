"""Controller and guard together, through every mode: whatever comes in whatever order, the arm's safety holds."""

import math
from typing import Any

import numpy as np
from controller_cases import ARM, Arm, Server
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.guard import Guard
from vlamem.deploy.robot.limits import Limits
from vlamem.deploy.robot.protocol import RobotError, RobotObservation
from vlamem.deploy.robot.rounds import Mode, Round
from vlamem.deploy.robot.takeover import TakeOver

TICK, PERIOD = 0.005, 0.02
AT_REST_S = 0.1
SEEN: set[Mode] = set()


class Bus(Arm):
    """An arm behind a guard; it remembers when it was sent what."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self.world, self.guard, self.times = world, Guard(ARM), list[float]()
        self.round_began = -math.inf
        self.broken = False
        self.commanded_at = -math.inf
        self.limits = Limits(ARM)

    def observe(self) -> RobotObservation:
        self.round_began = self.world.now
        if self.broken:
            return RobotObservation({}, np.full(8, np.nan), float(self.looks), 0.0)
        return super().observe()

    def send(self, command: np.ndarray) -> None:
        raise AssertionError("a command that does not say how long it holds")

    def send_until(self, command: np.ndarray, until: float) -> None:
        self.commanded_at = self.world.now
        self.give(self.guard.command(command, self.world.now, self.round_began, until))

    def give(self, command: np.ndarray | None) -> None:
        if command is None:
            return
        before = self.sent[-1] if self.sent else None
        seen = RobotObservation({}, np.full(8, np.nan) if self.broken else np.zeros(8), 0.0, 0.0)
        assert self.limits.violations(command, before, seen) == []
        self.sent.append(command)
        self.times.append(self.world.now)

    @property
    def rests(self) -> bool:
        return not self.sent or not self.sent[-1][:6].any()


class Person:
    """Pushes a hand-held device as the test says; None for one that is unplugged."""

    def __init__(self) -> None:
        self.push: float | None = 0.0

    def connect(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> np.ndarray:
        if self.push is None:
            raise RobotError("unplugged")
        return np.full(7, self.push)


class World(RuleBasedStateMachine):
    """Time passes in ticks of the guard; the controller may stand still at any place of a round."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.episode, self.halted, self.stopped_at = 100.0, 1, False, math.inf
        self.bus, self.server = Bus(self), Server(horizon=6)
        self.pause = 0.0
        poll = self.server.poll
        self.server.poll = lambda: (self.pass_(self.pause), poll())[1]  # type: ignore[method-assign]  # a slow network
        self.person = Person()
        self.takeover = TakeOver(self.person, ARM, EventLog(), clock=lambda: self.now)
        self.controller = Controller(
            self.bus, ARM, self.server, record=self.judge, clock=lambda: self.now, takeover=self.takeover
        )
        self.controller.begin("touch it", 1, now=self.now)
        self.began = self.now

    def pass_(self, seconds: float) -> None:
        """The guard alone."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = round(self.now + TICK, 6)
            self.bus.give(self.bus.guard.check(self.now))
            self.safe()

    def judge(self, done: Round) -> None:
        SEEN.add(done.mode)
        assert (done.mode is Mode.TELEOP) <= self.takeover.taken  # nobody moves it who has not got it
        if done.planned is not None and not self.bus.rests and self.bus.times[-1] == self.now:
            assert self.now - (self.began + done.planned.step / ARM.policy_hz) <= ARM.stale_s + 1e-6

    @rule(rounds=st.integers(1, 25))
    def work(self, rounds: int) -> None:
        for _ in range(rounds):
            self.takeover.poll()
            self.controller.round(self.now)
            self.pass_(PERIOD)

    @rule(seconds=st.floats(0.02, 1.2))
    def stand_still(self, seconds: float) -> None:
        self.pass_(seconds)

    @rule(seconds=st.floats(0.02, 1.2))
    def stand_still_within_a_round(self, seconds: float) -> None:
        self.pause = seconds
        self.controller.round(self.now)
        self.pause = 0.0

    @rule(hears=st.booleans())
    def stop(self, hears: bool) -> None:
        if not self.bus.guard.stopped:
            self.stopped_at = self.now
        self.bus.guard.stop(self.now)
        if hears:
            self.controller.stop()
            self.halted = True

    @rule()
    def go(self) -> None:
        self.controller.go()
        self.bus.guard.go()
        self.halted, self.stopped_at = False, math.inf

    @rule(up=st.booleans(), value=st.sampled_from([-0.9, 0.3, 5.0, math.nan]), delay=st.integers(1, 60))
    def change_the_server(self, up: bool, value: float, delay: int) -> None:
        self.server.up, self.server.value, self.server.delay = up, value, delay

    @rule(takes=st.booleans(), push=st.sampled_from([-0.9, 0.3, 5.0, math.nan, None]))
    def change_hands(self, takes: bool, push: float | None) -> None:
        self.person.push = push
        self.takeover.take(takes)

    @rule(frozen=st.booleans(), broken=st.booleans())
    def change_the_camera(self, frozen: bool, broken: bool) -> None:
        self.bus.frozen, self.bus.broken = frozen, broken

    @rule()
    def begin(self) -> None:
        self.episode += 1
        self.began = self.now
        self.controller.begin("touch it", self.episode, now=self.now)

    @invariant()
    def safe(self) -> None:
        if self.now - self.stopped_at >= AT_REST_S:
            assert self.bus.rests, "not at rest after the operator's stop"
        if self.now - self.bus.commanded_at >= AT_REST_S:
            assert self.bus.rests, "not at rest without a controller"

    @invariant()
    def halt_lasts_until_go(self) -> None:
        if self.halted and self.controller.mode is not Mode.HALT:
            self.controller.round(self.now)
            assert self.controller.mode is Mode.HALT


def test_the_arm_is_safe_in_every_mode() -> None:
    how: Any = settings(
        max_examples=40, stateful_step_count=20, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(World, settings=how)  # type: ignore[no-untyped-call]  # hypothesis has no type here
    assert set(Mode) == SEEN
