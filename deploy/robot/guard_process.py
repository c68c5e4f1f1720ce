"""The process that has an arm's bus: it drives the arm, and brings it to rest when its controller does not.

Started by `GuardedRobot` as `python -m vlamem.deploy.robot.guard_process`. A bus has one owner, so the guard is no
second process beside the driver: the driver lives here, and the controller, with network, policy frames and whatever
else may hang, elsewhere. Three threads: this one takes commands and gives the arm what the guard lets pass, one
observes, and the operator's panel answers here, so that a stop needs nothing of the controller.

    commands     from the controller: what to send, when its round began, until when it holds
    observations to the controller, one for each that it asks for
    calls        from the controller: begin an episode, open the panel, end
    questions    to the controller: what the operator asked for besides stop
"""

import contextlib
import json
import math
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.deploy.robot.guard import Guard
from vlamem.deploy.robot.make import make_robot
from vlamem.deploy.robot.panel import Panel
from vlamem.deploy.robot.protocol import RobotError
from vlamem.deploy.robot.realtime import prepare_process
from vlamem.deploy.robot.robot_file import RobotFile, load_robot_file
from vlamem.deploy.wire import WireLimits, pack, unpack

WIRE = WireLimits(bytes=64 << 20)
"""Of an observation; a camera's image is larger than what a network should carry."""
ANSWER_S = 2.0
"""The controller is given so long to answer the operator."""
_CALL = 1 << 16
_IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGTTIN", "SIGTTOU")
"""A terminal and a service manager mean the controller by them; the guard ends when that has."""


