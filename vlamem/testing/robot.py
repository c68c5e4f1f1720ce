"""A conformance checker for robots, in the manner of gymnasium's check_env; the robot is not moved."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vlamem.deploy.robot.limits import Limits
from vlamem.deploy.robot.protocol import Robot, RobotError, RobotObservation
from vlamem.deploy.robot.robot_file import RobotFile, load_robot_file
from vlamem.testing.errors import ConformanceError, require

_METHODS = ("connect", "observe", "send", "close")


def check_robot(
    robot: Robot,
    robot_file: RobotFile | str | Path,
    commands: int = 50,
    first: Sequence[float] | None = None,
    begin: Callable[[], object] = lambda: None,
) -> None:
    """Checks that `robot` keeps the promises of `vlamem.deploy.robot.protocol.Robot` and of its file.

    It is connected, observed, commanded to stay where it is, and closed again; connecting may switch its motors on.
    Observations have the cameras of the file as uint8 [H, W, 3], as many finite entries of proprioception as it says,
    a stamp of the monotonic clock that moves on, and the gripper's force where the file limits it; what was observed
    is not overwritten. `send` takes the command of rest at the control rate and leaves it unchanged, and the measured
    entries of each part stay within one `step` of where they were.

    Args:
        robot: to check, not connected.
        robot_file: its file, or the path or shipped name of it.
        commands: of rest, sent at the control rate.
        first: a command that keeps it where it is [A], e.g. with the gripper open as it stands; needed where the file
            does not say how an absolute part is measured, so that no rest is known before a first command.
        begin: called once the robot is connected, for one that has something to begin before it can be observed.

    Raises ConformanceError naming the first broken promise, RobotFileError for a file that is wrong, ValueError where
    `first` is needed, or is no command within the file's limits.
    """
    missing = [name for name in _METHODS if not callable(getattr(robot, name, None))]
    require(not missing, f"a robot has {', '.join(_METHODS)}", f"this one lacks {', '.join(missing)}")
    if commands < 1:
        raise ValueError(f"commands is {commands}: expected 1 or more")
    file = robot_file if isinstance(robot_file, RobotFile) else load_robot_file(robot_file)
    try:
        robot.connect()
    except RobotError as error:
        raise ConformanceError(f"connect makes the robot ready: {error}") from error
    try:
        begin()
        _check_rest(robot, file, commands, first)
    finally:
        robot.close()


def _check_rest(robot: Robot, file: RobotFile, commands: int, start: Sequence[float] | None) -> None:
    """Observes and rests for so many commands, with every check on the way."""
    first = _observed(robot, file)
    kept = {name: np.array(image) for name, image in first.images.items()}
    body, shapes = np.array(first.proprioception, np.float64), _shapes(first)
    limits, obs = Limits(file), first
    rest = limits.rest(None, obs) if start is None else np.array(start, np.float64)
    if rest is None:
        parts = [part.name for part in file.parts if part.mode == "absolute" and part.measured is None]
        raise ValueError(f"part '{parts[0]}' is absolute and not measured: give check_robot first=, where it stands")
    if start is not None and (broken := limits.violations(rest, None, obs)):
        raise ValueError(f"first is {list(start)}: {broken[0]}")
    for _ in range(commands):
        command = rest.copy()
        try:
            robot.send(command)
        except RobotError as error:
            raise ConformanceError(f"send takes the command of rest, {rest.tolist()}: {error}") from error
        require(np.array_equal(command, rest), "send leaves the command as it was")
        time.sleep(1 / file.control_hz)
        obs = _observed(robot, file)
        require(_shapes(obs) == shapes, "an observation keeps its shapes", f"{shapes} became {_shapes(obs)}")
        _check_still(file, body, obs)
    require(obs.stamp > first.stamp, "the stamp moves on", f"it was {first.stamp} for {commands} commands")
    age = time.monotonic() - obs.stamp
    require(age <= file.stale_s, f"an observation is at most stale_s = {file.stale_s:g} s old", f"{age:.2f} s")
    overwritten = [name for name, image in kept.items() if not np.array_equal(image, first.images[name])]
    require(not overwritten, "an observation is not overwritten by the next", ", ".join(overwritten))
    require(np.array_equal(body, first.proprioception), "an observation is not overwritten by the next")


def _observed(robot: Robot, file: RobotFile) -> RobotObservation:
    """A checked observation."""
    try:
        obs = robot.observe()
    except RobotError as error:
        raise ConformanceError(f"observe gives the newest observation: {error}") from error
    require(isinstance(obs, RobotObservation), "observe gives a RobotObservation", f"it is a {type(obs).__name__}")
    for camera in file.cameras:
        require(camera in obs.images, f"camera '{camera}' of the file is observed", f"there are {sorted(obs.images)}")
        image = obs.images[camera]
        form = f"{getattr(image, 'dtype', type(image).__name__)} {list(getattr(image, 'shape', ()))}"
        good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        require(good and image.size > 0, f"camera '{camera}' is uint8 [H, W, 3]", f"it is {form}")
    body = np.asarray(obs.proprioception)
    require(
        body.shape == (file.proprioception,) and body.dtype.kind == "f",
        f"proprioception is floating point [{file.proprioception}], as the file says",
        f"it is {body.dtype} {list(body.shape)}",
    )
    require(bool(np.isfinite(body).all()), "proprioception is finite", str(body.tolist()))
    require(
        math.isfinite(obs.stamp) and obs.stamp <= time.monotonic(),
        "the stamp is of the monotonic clock",
        f"it is {obs.stamp} at {time.monotonic()}",
    )
    if file.gripper_force is not None:
        require(obs.gripper_force is not None, "the gripper's force is observed, which the file limits")
    return obs


def _check_still(file: RobotFile, body: np.ndarray, obs: RobotObservation) -> None:
    """That every part which is measured stays within one step of where it was."""
    for part in file.parts:
        if part.measured is None:
            continue
        at = slice(part.measured, part.measured + part.size)
        moved = float(np.abs(np.asarray(obs.proprioception, np.float64)[at] - body[at]).max())
        require(
            moved <= part.step,
            f"part '{part.name}' stays where it is at the command of rest",
            f"it moved by {moved:g}, more than a step of {part.step:g}: units, order or 'measured' may be wrong",
        )


def _shapes(obs: RobotObservation) -> dict[str, tuple[int, ...]]:
    return {name: image.shape for name, image in obs.images.items()} | {"proprioception": obs.proprioception.shape}
