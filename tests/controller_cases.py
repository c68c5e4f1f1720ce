"""An arm, a server and a controller on a clock that the test moves."""

from dataclasses import replace
from typing import Any

import numpy as np

from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.messages import Frame, Reply
from vlamem.deploy.robot.protocol import RobotObservation
from vlamem.deploy.robot.robot_file import load_robot_file
from vlamem.deploy.robot.rounds import ControlOptions, Mode, Round

ARM = replace(load_robot_file("tabletop"), hold_s=0.1, stop_s=0.1, stale_s=0.8)


class Arm:
    """Remembers what it was sent, and what it looked like then."""

    def __init__(self) -> None:
        self.sent: list[np.ndarray] = []
        self.before: list[tuple[np.ndarray | None, RobotObservation]] = []
        self.position = np.zeros(8)
        self.fails = self.frozen = False
        self.looks = 0
        self.force: float | None = 0.0

    def connect(self) -> None: ...

    def close(self) -> None: ...

    def observe(self) -> RobotObservation:
        if self.fails:
            raise RuntimeError("bus")
        self.looks += not self.frozen
        return RobotObservation({}, self.position.copy(), float(self.looks), self.force)

    def send(self, command: np.ndarray) -> None:
        self.before.append((self.sent[-1] if self.sent else None, self.observe()))
        self.sent.append(command)


class Server:
    """Answers plans after `delay` rounds with a constant chunk, while it is up."""

    def __init__(self, value: float = 0.3, delay: int = 1, horizon: int = 16) -> None:
        self.value, self.delay, self.horizon, self.up = value, delay, horizon, True
        self.frames: list[Frame] = []
        self.due: list[tuple[int, Reply]] = []
        self.rounds = 0
        self.began: list[int] = []

    def begin(self, episode: int) -> None:
        self.began.append(episode)

    def send(self, frame: Frame) -> None:
        self.frames.append(frame)
        if frame.plan and self.up:
            chunk = np.full((self.horizon, 7), self.value, np.float32)
            self.due.append(
                (self.rounds + self.delay, Reply("chunk", frame.episode, frame.step, chunk, "", 0.0, False))
            )

    def poll(self) -> list[Reply]:
        self.rounds += 1
        ready = [r for at, r in self.due if at <= self.rounds]
        self.due = [(at, r) for at, r in self.due if at > self.rounds]
        return ready


class Scene:
    def __init__(self, **options: Any) -> None:
        self.arm, self.server, self.now = Arm(), Server(), 100.0
        self.rounds: list[Round] = []
        self.controller = Controller(
            self.arm, ARM, self.server, ControlOptions(**options), record=self.rounds.append, clock=lambda: self.now
        )
        self.controller.begin("touch it", 1, now=self.now)

    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            self.controller.round(self.now)
            self.now += 0.02

    @property
    def modes(self) -> list[Mode]:
        return [r.mode for r in self.rounds]
