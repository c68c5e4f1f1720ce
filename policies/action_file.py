"""What the entries of an action mean, from a TOML file: a robot's file, or one that says no more than this.

[[part]]
name = "joints"
size = 5
mode = "absolute"           # or "delta"
unit = "1 deg"              # physical size of the value 1
low = -180.0                # range of an entry
high = 180.0
form = "joint"              # xyz, axis_angle, quaternion, joint or gripper; see ActionComponent
frame = "none"              # or "base", "end_effector"
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from vlamem.core.spec import BI_SO101, OSC_POSE, SO101, ActionComponent, ActionSpec, SpecMismatchError

ACTIONS = {"osc_pose": OSC_POSE, "so101": SO101, "bi_so101": BI_SO101}
"""Action conventions by name; a checkpoint does not say what its actions mean."""
FORMS = ("xyz", "axis_angle", "quaternion", "joint", "gripper")
_NEEDED = {"name": str, "size": int, "mode": str, "unit": str, "low": float, "high": float}
_OF_A_ROBOT = ("scale", "lowest", "highest", "step", "speed", "measured", "grips")
"""Entries of a robot's file that say how it may be moved, and not what an action means."""


def actions_of(name: str) -> ActionSpec:
    """The convention called `name`, or the one that the TOML file at that path says. Raises SpecMismatchError."""
    if name.endswith(".toml"):
        return read_actions(Path(name))
    if name not in ACTIONS:
        raise SpecMismatchError(
            f"unknown actions '{name}': choose one of {', '.join(ACTIONS)}, or a .toml file that says what each "
            "entry means, e.g. the robot's"
        )
    return ACTIONS[name]


def read_actions(path: Path) -> ActionSpec:
    """The action spec in a file. Raises SpecMismatchError for a file that is missing, no TOML, or says too little."""
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecMismatchError(
            f"actions {path}: there is no such file, expected one with a [[part]] for each"
        ) from error
    except ValueError as error:
        raise SpecMismatchError(f"actions {path}: is no TOML ({error})") from error
    parts = body.get("part")
    if not isinstance(parts, list) or not parts:
        raise SpecMismatchError(f"actions {path}: has no [[part]], one for each run of entries with one meaning")
    return ActionSpec(tuple(_component(path, number, part) for number, part in enumerate(parts, 1)))


def _component(path: Path, number: int, part: dict[str, Any]) -> ActionComponent:
    where = f"part {number} of actions {path}"
    known = (*_NEEDED, "form", "frame", *_OF_A_ROBOT)
    for key in part:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise SpecMismatchError(f"{where} has an unknown entry '{key}': {hint}")
    for key, kind in _NEEDED.items():
        value = part.get(key)
        fits = type(value) in (int, float) if kind is float else type(value) is kind
        if not fits:
            raise SpecMismatchError(f"{where}: {key} is {value!r}, expected {_said(kind)}")
    if part["mode"] not in ("absolute", "delta"):
        raise SpecMismatchError(f"{where}: mode is {part['mode']!r}, expected absolute or delta")
    if not part["low"] < part["high"] or part["size"] < 1:
        raise SpecMismatchError(f"{where}: {part['size']} entries from {part['low']} to {part['high']}, expected some")
    votes = part.get("grips", False) and (part["low"], part["high"]) == (-1, 1)
    form = part.get("form", "gripper" if votes else "joint")
    if form not in FORMS:
        raise SpecMismatchError(f"{where}: form is {form!r}, expected one of {', '.join(FORMS)}")
    return ActionComponent(
        part["name"], part["size"], form, part["mode"], part.get("frame", "none"), part["unit"],
        float(part["low"]), float(part["high"]),
    )  # fmt: skip


def _said(kind: type) -> str:
    return {str: "text", int: "a whole number", float: "a number"}[kind]
