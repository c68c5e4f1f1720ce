"""The steps of a run: join the server, check that robot and policy fit, play episodes, drain the link."""

import time
from collections.abc import Callable
from typing import Any

from vlamem.deploy.robot.connection import JoinedSession
from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.link import Link
from vlamem.deploy.robot.robot_file import RobotFile


def join(link: Link, robot_file: RobotFile, timeout_s: float = 30.0) -> JoinedSession:
    """Reaches the server and checks that its policy is one for this robot.

    Raises LinkError when there is no server, RobotFileError when the two do not fit.
    """
    joined = link.start(timeout_s)
    try:
        robot_file.check_spec(joined.metadata["spec"])
    except BaseException:
        link.close()
        raise
    return joined


def run_episode(
    controller: Controller,
    link: Link,
    instruction: str,
    episode: int,
    over: Callable[[float], bool],
    step: int = -1,
) -> None:
    """One episode until `over(now)`; when it returns the robot is at rest, and the end is on its way to the server."""
    controller.begin(instruction, episode, step)
    controller.run(over)
    controller.rest()
    link.end(episode)


def drain(link: Link, seconds: float) -> bool:
    """Waits until the server has every frame and end, and has or refuses every label; False when it took longer."""
    until = time.monotonic() + seconds
    while not link.drained and time.monotonic() < until:
        time.sleep(0.02)
    return link.drained


def status_of(controller: Controller, link: Link, events: EventLog) -> dict[str, Any]:
    """The state of a run as JSON values, for the operator."""
    return {
        "mode": controller.mode.value,
        "episode": controller.episode,
        "connected": link.connected,
        "trouble": [line for line in (link.trouble, events.trouble) if line],
        "frames_waiting": link.waiting,
        "labels_waiting": link.unacknowledged,
        "clips": dict(controller.limits.counts),
        "events": dict(events.counts),
        "deadline_misses": controller.timing.misses,
    }
