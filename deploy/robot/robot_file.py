"""The robot file: what the entries of an action mean, the control rate, and the safety limits."""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parent / "files"
_LARGEST = 1 << 20
_DEEPEST = 32
_BETWEEN_KEYS = re.compile(r"[=,\[\]{}\n]")
CHECKED = ("name", "size", "mode", "unit", "low", "high")
"""What must be equal in a robot's file and in the policy's action spec."""


class RobotFileError(ValueError):
    """A robot's file that is incomplete, wrong or made for another policy; the message names entry and mend."""


@dataclass(frozen=True)
class Part:
    """A run of action entries with one meaning; the first six entries must be those of the policy's action spec.

    Attributes:
        name: e.g. "translation", "joints", "gripper".
        size: entries.
        mode: "delta" (from where the robot is, over one policy step) or "absolute".
        unit: physical size of the value 1, e.g. "0.05 m".
        low, high: range of an entry in the policy's spec.
        scale: the value 1 in metres or radians, for speed and box.
        lowest, highest: range that may be commanded; within low and high.
        step: largest change from one command to the next; slowing down is always allowed.
        speed: largest speed of the whole part [m/s or rad/s].
        measured: index in the proprioception at which the present values of this part begin; needed in "absolute" mode.
        grips: whether this is the gripper: commands are not blended, and +1 closes.
        form, frame: what the policy's action spec says besides, where this file is its `?actions=FILE`.
    """

    name: str
    size: int
    mode: str
    unit: str
    low: float
    high: float
    scale: float
    lowest: float
    highest: float
    step: float
    speed: float
    measured: int | None = None
    grips: bool = False
    form: str = ""
    frame: str = ""


