"""A robot's day: connect, check that robot and policy fit, run episodes, label them, come to rest."""

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.link import JoinedSession, Link
from vlamem.deploy.robot.robot_file import RobotFile

_SWITCH_S = 0.0005
"""Threads of this process give way to the loop after it; Python's own 5 ms would be its jitter."""


@dataclass(frozen=True)
class Scheduling:
    """What the operating system gave: whether the loop runs before ordinary processes."""

    realtime: bool
    reason: str


def prepare_process(priority: int = 20) -> Scheduling:
    """Makes this process fit for a control loop; to be called in the loop's thread after the others have started."""
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.disable()
    if not hasattr(os, "sched_setscheduler"):
        return Scheduling(False, "this system has no real-time scheduling")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return Scheduling(False, "not permitted: run as root or with CAP_SYS_NICE for steadier timing")
    return Scheduling(True, f"SCHED_FIFO {priority}")


def restore_process() -> None:
    """Takes `prepare_process` back."""
    gc.enable()
    gc.unfreeze()
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


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
    """One episode until `over(now)`; when it returns the robot is at rest, and memory and server know of the end."""
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
    """What an operator wants to see."""
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
