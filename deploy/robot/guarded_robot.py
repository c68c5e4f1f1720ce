"""A robot whose bus belongs to another process, the guard, which brings it to rest when this one does not.

The guard has the arm at rest within 0.1 s of the operator's stop, and of the moment in which this process stops, hangs
or dies: see guard_process. What a hung camera can hold up is to be on this side: the cameras that a LeRobot arm's
settings name are. Those of another robot are observed in a thread of the guard's process.
"""

import contextlib
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.deploy.robot.guard_process import ANSWER_S, WIRE
from vlamem.deploy.robot.make import read_settings
from vlamem.deploy.robot.mujoco_robot import ArmStatus
from vlamem.deploy.robot.protocol import RobotError, RobotObservation, Vector
from vlamem.deploy.robot.robot_file import load_robot_file
from vlamem.deploy.wire import WireError, pack, unpack

_START_S = 120.0
"""A robot may take so long to connect, a simulated one to build an episode."""
_MESSAGE = 1 << 16
_PAUSE_S = 0.1
"""After a pause of so long between two rounds, the observation that lies ready is not used."""


@dataclass(frozen=True)
class OperatorActions:
    """What the operator's panel, which answers in the guard's process, asks of this one."""

    stop: Callable[[], None]
    go: Callable[[], None]
    label: Callable[[str], str]
    status: Callable[[], dict[str, Any]]
    quit: Callable[[], None]
    take: Callable[[bool], None] | None = None
    """Whether a person takes the arm over with a teleoperator, or gives it back; None without one."""


