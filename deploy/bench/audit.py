"""What was commanded, judged after the fact and apart from the controller that commanded it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot import Limits, Mode, RobotFile, RobotObservation, Round


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        commands: sent.
        out_of_limit: commands that break a limit.
        stale: commands of another episode's chunk, of a chunk that was too old, or moving where nothing was planned.
        examples: the first findings in words.
    """

    commands: int
    out_of_limit: int
    stale: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Seams:
    """Changes between commands of consecutive rounds, where one chunk gives way to another and elsewhere.

    Attributes:
        jumps, steps: largest entry of the change of command, at seams and within chunks, p95 (per policy step).
        ratio: of the two.
        acceleration_ratio, jerk_ratio: likewise of second and third differences.
        n: seams.
    """

    jumps: float
    steps: float
    ratio: float
    acceleration_ratio: float
    jerk_ratio: float
    n: int


def audit(rounds: Sequence[Round], began: Mapping[int, float], robot: RobotFile) -> Audit:
    """Judges every round; `began` is when each episode began, as whoever began it wrote it down."""
    limits = Limits(robot)
    moving = limits.moving()
    found: list[str] = []
    commands = out = stale = 0
    last, episode = None, 0
    stamp, since = None, 0.0
    taken: dict[int, float] = {}  # by step, since when the robot had been showing what it was planned from
    for r in rounds:
        if r.episode != episode:
            last, episode, taken = None, r.episode, {}
        if r.stamp != stamp:
            stamp, since = r.stamp, r.t
        taken.setdefault(math.floor((r.t - began[r.episode]) * robot.policy_hz + 1e-9), since)
        if r.command is None:
            continue
        commands += 1
        wrong = limits.violations(r.command, last, RobotObservation({}, r.proprioception, r.stamp, r.gripper_force))
        if wrong:
            out += 1
            found.append(f"episode {r.episode}, t {r.t:.3f}: {wrong[0]}")
        why = _stale(r, last, began[r.episode], taken, robot, moving)
        if why:
            stale += 1
            found.append(f"episode {r.episode}, t {r.t:.3f}: {why}")
        last = r.command
    return Audit(commands, out, stale, tuple(found[:20]))


def _stale(
    r: Round, last: object, began: float, taken: Mapping[int, float], robot: RobotFile, moving: NDArray[np.bool_]
) -> str:
    assert r.command is not None
    if r.planned is not None:
        if r.planned.episode != r.episode:
            return f"a command of episode {r.planned.episode}"
        due = began + r.planned.step / robot.policy_hz
        age = r.t - min(due, taken.get(r.planned.step, due))
        return f"a command planned from an observation {age:.3f} s old" if age > robot.stale_s + 1e-6 else ""
    before = np.zeros(len(r.command)) if last is None else np.asarray(last)
    if (np.abs(r.command[moving]) > np.abs(before[moving]) + 1e-9).any():
        return f"{r.mode.value}: faster than the last command"
    if last is None and np.abs(r.command[moving]).max(initial=0.0) > 0:
        return "motion before the first chunk"
    return ""


def received_elsewhere(log: Path, rounds: Iterable[Round]) -> int:
    """Commands that an arm wrote down in another episode than they were sent. Raises OSError when it wrote nothing."""
    sent: dict[int, list[list[float]]] = {}
    for r in rounds:
        if r.command is not None:
            sent.setdefault(r.episode, []).append([float(x) for x in r.command])
    at: dict[int, int] = {}
    strange = 0
    for line in log.read_text(encoding="utf-8").splitlines():
        _, episode, command = json.loads(line)
        mine = sent.get(episode, [])
        start = at.get(episode, 0)
        try:
            at[episode] = mine.index(command, start) + 1
        except ValueError:
            strange += command not in mine
    return strange


def seams(rounds: Sequence[Round], robot: RobotFile) -> Seams | None:
    """How much a change of chunk shows in what was commanded; None where no chunk ever gave way to another."""
    limits = Limits(robot)
    kept = limits.blended()
    moved: dict[str, list[tuple[float, float, float]]] = {"seam": [], "within": []}
    for block in _running(rounds):
        by_step = [block[0]]
        for r in block[1:]:  # one command a policy step
            assert r.planned is not None
            assert by_step[-1].planned is not None
            if (r.planned.step + r.planned.index) != (by_step[-1].planned.step + by_step[-1].planned.index):
                by_step.append(r)
        values = np.array([r.command for r in by_step])[:, kept]
        for i in range(3, len(by_step)):
            here, before = by_step[i].planned, by_step[i - 1].planned
            assert here is not None
            assert before is not None
            differences = [float(np.abs(np.diff(values[i - n : i + 1], n, axis=0)).max()) for n in (1, 2, 3)]
            moved["seam" if here.step != before.step else "within"].append(
                (differences[0], differences[1], differences[2])
            )
    if not moved["seam"] or not moved["within"]:
        return None
    at, within = (np.percentile(np.array(moved[k]), 95, axis=0) for k in ("seam", "within"))
    ratio = at / np.maximum(within, 1e-9)
    return Seams(float(at[0]), float(within[0]), float(ratio[0]), float(ratio[1]), float(ratio[2]), len(moved["seam"]))


def _running(rounds: Sequence[Round]) -> list[list[Round]]:
    """Uninterrupted stretches of planned commands."""
    blocks: list[list[Round]] = []
    block: list[Round] = []
    for r in rounds:
        if r.planned is not None and r.mode is Mode.RUN and (not block or block[-1].episode == r.episode):
            block.append(r)
        else:
            if len(block) > 8:
                blocks.append(block)
            block = [r] if r.planned is not None and r.mode is Mode.RUN else []
    return [*blocks, block] if len(block) > 8 else blocks
