"""A MuJoCo arm behind the four methods of a robot, in real time: for tests, and for anyone without an arm."""

import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlamem.deploy.robot.mujoco_arm import BUFFER, WIRE
from vlamem.deploy.robot.protocol import RobotError, RobotObservation, Vector
from vlamem.deploy.wire import pack, unpack

TABLETOP = "vlamem.sim.suites.tabletop:SUITE"


@dataclass(frozen=True)
class ArmStatus:
    """The episode of the simulation.

    Attributes:
        episode: number of it.
        instruction: its sentence.
        ended, success: of the task.
    """

    episode: int
    instruction: str
    ended: bool
    success: bool


class MujocoRobot:
    """The arm of a suite's task, in a process of its own.

    Args:
        suite: "module:ATTRIBUTE" of a suite of MuJoCo tasks.
        task: name of one.
        size: pixels of an image.
        log: file for every command that the arm received, or None.
        start_s: how long the simulation may take to appear.
        at: path at which a simulation listens that runs by itself; None starts one that ends with this robot.
    """

    def __init__(
        self,
        task: str,
        suite: str = TABLETOP,
        size: int = 84,
        log: Path | None = None,
        start_s: float = 120.0,
        at: Path | None = None,
    ) -> None:
        self._at = at
        self._suite, self._task, self._size, self._log, self._start_s = suite, task, size, log, start_s
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._observation: RobotObservation | None = None
        self.status = ArmStatus(0, "", False, False)

    def connect(self) -> None:
        """Starts the simulation, or connects to the one that listens; it stands still until an episode begins."""
        if self._at is not None:
            self._socket = _connect_to(self._at, self._start_s)
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        words = [
            "vlamem.deploy.robot.mujoco_arm",
            str(theirs.fileno()),
            self._suite,
            str(self._size),
            str(self._log or "-"),
        ]
        # in a session of its own: Ctrl-C and a closed terminal are the controller's, which brings the arm to rest
        run = [sys.executable, "-m", *words]
        self._process = subprocess.Popen(run, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()
        self._socket = ours

    def begin(self, episode: int, layout: int = 0, task: str | None = None) -> ArmStatus:
        """Lays out an episode and waits for its first observation; call it between episodes, not in the loop."""
        self._task = task or self._task
        self._send({"type": "episode", "episode": episode, "task": self._task, "layout": layout})
        until = time.monotonic() + self._start_s
        while not self._receive(episode):
            if time.monotonic() > until:
                raise RobotError(f"the simulation of '{self._task}' did not appear within {self._start_s:g} s")
            time.sleep(0.002)
        return self.status

    def find(self, wait_s: float = 1.0) -> ArmStatus | None:
        """Where a simulation stands that another controller has left; None when it shows nothing within `wait_s`."""
        until = time.monotonic() + wait_s
        while not self._receive():
            if time.monotonic() > until:
                return None
            time.sleep(0.002)
        return self.status

    def observe(self) -> RobotObservation:
        """The newest frame. Raises RobotError when the simulation has ended, or no episode has begun."""
        self._receive()
        if self._observation is None:
            raise RobotError("the simulated arm has no episode: call begin() first")
        return self._observation

    def send(self, command: Vector) -> None:
        """Commands an action."""
        self._send({"type": "command", "episode": self.status.episode, "command": np.asarray(command, np.float64)})

    def close(self) -> None:
        """Ends the simulation."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @property
    def pid(self) -> int | None:
        """Of the simulation."""
        return None if self._process is None else self._process.pid

    def _send(self, message: dict[str, object]) -> None:
        if self._socket is None:
            raise RobotError("the simulated arm is not connected")
        try:
            self._socket.send(pack(message), socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise RobotError("the simulated arm takes no more commands: has its process stopped?") from None
        except OSError as error:
            raise RobotError(f"the simulation has ended ({error}): its output says why") from error

    def _receive(self, episode: int = 0) -> bool:
        """The newest of the frames that have come; whether one has come, of this episode where one is named."""
        if self._socket is None:
            raise RobotError("the simulated arm is not connected")
        newest = None
        while True:
            try:
                raw = self._socket.recv(WIRE.bytes, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                raise RobotError(f"the simulation has ended ({error}): its output says why") from error
            if not raw:
                raise RobotError("the simulation has ended: its output says why")
            newest = raw
        if newest is None:
            return False
        body = unpack(newest, WIRE)
        self.status = ArmStatus(body["episode"], body["instruction"], body["ended"], body["success"])
        self._observation = RobotObservation(body["images"], body["proprioception"], body["stamp"], body["force"])
        return episode in (0, self.status.episode)


def _connect_to(path: Path, wait_s: float) -> socket.socket:
    """A connection to the simulation that listens at `path`. Raises RobotError when none does within `wait_s`."""
    until = time.monotonic() + wait_s
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    while True:
        try:
            connection.connect(str(path))
            return connection
        except OSError as error:
            if time.monotonic() > until:
                connection.close()
                raise RobotError(f"no simulation listens at {path} within {wait_s:g} s ({error})") from error
            time.sleep(0.02)