@dataclass(frozen=True)
class RobotFile:
    """One robot.

    Attributes:
        name: of the robot.
        control_hz: commands a second.
        policy_hz: steps of the policy a second, as in its spec.
        cameras: images that it gives.
        proprioception: P.
        parts: the action, in order.
        box_part: name of the part that moves the hand through `box_low` to `box_high`; None without a Cartesian box.
        box_low, box_high: [m], of the three entries of the proprioception from `box_measured` on.
        box_measured: where the hand's position begins in the proprioception.
        state_keys, action_keys: names of the entries of proprioception and action at a LeRobot arm, in order.
        gripper_force: above it the gripper closes no further [N]; None where it is not measured.
        force_key: name of the entry of a LeRobot arm that carries the gripper's force [N]; needed there with a limit.
        hold_s: how long the last command is repeated when there is no newer one.
        stop_s: within which a moving part then comes to rest.
        stale_s: a command planned from an older observation than this is not sent.
    """

    name: str
    control_hz: float
    policy_hz: float
    cameras: tuple[str, ...]
    proprioception: int
    parts: tuple[Part, ...]
    hold_s: float
    stop_s: float
    stale_s: float
    box_part: str | None = None
    box_low: tuple[float, ...] = ()
    box_high: tuple[float, ...] = ()
    box_measured: int = 0
    gripper_force: float | None = None
    force_key: str = ""
    state_keys: tuple[str, ...] = ()
    action_keys: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """A."""
        return sum(p.size for p in self.parts)

    def check(self) -> "RobotFile":
        """Itself. Raises RobotFileError naming the first value that makes no sense."""
        for name in ("control_hz", "policy_hz", "hold_s", "stop_s", "stale_s"):
            if not 0 < getattr(self, name) < 1e4:
                raise RobotFileError(f"{name} {getattr(self, name)} of robot '{self.name}' is not above 0")
        if self.proprioception < 1 or not self.parts:
            raise RobotFileError(
                f"robot '{self.name}' has no proprioception or no parts: expected at least one of each"
            )
        if self.gripper_force is not None and not 0 < self.gripper_force < math.inf:
            raise RobotFileError(f"gripper_force {self.gripper_force} of robot '{self.name}' is no force above 0")
        if self.control_hz < self.policy_hz:
            raise RobotFileError(
                f"control_hz {self.control_hz:g} is below policy_hz {self.policy_hz:g}: commands would be left out"
            )
        for part in self.parts:
            where = f"part '{part.name}' of robot '{self.name}'"
            if part.mode not in ("delta", "absolute"):
                raise RobotFileError(f"mode {part.mode!r} of {where}: expected 'delta' or 'absolute'")
            if not part.low <= part.lowest < part.highest <= part.high:
                raise RobotFileError(
                    f"{where} may command {part.lowest} to {part.highest}, outside {part.low} to {part.high}"
                )
            if part.mode == "delta" and not part.lowest <= 0 <= part.highest:
                raise RobotFileError(f"{where} may not command 0, where a delta rests: mend lowest or highest")
            for name in ("step", "speed", "scale", "size"):
                if not 0 < getattr(part, name) < math.inf:
                    raise RobotFileError(f"{name} {getattr(part, name)} of {where}: expected a number above 0")
            self._check_unit(part, where)
            if part.mode == "absolute" and not part.grips and part.measured is None:
                raise RobotFileError(
                    f"{where} is absolute: say with 'measured' where the proprioception has its values"
                )
            self._check_measured(f"measured of {where}", part.measured, part.size)
        for name, keys, size in (
            ("state_keys", self.state_keys, self.proprioception),
            ("action_keys", self.action_keys, self.size),
        ):
            if keys and len(keys) != size:
                raise RobotFileError(f"{name} of robot '{self.name}' names {len(keys)} entries, there are {size}")
        if self.gripper_force is not None and not any(p.grips for p in self.parts):
            raise RobotFileError(f"gripper_force of robot '{self.name}' limits no part: say 'grips = true' in one")
        boxed = [p for p in self.parts if p.name == self.box_part]
        if self.box_part is not None:
            if not boxed or boxed[0].size != 3 or len(self.box_low) != 3 or len(self.box_high) != 3:
                raise RobotFileError(
                    f"box_part '{self.box_part}' of robot '{self.name}' needs 3 entries and two corners"
                )
            if not all(a < b for a, b in zip(self.box_low, self.box_high, strict=True)):
                raise RobotFileError(f"the box of robot '{self.name}' is empty: {self.box_low} to {self.box_high}")
            self._check_box(boxed[0])
        return self

    def _check_measured(self, what: str, first: int | None, size: int) -> None:
        if first is not None and not 0 <= first <= self.proprioception - size:
            raise RobotFileError(
                f"{what} is {first}: {size} values from there are not within the {self.proprioception} of the "
                f"proprioception of robot '{self.name}'"
            )

    def _check_unit(self, part: Part, where: str) -> None:
        """`scale` is what the unit says, where it says it as a number of metres or radians."""
        number, _, unit = part.unit.partition(" ")
        try:
            said = float(number)
        except ValueError:
            return  # a unit in words
        if unit in ("m", "rad") and not math.isclose(said, part.scale, rel_tol=1e-3):
            raise RobotFileError(f"scale {part.scale} of {where} is not its unit, {part.unit!r}: mend one of the two")

    def _check_box(self, part: Part) -> None:
        where = f"the box of robot '{self.name}'"
        if not all(math.isfinite(x) for x in (*self.box_low, *self.box_high)):
            raise RobotFileError(f"{where} is not finite: {self.box_low} to {self.box_high}")
        self._check_measured(f"box_measured, where {where} is measured,", self.box_measured, 3)
        if part.mode == "absolute":
            reach = part.scale * part.lowest, part.scale * part.highest
            if any(low > reach[1] or high < reach[0] for low, high in zip(self.box_low, self.box_high, strict=True)):
                raise RobotFileError(
                    f"{where}, {self.box_low} to {self.box_high}, and what '{part.name}' may command, {reach[0]:g} to "
                    f"{reach[1]:g} m, do not meet: nothing could be commanded"
                )

    def check_spec(self, spec: Mapping[str, Any]) -> None:
        """Raises RobotFileError naming the first thing in which a server's policy differs from this robot."""
        theirs = spec["action"]["components"]
        if [c["size"] for c in theirs] != [p.size for p in self.parts]:
            raise RobotFileError(
                f"the policy's action has parts of {[c['size'] for c in theirs]} entries, robot '{self.name}' takes "
                f"{[p.size for p in self.parts]}: serve a policy made for this robot"
            )
        for part, component in zip(self.parts, theirs, strict=True):
            for name in CHECKED:
                if getattr(part, name) != component[name]:
                    raise RobotFileError(
                        f"{name} of '{part.name}' is {getattr(part, name)!r} for robot '{self.name}' and "
                        f"{component[name]!r} for policy '{spec['name']}': serve a policy made for this robot"
                    )
        if spec["control_hz"] != self.policy_hz:
            raise RobotFileError(
                f"policy '{spec['name']}' steps at {spec['control_hz']:g} Hz, robot '{self.name}' expects "
                f"{self.policy_hz:g}: memory and actions would run at the wrong speed"
            )
        if spec["proprioception_size"] != self.proprioception:
            raise RobotFileError(
                f"policy '{spec['name']}' reads {spec['proprioception_size']} proprioceptive values, robot "
                f"'{self.name}' has {self.proprioception}"
            )
        missing = [c for c in spec["cameras"] if c not in self.cameras]
        if missing:
            raise RobotFileError(
                f"policy '{spec['name']}' needs camera '{missing[0]}', robot '{self.name}' has none such"
            )


