"""deploy/robot/limits.py and robot_file.py: no command that passes breaks a limit, and a wrong robot file is named."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import SPEC
from hypothesis import given, settings
from hypothesis import strategies as st

from vlamem.deploy.robot.limits import Limits
from vlamem.deploy.robot.protocol import RobotObservation
from vlamem.deploy.robot.robot_file import Part, RobotFile, RobotFileError, load_robot_file

TABLETOP = load_robot_file("tabletop")
TIGHT = replace(
    TABLETOP, parts=tuple(replace(p, step=0.3, speed=0.4 if p.name != "gripper" else 60) for p in TABLETOP.parts)
)
JOINTS = Part("joints", 3, "absolute", "1 rad", -3, 3, 1.0, -2, 2, 0.2, 4.0, measured=0)
JOINT_ARM = RobotFile("joints", 50, 20, ("front",), 3, (JOINTS,), 0.2, 0.2, 1.0).check()
CARTESIAN = replace(
    JOINT_ARM, parts=(replace(JOINTS, name="hand"),), box_part="hand", box_low=(-1, -1, -1), box_high=(1, 1, 0.5)
).check()


def seen(proprioception: Any, force: float | None = None) -> RobotObservation:
    return RobotObservation({}, np.asarray(proprioception, np.float64), 0.0, force)


anywhere = st.floats(-4, 4) | st.sampled_from([0.0, 2.0, 2.6, -3.0])
wild = st.floats(-1e6, 1e6) | st.floats(-2, 2) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1.0])


@pytest.mark.parametrize("robot", [TABLETOP, TIGHT, JOINT_ARM, CARTESIAN], ids=["tabletop", "tight", "joints", "hand"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_requested_commands_leads_to_one_outside_a_limit(robot: RobotFile, data: st.DataObject) -> None:
    limits, last = Limits(robot), None
    position = np.array(data.draw(st.lists(anywhere, min_size=robot.proprioception, max_size=robot.proprioception)))
    for _ in range(6):
        blind = data.draw(st.sampled_from([False, False, True]))
        now = seen(np.where(blind, np.nan, position), data.draw(st.sampled_from([None, 0.0, 100.0])))
        asked = data.draw(st.sampled_from(["wish", "wish", "last", "rest"]))
        wish = np.array(data.draw(st.lists(wild, min_size=robot.size, max_size=robot.size)))
        if asked == "rest" and (rest := limits.rest(last, now)) is not None:
            wish = rest
        if asked == "last" and last is not None:
            wish = last
        command, _ = limits.apply(wish, last, now)
        if command is None:
            assert not np.isfinite(wish).all() or (blind and last is None)
            continue
        assert limits.violations(command, last, now) == []
        last = command
        position = position.copy()
        position[:3] += data.draw(st.floats(-0.1, 0.1))


@pytest.mark.parametrize(
    ("robot", "edge"), [(JOINT_ARM, 2.0), (CARTESIAN, 1.0)], ids=["joint beyond its range", "hand beyond its box"]
)
@pytest.mark.parametrize("way", [1, -1])
def test_a_robot_found_outside_is_led_back_within_speed_and_step_and_rest_does_not_move_it(
    robot: RobotFile, edge: float, way: int
) -> None:
    limits, start = Limits(robot), np.array([way * (edge + 0.6), 0.0, 0.0])
    now = seen(start)
    still, clips = limits.apply(limits.rest(None, now), None, now)
    np.testing.assert_array_equal(still, start)
    assert clips == []
    last, trail = None, [start]
    for _ in range(20):
        command, _ = limits.apply(np.array([way * 9.0, 0, 0]), last, now)
        assert limits.violations(command, last, now) == []
        last = command
        trail.append(command)
    away = np.abs(np.array(trail)[:, 0])
    assert (np.diff(away) <= 0).all()
    assert -np.diff(away).min() * 50 <= 4.0 + 1e-9  # rad/s and m/s: no jump to the edge
    assert away[-1] == pytest.approx(edge)


@pytest.mark.parametrize(
    ("command", "last", "expected"),
    [
        ([2.61, 0, 0], None, "range of joints"),
        ([2.53, 0, 0], [2.52, 0, 0], "range of joints"),
        ([2.0, 0, 0], None, "speed of joints"),
        ([2.55, 0, 0], None, None),
        ([2.6, 0, 0], None, None),
    ],
)
def test_the_audit_lets_a_joint_outside_its_range_stay_and_come_back_and_nothing_else(
    command: Any, last: Any, expected: str | None
) -> None:
    before = None if last is None else np.array(last)
    found = Limits(JOINT_ARM).violations(np.array(command), before, seen([2.6, 0, 0]))
    assert bool(found) == (expected is not None), found
    assert expected is None or expected in found[0]


@pytest.mark.parametrize(
    ("wish", "last", "at", "expected"),
    [
        ([0, 0, 0, 0.9, 0, 0, 0], None, [0, 0, 0], "range of rotation"),
        ([1, 1, 1, 0, 0, 0, 0], None, [0, 0, 0], "speed of translation"),
        ([0, 0, 0, 0.7, 0, 0, 0], None, [0, 0, 0], "step of rotation"),
        ([0.5, 0, 0, 0, 0, 0, 0], None, [0.34, 0, 0], "box"),
        ([0, 0, -0.5, 0, 0, 0, 0], None, [0, 0, -0.5], "box"),
        ([0, np.nan, 0, 0, 0, 0, 0], None, [0, 0, 0], "finite"),
        ([0] * 6, None, [0, 0, 0], "finite"),
    ],
)
def test_the_audit_finds_what_the_limits_would_have_clipped(wish: Any, last: Any, at: Any, expected: str) -> None:
    limits, now = Limits(TABLETOP), seen([*at, 0, 0, 0, 0, 0])
    assert any(expected in v for v in limits.violations(np.array(wish, float), last, now))
    command, clips = limits.apply(np.array(wish, float), last, now)
    assert clips
    assert sum(limits.counts.values()) == len(clips)
    if command is not None:
        assert limits.violations(command, last, now) == []


def test_a_command_within_the_limits_is_sent_as_it_is() -> None:
    wish = np.array([0.3, -0.2, 0.1, 0.1, 0, 0, 1.0])
    command, clips = Limits(TABLETOP).apply(wish, None, seen(np.zeros(8)))
    np.testing.assert_array_equal(command, wish)
    assert clips == []


def test_slowing_down_is_never_a_step_too_far_and_turning_round_is() -> None:
    limits = Limits(TIGHT)
    fast = np.array([0.4, 0, 0, 0, 0, 0, 0])
    still, _ = limits.apply(np.zeros(7), fast, seen(np.zeros(8)))
    np.testing.assert_array_equal(still, np.zeros(7))
    back, clips = limits.apply(np.array([-0.4, 0, 0, 0, 0, 0, 0]), fast, seen(np.zeros(8)))
    assert back[0] == pytest.approx(-0.3)
    assert [c.kind for c in clips] == ["step"]


def test_a_hand_outside_its_box_may_come_back_but_go_no_further() -> None:
    limits, out = Limits(TABLETOP), seen([0.5, 0, 0.1, 0, 0, 0, 0, 0])
    further, _ = limits.apply(np.array([0.5, 0, 0, 0, 0, 0, 0]), None, out)
    back, _ = limits.apply(np.array([-0.5, 0, 0, 0, 0, 0, 0]), None, out)
    assert (further[0], back[0]) == (0, -0.5)


def test_a_gripper_that_presses_too_hard_closes_no_further_and_may_open() -> None:
    limits, wish = Limits(TABLETOP), np.array([0, 0, 0, 0, 0, 0, 1.0])
    assert limits.apply(wish, None, seen(np.zeros(8), 59.0))[0][6] == 1
    assert limits.apply(wish, None, seen(np.zeros(8), 61.0))[0][6] == 0
    assert limits.apply(-wish, None, seen(np.zeros(8), 61.0))[0][6] == -1
    assert limits.counts == {"force": 1}


@pytest.mark.parametrize(
    ("mode", "value", "last", "force", "closes"),
    [
        ("absolute", 1.0, None, 61.0, True),
        ("absolute", 0.6, 0.5, 61.0, True),
        ("absolute", 0.5, 0.5, 61.0, False),
        ("absolute", 0.6, 0.5, 60.0, False),
        ("absolute", 0.6, 0.5, np.nan, True),
        ("delta", 0.1, 0.5, 61.0, True),
        ("delta", 0.0, -0.5, 61.0, False),
    ],
)
def test_the_audit_finds_a_gripper_that_goes_on_closing_above_its_force(
    mode: str, value: float, last: float | None, force: float, closes: bool
) -> None:
    arm = replace(TABLETOP, parts=(*TABLETOP.parts[:2], replace(TABLETOP.parts[2], mode=mode)))
    limits, now = Limits(arm), seen(np.zeros(8), force)
    wish, before = np.array([0] * 6 + [value]), None if last is None else np.array([0] * 6 + [last])
    found = limits.violations(wish, before, now)
    assert [f.split(":")[0] for f in found] == ["force of gripper"] * closes
    command, clips = limits.apply(wish, before, now)
    assert limits.violations(command, before, now) == []
    assert not clips or force != 60.0
    if mode == "delta" and not closes:
        assert command[6] == 0  # asked to stand still, it does not go on opening


def test_an_absolute_part_begins_from_where_the_robot_is() -> None:
    limits, now = Limits(JOINT_ARM), seen([1.0, -1.0, 0.0])
    command, _ = limits.apply(np.array([2.0, 2.0, 2.0]), None, now)
    assert np.linalg.norm(command - [1, -1, 0]) * 50 <= 4 + 1e-9
    np.testing.assert_array_equal(limits.rest(None, now), [1, -1, 0])


def test_rest_stands_still_and_keeps_the_grip() -> None:
    last = np.array([0.5, 0, 0, 0.1, 0, 0, 1.0])
    np.testing.assert_array_equal(Limits(TABLETOP).rest(last, seen(np.zeros(8))), [0, 0, 0, 0, 0, 0, 1])
    assert Limits(TABLETOP).rest(None, seen(np.zeros(8))) is None  # nobody knows the gripper's last command


def test_rest_replaces_every_command_while_the_proprioception_is_not_finite() -> None:
    for robot in (TABLETOP, JOINT_ARM):
        limits, blind = Limits(robot), seen([np.nan] + [0] * (robot.proprioception - 1))
        last = np.full(robot.size, 0.4)
        still = np.where(limits.moving(), 0, last)
        for wish in (limits.rest(last, blind), last, -last):
            command, clips = limits.apply(wish, last, blind)
            np.testing.assert_array_equal(command, still)
            assert [c.part for c in clips] == ["proprioception"]
        assert limits.violations(still, last, blind) == []
        assert "motion of" in limits.violations(still + 0.01, last, blind)[0]
        assert limits.apply(last, None, blind)[0] is None  # where it is nobody knows
        assert limits.violations(last, None, blind)


def test_the_shipped_robot_fits_the_policy_of_its_suite_and_names_what_does_not() -> None:
    spec = asdict(replace(SPEC, cameras=("agentview",)))
    TABLETOP.check_spec(spec)
    for changed, expected in (
        ({"control_hz": 50.0}, "steps at 50 Hz"),
        ({"proprioception_size": 9}, "9 proprioceptive"),
        ({"cameras": ("front",)}, "camera 'front'"),
    ):
        with pytest.raises(RobotFileError, match=expected):
            TABLETOP.check_spec(spec | changed)
    parts = spec["action"]["components"]
    turned = [parts[0] | {"unit": "0.1 m"}, *parts[1:]]
    with pytest.raises(RobotFileError, match=r"unit of 'translation' is '0.05 m' .* '0.1 m'"):
        TABLETOP.check_spec(spec | {"action": {"components": turned}})
    with pytest.raises(RobotFileError, match="parts of"):
        TABLETOP.check_spec(spec | {"action": {"components": parts[:2]}})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "tabletop"', 'nmae = "x"', "unknown entry 'nmae': did you mean 'name'"),
        ("hold_s = 0.15", "", "lacks 'hold_s'"),
        ("hold_s = 0.15", 'hold_s = "long"', "expected a number"),
        ("hold_s = 0.15", "hold_s = -1", "not above 0"),
        ("control_hz = 50", "control_hz = 10", "below policy_hz"),
        ('mode = "delta"', 'mode = "relative"', "expected 'delta' or 'absolute'"),
        ("highest = 0.8", "highest = 1.8", "outside -1.0 to 1.0"),
        ("lowest = -0.8", "lowest = 0.2", "may not command 0"),
        ("box_low = [-0.30", "box_low = [0.40", "is empty"),
        ("[[part]]", "[part", "is not TOML"),
        ("grips = true", "measured = 7", "limits no part"),
        ("grips = true", "", "say with 'measured'"),
    ],
)
def test_a_wrong_robot_file_is_refused_by_name(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = (Path(__file__).parent.parent / "deploy" / "robot" / "files" / "tabletop.toml").read_text()
    assert old in text
    (tmp_path / "arm.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(RobotFileError, match=expected):
        load_robot_file(tmp_path / "arm.toml")
    with pytest.raises(RobotFileError, match=r"one of .*tabletop"):
        load_robot_file("tabeltop")
