"""Safety limits, applied to every command before the robot gets it; what was clipped is counted by kind."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.protocol import RobotObservation, Vector
from vlamem.deploy.robot.robot_file import Part, RobotFile

Command = NDArray[np.float64]
_SLACK = 1e-6


@dataclass(frozen=True)
class Clip:
    """One command that a limit changed or refused.

    Attributes:
        kind: "nan", "range", "speed", "step", "box" or "force".
        part: name of the part.
        requested, sent: values of the part before and after.
    """

    kind: str
    part: str
    requested: tuple[float, ...]
    sent: tuple[float, ...]


class Limits:
    """The limits of a robot's file, applied to every command; `counts` has the number of clips by kind."""

    def __init__(self, robot: RobotFile) -> None:
        self.robot = robot
        self.counts: Counter[str] = Counter()
        self._slices: list[tuple[Part, slice]] = []
        at = 0
        for part in robot.parts:
            self._slices.append((part, slice(at, at + part.size)))
            at += part.size

    def apply(self, requested: Vector, last: Vector | None, obs: RobotObservation) -> tuple[Command | None, list[Clip]]:
        """What may be sent in place of `requested`, and what was clipped; None when nothing of it may be sent.

        `last` is the last command that was sent, None before the first. An absolute part that is outside its range or
        box may stay where it is or come back within speed and step, and goes no further out. While the proprioception
        is not finite every command is replaced by rest.
        """
        command = np.array(requested, np.float64)
        clips: list[Clip] = []
        if command.shape != (self.robot.size,) or not np.isfinite(command).all():
            self.counts["nan"] += 1
            return None, [Clip("nan", "", tuple(map(float, command.ravel())), ())]
        if not readable(obs):
            self.counts["nan"] += 1
            rest = self.rest(last, obs)
            sent = () if rest is None else tuple(map(float, rest))
            return rest, [Clip("nan", "proprioception", tuple(map(float, command)), sent)]
        for part, at in self._slices:
            base = self.base(part, at, last, obs)
            value = self._into(
                clips, part, "range", command[at], _inside(part, command[at], base, part.lowest, part.highest)
            )
            value = self._into(clips, part, "box", value, self._box(part, value, base, obs))
            value = self._into(clips, part, "force", value, self._force(part, value, base, obs))
            value = self._into(clips, part, "speed", value, self._speed(part, value, base))
            value = self._into(clips, part, "step", value, self._step(part, value, base))
            command[at] = value
        return command, clips

    def violations(self, command: Vector, last: Vector | None, obs: RobotObservation) -> list[str]:
        """Every limit that a command breaks, worked out apart from `apply`; empty for one that may be sent.

        Outside range and box is an absolute value that is further out than the last command, or at first the robot.
        """
        found = []
        c = np.asarray(command, np.float64)
        if c.shape != (self.robot.size,) or not np.isfinite(c).all():
            return [f"not {self.robot.size} finite numbers: {c.tolist()}"]
        unreadable = not np.isfinite(np.asarray(obs.proprioception, np.float64)).all()
        for part, at in self._slices:
            value, base = c[at], self.base(part, at, last, obs)
            delta = part.mode == "delta"
            from_ = None if delta else base
            lowest = part.lowest if from_ is None else np.minimum(part.lowest, from_)
            highest = part.highest if from_ is None else np.maximum(part.highest, from_)
            if (value < lowest - _SLACK).any() or (value > highest + _SLACK).any():
                found.append(f"range of {part.name}: {value.tolist()}")
            limit, force = self.robot.gripper_force, obs.gripper_force
            if part.grips and limit is not None and force is not None and not force <= limit:
                most = np.zeros(part.size) if delta or base is None else base
                if (value > most + _SLACK).any():
                    found.append(f"force of {part.name}: closes at {force} N: {value.tolist()}")
            if unreadable:
                still = np.zeros(part.size) if delta else base
                if still is None or not (np.abs(value - still) <= _SLACK).all():
                    found.append(f"motion of {part.name} while the proprioception is not finite: {value.tolist()}")
                continue
            rate = self.robot.policy_hz if delta else self.robot.control_hz
            moved = value if delta else value - base if base is not None else np.zeros(1)
            if np.linalg.norm(part.scale * moved) * rate > part.speed * (1 + 1e-6) + _SLACK:
                found.append(f"speed of {part.name}: {np.linalg.norm(part.scale * moved) * rate:.4f}")
            if base is not None:
                change = np.abs(value - base)
                slowing = delta & (np.sign(value) * np.sign(base) >= 0) & (np.abs(value) <= np.abs(base))
                reach = np.where(delta & (np.sign(value) * np.sign(base) < 0), np.abs(value), change)
                if ((reach > part.step + _SLACK) & ~slowing).any():
                    found.append(f"step of {part.name}: {change.max():.4f}")
            if part.name == self.robot.box_part:
                found += self._outside(part, value, base, obs)
        return found

    def rest(self, last: Vector | None, obs: RobotObservation) -> Command | None:
        """The command that keeps the robot where it is, be that inside the limits or not; None when that is unknown
        before the first command, or needs a measurement that is not finite."""
        command = np.zeros(self.robot.size)
        for part, at in self._slices:
            if part.mode == "delta":
                continue
            base = self.base(part, at, last, obs)
            if base is None or not np.isfinite(base).all():
                return None
            command[at] = base
        return command

    def stepped(self, command: Vector, last: Vector) -> Command:
        """`command` no further from `last` than the parts' steps."""
        near = np.array(command, np.float64)
        for part, at in self._slices:
            near[at] = self._step(part, near[at], np.asarray(last, np.float64)[at])
        return near

    def moving(self) -> NDArray[np.bool_]:
        """[A], entries in which a command that is repeated goes on moving."""
        return np.concatenate([np.full(p.size, p.mode == "delta") for p in self.robot.parts])

    def blended(self) -> NDArray[np.bool_]:
        """[A], entries that may be mixed from two chunks; a gripper's half-way is neither."""
        return np.concatenate([np.full(p.size, not p.grips) for p in self.robot.parts])

    def base(self, part: Part, at: slice, last: Vector | None, obs: RobotObservation) -> Command | None:
        """Where a part's command starts from: the last one, at first what is measured, at rest for a delta."""
        if last is not None:
            return np.asarray(last, np.float64)[at]
        if part.mode == "delta":
            return np.zeros(part.size)
        if part.measured is None:
            return None
        return np.asarray(obs.proprioception, np.float64)[part.measured : part.measured + part.size]

    def _into(self, clips: list[Clip], part: Part, kind: str, before: Any, after: Any) -> Any:
        if np.abs(before - after).max() > 1e-9:
            self.counts[kind] += 1
            clips.append(Clip(kind, part.name, tuple(map(float, before)), tuple(map(float, after))))
        return after

    def _force(self, part: Part, value: Command, base: Command | None, obs: RobotObservation) -> Command:
        most, force = self.robot.gripper_force, obs.gripper_force
        if not part.grips or most is None or force is None or force <= most:
            return value
        return np.minimum(value, 0.0 if base is None or part.mode == "delta" else np.minimum(base, 0.0))

    def _speed(self, part: Part, value: Command, base: Command | None) -> Command:
        if part.mode == "delta":
            speed = float(np.linalg.norm(part.scale * value)) * self.robot.policy_hz
            return value if speed <= part.speed else value * (part.speed / speed)
        if base is None:
            return value
        speed = float(np.linalg.norm(part.scale * (value - base))) * self.robot.control_hz
        return value if speed <= part.speed else base + (value - base) * (part.speed / speed)

    def _step(self, part: Part, value: Command, base: Command | None) -> Command:
        if base is None:
            return value
        if part.mode == "delta":  # from rest or from the last command, whichever is nearer: slowing down is free
            return np.clip(value, np.minimum(base, 0) - part.step, np.maximum(base, 0) + part.step)
        return np.clip(value, base - part.step, base + part.step)

    def _box(self, part: Part, value: Command, base: Command | None, obs: RobotObservation) -> Command:
        if part.name != self.robot.box_part:
            return value
        low, high = np.array(self.robot.box_low), np.array(self.robot.box_high)
        if part.mode == "absolute":
            return _inside(part, value, base, low / part.scale, high / part.scale)
        position = self._position(obs)
        return np.clip(
            value, np.minimum((low - position) / part.scale, 0), np.maximum((high - position) / part.scale, 0)
        )

    def _outside(self, part: Part, value: Command, base: Command | None, obs: RobotObservation) -> list[str]:
        low, high = np.array(self.robot.box_low), np.array(self.robot.box_high)
        from_ = self._position(obs)
        if part.mode == "absolute":
            from_ = low if base is None else part.scale * base
        goal = part.scale * value + (from_ if part.mode == "delta" else 0)
        out = (goal < np.minimum(low, from_) - 1e-6) | (goal > np.maximum(high, from_) + 1e-6)
        return [f"box: {goal.round(4).tolist()}"] if out.any() else []

    def _position(self, obs: RobotObservation) -> Command:
        at = self.robot.box_measured
        return np.asarray(obs.proprioception, np.float64)[at : at + 3]


def readable(obs: RobotObservation) -> bool:
    """Whether the proprioception is finite."""
    return bool(np.isfinite(np.asarray(obs.proprioception, np.float64)).all())


def _inside(part: Part, value: Command, base: Command | None, low: Any, high: Any) -> Command:
    """Within `low` and `high`; an absolute entry that already is outside may stay where it is."""
    inside = np.clip(value, low, high)
    return inside if base is None or part.mode == "delta" else np.where(value == base, value, inside)
