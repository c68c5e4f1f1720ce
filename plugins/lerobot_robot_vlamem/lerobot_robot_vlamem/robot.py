"""A simulated Panda as a robot of lerobot: it moves on while nobody looks, and holds still when nobody commands it.

When the last of its episodes has ended everything stands as it was, and commands move nothing.
"""

import logging
import time
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
from lerobot.robots import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError
from numpy.typing import NDArray

from lerobot_robot_vlamem.configuration import VlamemPandaConfig
from vlamem.policies.lerobot.watch import WATCH, Watched
from vlamem.sim.suites.tabletop import SUITE

logger = logging.getLogger(__name__)

STATE = ("x.pos", "y.pos", "z.pos", "qw.pos", "qx.pos", "qy.pos", "qz.pos", "opening.pos")
"""Hand position [m], orientation, gripper opening [m]: observation.state."""
ACTION = ("dx.vel", "dy.vel", "dz.vel", "rx.vel", "ry.vel", "rz.vel", "gripper.vel")
"""OSC_POSE: translation in 0.05 m, rotation in 0.5 rad, gripper -1 open to +1 closed; lerobot keeps .pos and .vel."""
_STEP_M = 0.05


class VlamemPanda(Robot):  # type: ignore[misc]  # lerobot's classes have no types here
    """One thread owns the simulation and its renderer and makes a control step every 50 ms of the wall clock."""

    config_class = VlamemPandaConfig
    name = "vlamem_panda"

    def __init__(self, config: VlamemPandaConfig) -> None:
        super().__init__(config)
        self.config = config
        self.cameras: dict[str, Any] = {}
        self._lock, self._stop, self._first = Lock(), Event(), Event()
        self._thread: Thread | None = None
        self._seen: dict[str, Any] = {}
        self._command: NDArray[np.float32] | None = None
        self._grip = np.float32(-1.0)
        self._failure: BaseException | None = None
        self.steps, self.late, self.successes = 0, 0, 0

    @property
    def observation_features(self) -> dict[str, Any]:
        """The hand's state and both cameras."""
        image = (self.config.size, self.config.size, 3)
        return {**dict.fromkeys(STATE, float), "agentview": image, "wrist": image}

    @property
    def action_features(self) -> dict[str, Any]:
        """One step of the hand."""
        return dict.fromkeys(ACTION, float)

    @property
    def is_connected(self) -> bool:
        """Whether the simulation runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_calibrated(self) -> bool:
        """Always: there is nothing to calibrate."""
        return True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def connect(self, calibrate: bool = True) -> None:
        """Starts the simulation; raises what it raised when it cannot be made, e.g. without a renderer."""
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self.name} runs already")
        self._stop.clear()
        self._first.clear()
        self._failure = None
        self._thread = Thread(target=self._run, name="vlamem_panda", daemon=True)
        self._thread.start()
        if not self._first.wait(self.config.connect_s) and self._failure is None:
            self.disconnect()
            raise TimeoutError(
                f"no image of the simulation within {self.config.connect_s:g} s: check with 'vlamem doctor'"
            )
        self._check()

    def get_observation(self) -> dict[str, Any]:
        """What the cameras saw at the last control step; raises when the simulation has stopped."""
        self._check()
        with self._lock:
            return dict(self._seen)

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Gives the command of the next control step and returns it as it will be carried out, cut to [-1, 1].

        Positions (lerobot drives back to where it began with the names of the state) move the hand towards them.
        Raises ValueError for an action that is neither.
        """
        self._check()
        if all(name in action for name in ACTION):
            raw = np.array([float(action[name]) for name in ACTION], np.float32)
            if not np.isfinite(raw).all():
                raise ValueError(f"action {dict(action)} has values that are not finite")
            command = np.clip(raw, -1, 1)
        elif all(name in action for name in STATE[:3]):
            with self._lock:
                here = np.array([self._seen[name] for name in STATE[:3]])
            way = np.array([float(action[name]) for name in STATE[:3]]) - here
            command = np.concatenate([np.clip(way / _STEP_M, -1, 1), np.zeros(3), [self._grip]]).astype(np.float32)
        else:
            raise ValueError(f"action has {sorted(action)}, expected {list(ACTION)}")
        with self._lock:
            self._command = command
        return dict(zip(ACTION, command.tolist(), strict=True))

    def disconnect(self) -> None:
        """Stops the simulation."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout=10.0)
        if self.late:
            logger.info(
                "%d of %d control steps began late: this machine is slower than real time", self.late, self.steps
            )

    def _check(self) -> None:
        if self._failure is not None:
            raise RuntimeError(f"the simulation stopped: {self._failure}") from self._failure
        if not self.is_connected:
            raise DeviceNotConnectedError(f"{self.name} does not run: connect it first")

    def _run(self) -> None:
        try:
            self._live()
        except BaseException as error:  # carried to whoever asks the robot next
            self._failure = error
            self._first.set()

    def _live(self) -> None:
        config = self.config
        env = SUITE.make(config.task, image_size=config.size, render=config.render)  # type: ignore[arg-type]  # checked there
        env.render_on_step = False
        try:
            episode, last = config.episode, config.episode + config.episodes - 1
            env.reset(options={"episode": episode})
            self._show(env.observe())
            self._first.set()
            period = 1.0 / env.control_hz
            due = time.monotonic() + period
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                behind = time.monotonic() - due
                self.late += behind > period
                due = due + period if behind <= period else time.monotonic() + period
                _, _, terminated, truncated, info = env.step(self._next())
                self.steps += 1
                if terminated or truncated:
                    self.successes += bool(info["success"])
                    logger.info("episode %d: %s", episode, "success" if info["success"] else "failure")
                    if episode == last:
                        self._show(env.observe())
                        self._stop.wait()
                        return
                    episode += 1
                    env.reset(options={"episode": episode})
                self._show(env.observe())
        finally:
            env.close()

    def _next(self) -> NDArray[np.float32]:
        """The command that came since the last step, or to stay where it is; zeros would open the gripper half."""
        with self._lock:
            command, self._command = self._command, None
        if command is None:
            return np.array([0, 0, 0, 0, 0, 0, self._grip], np.float32)
        self._grip = command[-1]
        return command

    def _show(self, seen: dict[str, Any]) -> None:
        images = {name: seen[name] for name in ("agentview", "wrist")}
        state = seen["proprioception"]
        WATCH.publish(Watched(images, np.asarray(state, np.float32)))
        with self._lock:
            self._seen = {**dict(zip(STATE, map(float, state), strict=True)), **images}
