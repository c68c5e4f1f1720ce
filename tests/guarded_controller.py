"""A controller in a process of its own that drives hanging_arm through the guard.

Prints its panel's port and token and the guard's process, then runs until it is killed. On SIGUSR1 it holds the
interpreter's lock for a second.
"""

import ctypes
import signal
import sys
from dataclasses import replace
from typing import Any

from controller_cases import ARM, Server

from vlamem.deploy.robot import Controller, GuardedRobot, OperatorActions


def hold_the_interpreter(*_: Any) -> None:
    """A foreign function that does not release the lock of the interpreter."""
    ctypes.PyDLL(None).usleep(1_000_000)


def main() -> None:
    robot = GuardedRobot("hanging_arm:make", "tabletop")
    robot.connect()
    assert robot.observe().images["front"].shape == (480, 640, 3)
    file = replace(ARM, stale_s=1000.0, hold_s=1000.0)
    controller = Controller(robot, file, Server(horizon=190))
    actions = OperatorActions(
        controller.stop, controller.go, lambda outcome: "label-1", lambda: {"mode": controller.mode.value}, sys.exit
    )
    print(*robot.open_panel(actions, 0), robot.pid, flush=True)
    signal.signal(signal.SIGUSR1, hold_the_interpreter)
    controller.begin("touch it", 1)
    controller.run(lambda now: False)


if __name__ == "__main__":
    main()
