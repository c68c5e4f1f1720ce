"""A simulated arm in a process of its own: it moves in real time whether or not anyone commands it.

Started by `MujocoRobot` as `python -m vlamem.deploy.robot.mujoco_arm`; messages in vlamem's wire format go over
a socket pair. Like a real arm it has a clock of its own: at each of its control steps it takes the newest command,
repeats nothing by itself (without a command it stands still), moves, and sends an observation. Where it listens at a
path instead, it keeps running when its controller ends: its episode goes on, and the next controller finds it in it.
"""

import contextlib
import importlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.deploy.wire import WireLimits, pack, unpack

WIRE = WireLimits(bytes=4 << 20)
BUFFER = 1 << 20
"""Bytes of a connection's buffer."""
FRESH_S = 0.25
"""A command that is older than this is not carried out: an arm whose controller has died stands still."""


class Arm:
    """One environment of a suite, stepped by the clock."""

    def __init__(
        self,
        connection: socket.socket | None,
        suite: str,
        size: int,
        log: Path | None,
        listener: socket.socket | None = None,
    ) -> None:
        """`connection` to its one controller, or a `listener` that accepts one controller after the other."""
        module, _, attribute = suite.partition(":")
        self._suite = getattr(importlib.import_module(module), attribute)
        self._connection, self._size, self._log, self._listener = connection, size, log, listener
        self._parent = os.getppid()
        self._env: Any = None
        self._task = ""
        self._still: Any = None
        self._command: Any = None
        self._arrived = 0.0
        self._episode = 0
        self._ended = True
        self._success = False
        self._lines: list[str] = []

    def run(self) -> None:
        """Until the other end closes; with a listener, until the process that started it has ended."""
        due = time.monotonic()
        while True:
            if not self._listen():
                break
            if self._env is None:
                time.sleep(0.005)
                due = time.monotonic()
                continue
            self._move()
            self._send_observation()
            due += 1.0 / self._env.control_hz
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            else:
                due = time.monotonic()  # the machine is too slow for real time: time stretches
        self._write()

    def _listen(self) -> bool:
        """Handles every message that has come; False when the other end has closed and no other controller can come."""
        while self._connection is not None or self._accepted():
            assert self._connection is not None
            try:
                raw = self._connection.recv(WIRE.bytes, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return self._listener is None or self._starter_lives()
            except OSError:
                raw = b""
            if not raw:
                self._connection.close()
                self._connection = None
                self._write()
                continue
            message = unpack(raw, WIRE)
            if message["type"] == "episode":
                self._begin(message)
            elif message["episode"] == self._episode:
                self._command, self._arrived = np.array(message["command"], np.float64), time.monotonic()
                self._lines.append(json.dumps([self._arrived, self._episode, [float(x) for x in self._command]]))
        return self._listener is not None and self._starter_lives()

    def _starter_lives(self) -> bool:
        """Whether the process that started it is still there."""
        return os.getppid() == self._parent

    def _accepted(self) -> bool:
        """Whether a controller has connected."""
        if self._listener is None:
            return False
        try:
            self._connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return True

    def _begin(self, message: dict[str, Any]) -> None:
        task = message["task"]
        if self._env is None or task != self._task:
            if self._env is not None:
                self._env.close()
            self._env, self._task = self._suite.make(task, image_size=self._size), task
            self._env.render_on_step = False
            self._still = np.zeros(self._env.action_spec.size)
        self._env.reset(options={"episode": message["layout"], "split": "test", "wording": "training"})
        self._command, self._episode = None, message["episode"]
        self._ended = self._success = False

    def _move(self) -> None:
        if self._ended:
            return
        fresh = self._command is not None and time.monotonic() - self._arrived <= FRESH_S
        if not fresh and self._command is not None:  # stand still, keep the grip
            self._command = np.where(np.arange(len(self._still)) == len(self._still) - 1, self._command, 0)
        action = self._still if self._command is None else self._command
        _, _, terminated, truncated, info = self._env.step(action)
        self._success, self._ended = bool(info["success"]), bool(terminated or truncated)

    def _send_observation(self) -> None:
        if self._connection is None:
            return
        obs = self._env.observe()
        body = {
            "images": {k: v for k, v in obs.items() if getattr(v, "ndim", 0) == 3},
            "proprioception": obs["proprioception"],
            "instruction": obs["instruction"],
            "stamp": time.monotonic(),
            "episode": self._episode,
            "ended": self._ended,
            "success": self._success,
            "force": self._force(),
        }
        # a controller that is behind gets the next one; that it has gone is found by the next read
        with contextlib.suppress(OSError):
            self._connection.send(pack(body), socket.MSG_DONTWAIT)
        if len(self._lines) > 100:
            self._write()

    def _force(self) -> float | None:
        """The larger of the fingers' forces [N], where the simulation has such actuators."""
        scene = getattr(self._env, "scene", None)
        if scene is None:
            return None
        import mujoco

        kind = mujoco.mjtObj.mjOBJ_ACTUATOR
        names = [mujoco.mj_id2name(scene.model, kind, i) or "" for i in range(scene.model.nu)]
        found = [abs(float(scene.data.actuator_force[i])) for i, n in enumerate(names) if n.startswith("gripper0")]
        return max(found, default=None) if found else None

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if self._log is not None and lines:
            with self._log.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")


def main(arguments: list[str]) -> None:
    """Arguments: descriptor of the socket or path to listen at, suite as module:ATTRIBUTE, image size, path of the log
    or '-'."""
    where, suite, size, log = arguments
    path = None if log == "-" else Path(log)
    if where.isdigit():
        Arm(socket.socket(fileno=int(where)), suite, int(size), path).run()
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(where)
        listener.listen(1)
        listener.setblocking(False)
        Arm(None, suite, int(size), path, listener).run()


if __name__ == "__main__":
    main(sys.argv[1:])