class GuardProcess:
    """Drives one robot until its controller is gone.

    Args:
        robot: not connected yet.
        robot_file: its limits and rates.
        commands, observations, calls, questions: this end of each connection.
    """

    def __init__(
        self,
        robot: Any,
        robot_file: RobotFile,
        commands: socket.socket,
        observations: socket.socket,
        calls: socket.socket,
        questions: socket.socket,
    ) -> None:
        self._robot, self._file = robot, robot_file
        self._commands, self._observations, self._calls, self._questions = commands, observations, calls, questions
        self._guard = Guard(robot_file)
        self._counting = threading.Lock()
        self._stops = self._ended_stops = 0
        self._bus = threading.Lock()
        self._asking = threading.Lock()
        self._asked = 0
        self._hangs = False
        self._trouble: str | None = None
        self._panel: Panel | None = None

    def run(self) -> None:
        """Until the controller has closed its end, or asks for the end; the arm is at rest then."""
        self._robot.connect()
        self._reply({"ok": True})
        threading.Thread(target=self._observe, name="observer", daemon=True).start()
        tick = min(0.005, 1 / (4 * self._file.control_hz))
        try:
            while self._round(tick):
                pass
            self._come_to_rest()
        finally:
            if self._panel is not None:
                self._panel.close()
            self._robot.close()

    def _round(self, tick: float) -> bool:
        """What has come within a tick, and what is due; False when the controller has gone."""
        ready = select.select([self._commands, self._calls], [], [], tick)[0]
        if self._stops > self._ended_stops:
            self._guard.stop(time.monotonic())
        else:
            self._guard.go()
        if self._commands in ready and not self._take_command():
            return False
        if self._calls in ready and not self._take_call():
            return False
        self._send(self._guard.check(time.monotonic()))
        return True

    def _take_command(self) -> bool:
        newest = None
        with contextlib.suppress(BlockingIOError):
            while raw := self._commands.recv(_CALL, socket.MSG_DONTWAIT):
                newest = raw
            return False  # the other end is closed
        if newest is not None:
            body = unpack(newest)
            command = np.array(body["command"], np.float64)
            self._send(self._guard.command(command, time.monotonic(), body["began"], body["until"]))
        return True

    def _send(self, command: Any) -> None:
        """Gives the arm a command. An observation that takes longer than a period is not waited for: a camera may hang
        in it."""
        if command is None:
            return
        mine = self._bus.acquire(timeout=0 if self._hangs else 1 / self._file.control_hz)
        self._hangs = not mine
        try:
            self._robot.send(command)
            self._trouble = None
        except Exception as error:  # the controller is told with the next observation, and the next command tried
            self._trouble = f"{type(error).__name__}: {error}"
        finally:
            if mine:
                self._bus.release()

    def _come_to_rest(self) -> None:
        """The controller has gone: rest, for as long as a stop may take."""
        until = time.monotonic() + self._guard.deadline_s + self._file.stop_s
        self._guard.stop(-np.inf)
        while time.monotonic() < until:
            self._send(self._guard.check(time.monotonic()))
            time.sleep(1 / self._file.control_hz)

    # Observations ---------------------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """An observation for each byte that the controller sends."""
        with contextlib.suppress(OSError):
            while self._observations.recv(1):
                data = pack(self._seen())
                self._observations.sendall(len(data).to_bytes(8, "little"))
                self._observations.sendall(data)

    def _seen(self) -> dict[str, Any]:
        if self._trouble is not None:
            return {"error": self._trouble}
        try:
            with self._bus:
                obs = self._robot.observe()
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        status = getattr(self._robot, "status", None)
        return {
            "images": dict(obs.images),
            "proprioception": np.asarray(obs.proprioception),
            "stamp": float(obs.stamp),
            "force": None if obs.gripper_force is None else float(obs.gripper_force),
            "status": None if status is None else asdict(status),
            "stops": self._stops,
        }

    # Calls of the controller ----------------------------------------------------------------------------------------

    def _take_call(self) -> bool:
        raw = self._calls.recv(_CALL)
        if not raw:
            return False
        call = unpack(raw)
        try:
            if call["call"] == "begin":
                self._reply({"ok": True, "status": self._begin(call["episode"], call["layout"])})
            elif call["call"] == "panel":
                self._reply({"ok": True} | self._open_panel(call["port"], call["priority"], call["take"]))
            else:
                self._reply({"ok": True, "counts": dict(self._guard.counts)})
                return False
        except Exception as error:
            self._reply({"error": f"{type(error).__name__}: {error}"})
        return True

    def _begin(self, episode: int, layout: int) -> dict[str, Any]:
        """A simulated arm's next episode."""
        if not self._bus.acquire(timeout=ANSWER_S):
            raise RobotError(f"the robot has been observing for {ANSWER_S:g} s: does a camera hang?")
        try:
            self._guard.begin()
            return asdict(self._robot.begin(episode, layout))
        finally:
            self._bus.release()

    def _reply(self, body: dict[str, Any]) -> None:
        self._calls.send(pack(body))

    # The operator ---------------------------------------------------------------------------------------------------

    def _open_panel(self, port: int, priority: int, take: bool) -> dict[str, Any]:
        self._panel = Panel(
            self._stop, self._go, lambda outcome: str(self._ask("label", outcome)), lambda: dict(self._ask("status")),
            lambda: self._tell("quit"), take=self._take if take else None,
        )  # fmt: skip
        answer = {"port": self._panel.serve(port), "token": self._panel.token} if port >= 0 else {}
        self._panel.listen()
        if priority:
            prepare_process(priority)  # after the threads have started
        return answer

    def _take(self, taken: bool) -> None:
        self._ask("take", taken)

    def _stop(self) -> None:
        with self._counting:
            self._stops += 1
        self._tell("stop", self._stops)

    def _go(self) -> None:
        """Ends the stops until now, here and in the controller. One that comes meanwhile stays in force, and one that
        the controller hears of later, with an observation that hung, is over."""
        stops = self._stops
        self._ask("go", stops)
        with self._counting:
            self._ended_stops = max(self._ended_stops, stops)

    def _tell(self, what: str, value: Any = None) -> None:
        """Without waiting for an answer; of a stop the controller hears with the next observation, too."""
        with contextlib.suppress(BlockingIOError):
            self._questions.send(pack({"id": 0, "what": what, "value": value, "until": math.inf}), socket.MSG_DONTWAIT)

    def _ask(self, what: str, value: Any = None) -> Any:
        """The controller's answer. Raises TimeoutError when it gives none, RuntimeError with what it raised.

        What the operator was told has failed is not done later: the controller does nothing of it after `until`.
        """
        with self._asking:
            self._asked += 1
            until = time.monotonic() + ANSWER_S
            question = {"id": self._asked, "what": what, "value": value, "until": until}
            self._questions.send(pack(question), socket.MSG_DONTWAIT)
            while (left := until - time.monotonic()) > 0:
                if not select.select([self._questions], [], [], left)[0]:
                    break
                answer = unpack(self._questions.recv(_CALL))
                if answer["id"] == self._asked:  # else one that came too late
                    if "error" in answer:
                        raise RuntimeError(answer["error"])
                    return answer["value"]
        raise TimeoutError("the controller does not answer: the arm is at rest, and stop works")


def main(arguments: list[str]) -> None:
    """Arguments: descriptors of the four connections, and a JSON map of robot, robot_file and settings."""
    *numbers, given = arguments
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    commands, observations, calls, questions = (socket.socket(fileno=int(number)) for number in numbers)
    what = json.loads(given)
    try:
        robot_file = load_robot_file(what["robot_file"])
        settings = Path(what["settings"]) if what["settings"] else None
        robot = make_robot(what["robot"], settings, robot_file, cameras=what["cameras"])
        GuardProcess(robot, robot_file, commands, observations, calls, questions).run()
    except Exception as error:  # while it connects; the controller says it
        with contextlib.suppress(OSError):
            calls.send(pack({"error": f"{type(error).__name__}: {error}"[:2000]}))
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
