"""deploy/robot/robot_file.py: a file that would break at run time, or that is none, is refused by name."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from vlamem.deploy.robot.robot_file import SHIPPED, Part, RobotFile, RobotFileError, load_robot_file

TEXT = (SHIPPED / "tabletop.toml").read_text()


def loaded(folder: Path, text: str | bytes) -> RobotFile:
    path = folder / "arm.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_robot_file(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("scale = 0.05", "scale = inf", "scale is 'inf', expected a number"),
        (
            "scale = 0.05",
            "scale = 0.5",
            "scale 0.5 of part 'translation' of robot 'tabletop' is not its unit, '0.05 m'",
        ),
        ("speed = 1.5", "speed = nan", "speed is 'nan'"),
        ("step = 1.0", f"step = 1{'0' * 400}", "step is '1000"),
        ("stale_s = 0.8", "stale_s = inf", "stale_s is 'inf'"),
        ("gripper_force = 60.0", "gripper_force = -1.0", "gripper_force -1.0"),
        ("box_measured = 0", "box_measured = 6", "3 values from there are not within the 8"),
        ("box_measured = 0", "box_measured = -1", "3 values from there are not within the 8"),
        ("box_low = [-0.30, -0.35, -0.01]", "box_low = [-inf, -0.35, -0.01]", "box_low"),
        ("box_low = [-0.30, -0.35, -0.01]", 'box_low = "low"', "box_low is 'low', expected a list of numbers"),
        ('cameras = ["agentview", "wrist"]', 'cameras = "wrist"', "cameras is 'wrist', expected a list of text"),
        ("grips = true", 'grips = "no"', "grips is 'no', expected true or false"),
        ("proprioception = 8", "proprioception = 0", "no proprioception"),
        ('name = "tabletop"', "name = 3", "name is '3', expected text"),
    ],
)
def test_a_value_that_would_break_at_run_time_is_refused_by_name(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert TEXT.count(old) >= 1
    with pytest.raises(RobotFileError) as error:
        loaded(tmp_path, TEXT.replace(old, new, 1))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"\x00", b"a = " + b"[" * 100_000, b"part = [1]", b"#" * (2 << 20), b"[[part]]\n[[part]]"]
)
def test_what_is_no_robots_file_is_one_error(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(RobotFileError, match=r"arm\.toml"):
        loaded(tmp_path, text)


JOINTS = Part("joints", 6, "absolute", "1 rad", -3, 3, 1.0, -2, 2, 0.2, 4.0, measured=0)
ARM = RobotFile("arm", 50, 20, ("front",), 8, (JOINTS,), 0.2, 0.2, 1.0)
HAND = Part("hand", 3, "absolute", "1 m", -1, 1, 1.0, 0.2, 0.5, 0.1, 1.0, measured=0)


@pytest.mark.parametrize("measured", [-1, 3, 8])
def test_a_part_that_is_measured_beyond_the_proprioception_is_refused(measured: int) -> None:
    ARM.check()
    with pytest.raises(RobotFileError, match=r"measured of part 'joints'.*6 values from there are not within the 8"):
        replace(ARM, parts=(replace(JOINTS, measured=measured),)).check()


def test_a_box_that_the_range_never_meets_is_refused() -> None:
    boxed: dict[str, Any] = {"parts": (HAND,), "box_part": "hand", "box_low": (0.1, 0.1, 0.1)}
    replace(ARM, **boxed, box_high=(0.3, 0.3, 0.3)).check()
    with pytest.raises(RobotFileError, match=r"what 'hand' may command, 0\.2 to 0\.5 m, do not meet"):
        replace(ARM, **boxed, box_high=(0.3, 0.3, 0.15)).check()


def test_every_key_of_a_robots_file_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "your_robot.md").read_text()
    tables = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    documented = set(re.findall(r"`(\w+)`", tables))
    keys = {field.name for cls in (Part, RobotFile) for field in fields(cls)} - {"parts"}  # [[part]] in the file
    assert keys <= documented, sorted(keys - documented)