def _expected(kind: str, value: object) -> str | None:
    """What an entry of this type has to be, where `value` is something else; None where it fits."""
    if kind.startswith("tuple[float"):
        return None if isinstance(value, tuple) and all(_is_number(v) for v in value) else "a list of numbers"
    if kind.startswith("tuple[str"):
        return None if isinstance(value, tuple) and all(isinstance(v, str) for v in value) else "a list of text"
    if "float" in kind:
        return None if _is_number(value) else "a number"
    if "int" in kind:
        return None if type(value) is int and abs(value) < _LARGEST else "a whole number"
    if "str" in kind:
        return None if isinstance(value, str) else "text"
    return "true or false" if "bool" in kind and not isinstance(value, bool) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e18 < value < 1e18


def _build(cls: type, given: Mapping[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(cls)}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise RobotFileError(f"{where} has an unknown entry '{key}': {hint}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    missing = [n for n, f in known.items() if f.default is MISSING and n not in values]
    if missing:
        raise RobotFileError(f"{where} lacks '{missing[0]}'")
    for name, value in values.items():
        expected = _expected(str(known[name].type), value)
        if expected is not None:
            raise RobotFileError(f"{where}: {name} is {str(value)[:80]!r}, expected {expected}")
    return cls(**values)


def load_robot_file(name: str | Path) -> RobotFile:
    """The robot's file at a path, or one that ships with vlamem by its name.

    Raises RobotFileError when it does not exist, is no TOML, or has something that makes no sense.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = SHIPPED / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise RobotFileError(f"there is no robot's file {path}: give a .toml file, or one of {known}")
    try:
        if path.stat().st_size > _LARGEST:
            raise RobotFileError(f"{path} has {path.stat().st_size} bytes, a robot's file has at most {_LARGEST}")
        text = path.read_text(encoding="utf-8")
        if max(part.count(".") for part in _BETWEEN_KEYS.split(text)) > _DEEPEST:  # tomllib takes minutes for them
            raise RobotFileError(f"{path} has a key of more than {_DEEPEST} parts: a robot's file has no such key")
        body = tomllib.loads(text)
    except RobotFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise RobotFileError(f"{path} is not TOML: {str(error)[:200]}") from error
    parts = body.pop("part", [])
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise RobotFileError(f"{path} has no [[part]]: say what the entries of an action mean")
    made = tuple(_build(Part, part, f"{path}, part {i + 1}") for i, part in enumerate(parts))
    robot: RobotFile = _build(RobotFile, body | {"parts": made}, str(path))
    return robot.check()
