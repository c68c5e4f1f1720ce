"""An arm for `vlamem control --robot counting_arm:make` that keeps its commands in the file $ARM_LOG."""

import json
import os
import time
from pathlib import Path

import numpy as np

from vlamem.deploy.robot.protocol import RobotObservation


class CountingArm:
    """Stands where it is; every frame is one worth writing. Ends its controller, whose guard drives it, by $ARM_SIGNAL
    after ten commands."""

    def __init__(self) -> None:
        self._log, self._sent = Path(os.environ["ARM_LOG"]), 0

    def connect(self) -> None:
        self._say("connected")

    def observe(self) -> RobotObservation:
        proprioception = np.zeros(8, np.float32)
        proprioception[:2] = 1
        return RobotObservation({"front": np.zeros((8, 8, 3), np.uint8)}, proprioception, time.monotonic(), 0.0)

    def send(self, command: np.ndarray) -> None:
        self._say([float(x) for x in command])
        self._sent += 1
        if self._sent == 10 and "ARM_SIGNAL" in os.environ:
            os.kill(os.getppid(), int(os.environ["ARM_SIGNAL"]))

    def close(self) -> None:
        self._say("closed")

    def _say(self, what: object) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps(what) + "\n")


make = CountingArm