class GuardedRobot:
    """The four methods of a robot, for one that another process drives.

    Args:
        robot: as `vlamem control --robot` takes it.
        robot_file: path or shipped name.
        settings: JSON file of a LeRobot arm, or None.

    Raises ValueError and RobotFileError for what cannot be made.
    """

    def __init__(self, robot: str, robot_file: str | Path, settings: Path | None = None) -> None:
        self._name, self._file_name, self._settings = robot, str(robot_file), settings
        self._file = load_robot_file(robot_file)
        self._cameras: Any = None
        given = read_settings(settings) if robot.startswith("lerobot:") else {}
        if given.get("cameras"):
            from vlamem.deploy.robot.lerobot_robot import LeRobotCameras

            self._cameras = LeRobotCameras(robot.partition(":")[2], given, self._file)
        self._process: subprocess.Popen[bytes] | None = None
        self._actions: OperatorActions | None = None
        self._buffer = bytearray()
        self._newest: RobotObservation | None = None
        self._round_began = -math.inf
        self._stopping = threading.Lock()
        self._stops = 0
        self.status = ArmStatus(0, "", False, False)
        self.replaced: dict[str, int] = {}
        """Commands that the guard replaced, by reason; known after `close`."""

    def connect(self) -> None:
        """Starts the guard, which connects the robot. Raises RobotError with what either raised."""
        kinds = [socket.SOCK_SEQPACKET, socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_SEQPACKET]
        pairs = [socket.socketpair(socket.AF_UNIX, kind) for kind in kinds]
        self._commands, self._observations, self._calls, self._questions = (ours for ours, _ in pairs)
        theirs = [end.fileno() for _, end in pairs]
        given = {
            "robot": self._name,
            "robot_file": self._file_name,
            "settings": None if self._settings is None else str(self._settings),
            "cameras": self._cameras is None,
        }
        words = [sys.executable, "-m", "vlamem.deploy.robot.guard_process", *map(str, theirs), json.dumps(given)]
        # in this process's group, so that it may read the terminal's keys
        there = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # your own arm's module
        self._process = subprocess.Popen(words, pass_fds=theirs, env=there)
        for _, end in pairs:
            end.close()
        try:
            self._answer(_START_S)
            if self._cameras is not None:
                self._cameras.connect()
            self._observations.send(b"1")
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._answer_operator, name="operator", daemon=True).start()

    def open_panel(self, actions: OperatorActions, port: int, priority: int = 0) -> tuple[int, str]:
        """The operator's keys and, with a `port` of 0 or more, pages are answered by the guard; port and token of it.

        With a `priority` the guard asks for real-time scheduling.
        """
        self._actions = actions
        answer = self._call(
            {"call": "panel", "port": port, "priority": priority, "take": actions.take is not None}, ANSWER_S
        )
        return int(answer.get("port", -1)), str(answer.get("token", ""))

    def begin(self, episode: int, layout: int = 0) -> ArmStatus:
        """A simulated arm's next episode; as MujocoRobot.begin."""
        self.status = ArmStatus(
            **self._call({"call": "begin", "episode": episode, "layout": layout}, _START_S)["status"]
        )
        found = self.status
        self._next(ANSWER_S)
        while self.status.episode != found.episode:  # an observation of the episode before was on its way
            self._next(ANSWER_S)
        return self.status

    def observe(self) -> RobotObservation:
        """The newest observation. Raises RobotError when the guard has ended, or the robot does not answer it."""
        now = time.monotonic()
        paused, self._round_began = now - self._round_began > _PAUSE_S, now
        before = self._newest
        if before is None:
            self._next(ANSWER_S)
        elif self._take() and paused and not self._came(_PAUSE_S):
            self._newest = before  # what lay ready is as old as the pause; its stamp stands still, and grows old
        assert self._newest is not None
        return self._newest

    def send(self, command: Vector) -> None:
        """Commands an action. Raises RobotError when the guard has ended."""
        self.send_until(command, math.inf)

    def send_until(self, command: Vector, until: float) -> None:
        """As `send`, but not after `until` [s on the monotonic clock]."""
        body = {"command": np.asarray(command, np.float64), "began": self._round_began, "until": float(until)}
        try:
            self._commands.send(pack(body), socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise RobotError("the guard takes no more commands: has its process stopped?") from None
        except OSError as error:
            raise _ended(error) from error

    def close(self) -> None:
        """Ends the guard, which brings the arm to rest and disconnects it."""
        if self._process is None:
            return
        with contextlib.suppress(RobotError, OSError):
            self.replaced = self._call({"call": "end"}, ANSWER_S).get("counts", {})
        for end in (self._commands, self._observations, self._calls, self._questions):
            end.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        if self._cameras is not None:
            self._cameras.close()

    @property
    def pid(self) -> int | None:
        """Of the guard."""
        return None if self._process is None else self._process.pid

    def _call(self, body: Mapping[str, Any], wait_s: float) -> dict[str, Any]:
        try:
            self._calls.send(pack(dict(body)))
        except OSError as error:
            raise RobotError(f"the guard has ended ({error}): its output says why") from error
        return self._answer(wait_s)

    def _answer(self, wait_s: float) -> dict[str, Any]:
        if not select.select([self._calls], [], [], wait_s)[0]:
            raise RobotError(f"the guard does not answer within {wait_s:g} s")
        raw = self._calls.recv(_MESSAGE)
        if not raw:
            raise RobotError("the guard has ended: its output says why")
        answer: dict[str, Any] = unpack(raw)
        if "error" in answer:
            raise RobotError(str(answer["error"]))
        return answer

    # Observations ---------------------------------------------------------------------------------------------------

    def _next(self, wait_s: float) -> None:
        """Waits for an observation. Raises RobotError when none comes."""
        if not self._came(wait_s):
            raise RobotError(f"the robot shows nothing within {wait_s:g} s")

    def _came(self, wait_s: float) -> bool:
        """Whether an observation comes in time."""
        until = time.monotonic() + wait_s
        while not self._take():
            if time.monotonic() > until:
                return False
            select.select([self._observations], [], [], 0.02)
        return True

    def _take(self) -> bool:
        """The observation that has come whole, if one has; asks for the next then."""
        try:
            while True:
                chunk = self._observations.recv(1 << 20, socket.MSG_DONTWAIT)
                if not chunk:
                    raise RobotError("the guard has ended: the arm is left to its driver")
                self._buffer += chunk
        except BlockingIOError:
            pass  # nothing more has come
        except OSError as error:
            raise _ended(error) from error
        size = int.from_bytes(self._buffer[:8], "little") if len(self._buffer) >= 8 else None
        if size is None or len(self._buffer) < 8 + size:
            return False
        try:
            body = unpack(memoryview(self._buffer)[8 : 8 + size], WIRE)
        except WireError as error:
            raise RobotError(f"the guard sent what is no observation ({error})") from error
        self._buffer = self._buffer[8 + size :]
        try:
            self._observations.send(b"1")
        except OSError as error:
            raise _ended(error) from error
        if "error" in body:
            raise RobotError(body["error"])
        if body["status"] is not None:
            self.status = ArmStatus(**body["status"])
        images = body["images"] if self._cameras is None else self._cameras.read()
        self._newest = RobotObservation(images, body["proprioception"], body["stamp"], body["force"])
        if self._actions is not None:
            self._stop(self._actions, body["stops"])
        return True

    # The operator ---------------------------------------------------------------------------------------------------

    def _answer_operator(self) -> None:
        with contextlib.suppress(OSError):
            while raw := self._questions.recv(_MESSAGE):
                question = unpack(raw)
                answer = {"id": question["id"]} | self._do(question["what"], question["value"], question["until"])
                if question["id"]:
                    self._questions.send(pack(answer))

    def _do(self, what: str, value: Any, until: float = math.inf) -> dict[str, Any]:
        """Does what the operator asked for; after `until` [s on the monotonic clock] they were told that it failed."""
        actions = self._actions
        if actions is None:
            return {"error": "the panel is not open"}
        if time.monotonic() > until:
            return {"error": "it came too late"}
        try:
            if what == "label":
                return {"value": actions.label(value)}
            if what == "status":
                return {"value": actions.status()}
            if what == "stop":
                self._stop(actions, value)
            elif what == "go":
                with self._stopping:
                    self._stops = max(self._stops, value)
                    actions.go()
            elif what == "take":
                assert actions.take is not None  # the panel asks for it only then
                actions.take(value)
            else:
                actions.quit()
        except Exception as error:  # the operator has to know
            return {"error": f"{type(error).__name__}: {error}"}
        return {"value": None}

    def _stop(self, actions: OperatorActions, number: int) -> None:
        """The operator's stop of this number, unless it was heard before or a go has ended it."""
        with self._stopping:
            if number > self._stops:
                self._stops = number
                actions.stop()


def _ended(error: OSError) -> RobotError:
    return RobotError(f"the guard has ended ({error}): the arm is left to its driver")
