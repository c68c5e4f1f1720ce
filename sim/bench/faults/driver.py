"""A controller in a process of its own that drives `LoggingArm` through the guard until it is killed.

Its commands say when what they were planned from was observed, so that the arm's log shows how old they were. Prints
the panel's port and token.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot import (
    Controller,
    ControlOptions,
    Frame,
    GuardedRobot,
    OperatorActions,
    Reply,
    load_robot_file,
    prepare_process,
)

MOVES, FIRST, SPAN, WRAP_S = 0.3, 0.1, 0.3, 1000.0
"""The first entry of a command that moves; the second is FIRST + SPAN t / WRAP_S of an observation at t [s]."""


def marked(stamp: float, size: int) -> NDArray[np.float64]:
    """The command planned from an observation of this stamp."""
    command = np.zeros(size)
    command[:2] = MOVES, FIRST + SPAN * (stamp % WRAP_S) / WRAP_S
    return command


def age_of(now: float, second: float) -> float:
    """How old the observation behind a command is that was sent at `now` [s]."""
    stamp = (second - FIRST) / SPAN * WRAP_S
    return (now % WRAP_S - stamp + WRAP_S / 2) % WRAP_S - WRAP_S / 2


class PromptLink:
    """Answers every plan at the next round."""

    def __init__(self, size: int) -> None:
        self._size, self._replies = size, list[Reply]()

    def begin(self, episode: int) -> None:
        """Nothing is left over."""
        self._replies.clear()

    def send(self, frame: Frame) -> None:
        """A chunk of sixteen equal actions."""
        if frame.plan:
            chunk = np.tile(marked(frame.observation.stamp, self._size), (16, 1)).astype(np.float32)
            self._replies.append(Reply("chunk", frame.episode, frame.step, chunk, "", 0.0, False))

    def poll(self) -> list[Reply]:
        """What was answered."""
        replies, self._replies = self._replies, []
        return replies


def main(arguments: list[str]) -> None:
    """Argument: the robot's file."""
    (name,) = arguments
    file, robot = load_robot_file(name), GuardedRobot("vlamem.sim.bench.faults.arm:LoggingArm", name)
    robot.connect()
    controller = Controller(robot, file, PromptLink(file.size), ControlOptions(blend=0))
    status: dict[str, Any] = {}
    actions = OperatorActions(controller.stop, controller.go, lambda outcome: outcome, lambda: status, sys.exit)
    print(*robot.open_panel(actions, 0, 20), flush=True)
    prepare_process()
    controller.begin("touch the red cube", 1)
    controller.run(lambda now: False)


if __name__ == "__main__":
    main(sys.argv[1:])
