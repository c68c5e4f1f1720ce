"""An arm for the guard's process that keeps when it was sent what in the file $ARM_LOG, and hangs when told to.

It hangs in `observe` while the file $ARM_LOG.hang exists.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

from vlamem.deploy.robot.protocol import RobotError, RobotObservation


class HangingArm:
    def __init__(self) -> None:
        self._log = Path(os.environ["ARM_LOG"])
        self._hang = self._log.with_name(self._log.name + ".hang")
        self._file = self._log.open("a", buffering=1)

    def connect(self) -> None:
        if "ARM_BROKEN" in os.environ:
            raise RobotError("no such port")

    def observe(self) -> RobotObservation:
        while self._hang.exists():
            time.sleep(0.005)
        return RobotObservation({"front": np.full((480, 640, 3), 7, np.uint8)}, np.zeros(8), time.monotonic(), 0.0)

    def send(self, command: np.ndarray) -> None:
        self._file.write(json.dumps([time.monotonic(), *(float(x) for x in command)]) + "\n")

    def close(self) -> None:
        self._file.write(json.dumps("closed") + "\n")
        self._file.close()


make = HangingArm
