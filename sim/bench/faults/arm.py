"""An arm without physics for the guard's process: it keeps when it was sent what in the file $FAULTS_LOG."""

import os
import time
from pathlib import Path

import numpy as np

from vlamem.deploy.robot.protocol import RobotObservation, Vector


class LoggingArm:
    """Stands where it is; hangs in `observe` while the file $FAULTS_LOG.hang exists."""

    def __init__(self) -> None:
        log = Path(os.environ["FAULTS_LOG"])
        self._hang, self._file = log.with_name(f"{log.name}.hang"), log.open("a", buffering=1)

    def connect(self) -> None:
        """There is nothing to connect."""

    def observe(self) -> RobotObservation:
        """A picture of nothing."""
        while self._hang.exists():
            time.sleep(0.005)
        images = {name: np.zeros((84, 84, 3), np.uint8) for name in ("agentview", "wrist")}
        return RobotObservation(images, np.zeros(8, np.float32), time.monotonic(), 0.0)

    def send(self, command: Vector) -> None:
        """A line: when, and the first two entries."""
        self._file.write(f"{time.monotonic():.6f} {command[0]:.9f} {command[1]:.9f}\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
