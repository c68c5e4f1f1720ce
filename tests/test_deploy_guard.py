"""deploy/robot/guard.py: what may reach an arm, on a clock that the test moves."""

from dataclasses import replace

import numpy as np
import pytest
from controller_cases import ARM

from vlamem.deploy.robot.guard import Guard

MOVE = np.float64([0.3, 0, 0, 0, 0, 0, 1.0])
REST = np.float64([0, 0, 0, 0, 0, 0, 1.0])
PERIOD = 0.02


def moving() -> Guard:
    """A guard whose arm was sent MOVE at 0 s."""
    guard = Guard(ARM)
    np.testing.assert_array_equal(guard.command(MOVE, 0.0, 0.0), MOVE)
    return guard


def test_rest_is_due_within_a_tenth_of_a_second_after_the_last_command_and_once_a_period() -> None:
    guard = moving()
    times = np.arange(1, 40) / 200
    sent = {t: rest for t in times if (rest := guard.check(t)) is not None}
    assert 2 * PERIOD < min(sent) <= 0.1 - PERIOD
    assert np.diff(list(sent)).min() >= PERIOD
    assert all(np.array_equal(rest, REST) for rest in sent.values())
    assert guard.counts["silent"] == len(sent)


def test_nothing_is_sent_before_the_first_command_and_in_a_new_episode() -> None:
    guard = Guard(ARM)
    assert guard.check(100.0) is None
    guard = moving()
    guard.begin()
    assert guard.check(100.0) is None


def test_a_stop_lets_pass_what_slows_down_then_rest_alone_until_go() -> None:
    guard = moving()
    guard.stop(0.01)
    np.testing.assert_array_equal(guard.command(MOVE / [2, 1, 1, 1, 1, 1, 1], 0.02, 0.02), [0.15, *REST[1:]])
    np.testing.assert_array_equal(guard.command(MOVE, 0.04, 0.04), REST)
    np.testing.assert_array_equal(guard.command(MOVE, 0.3, 0.3), REST)
    assert guard.counts == {"stopped": 2}
    guard.go()
    assert guard.command(MOVE, 0.32, 0.32)[0] > 0.2  # type: ignore[index]  # not nothing


def test_a_stop_has_the_arm_at_rest_within_a_tenth_of_a_second_whatever_is_commanded() -> None:
    guard = Guard(replace(ARM, stop_s=5.0))
    sent = MOVE
    guard.command(MOVE, 0.0, 0.0)
    guard.stop(0.0)
    for k in range(1, 21):
        now = k / 200
        if k % 4 == 0:
            given = guard.command(sent, now, now)  # does not speed up
            assert given is not None
            sent = given
        found = guard.check(now)
        sent = sent if found is None else found
    np.testing.assert_array_equal(sent, REST)


@pytest.mark.parametrize(
    ("command", "began", "until", "why"),
    [
        (MOVE, 0.9, np.inf, "late"),
        (MOVE, 1.0, 0.99, "stale"),
        (MOVE * np.nan, 1.0, np.inf, "nan"),
        (MOVE[:3], 1.0, np.inf, "nan"),
    ],
)
def test_a_command_that_may_not_be_sent_is_replaced_by_rest_and_counted(
    command: np.ndarray, began: float, until: float, why: str
) -> None:
    guard = moving()
    np.testing.assert_array_equal(guard.command(command, 1.0, began, until), REST)
    assert guard.counts == {why: 1}


def test_after_a_rest_of_the_guard_commands_come_back_within_the_step() -> None:
    guard = Guard(replace(ARM, parts=tuple(replace(part, step=0.1) for part in ARM.parts)))
    for k in range(3):
        guard.command(0.1 * (k + 1) * np.float64([1, 0, 0, 0, 0, 0, 0]), k * PERIOD, k * PERIOD)
    assert guard.check(1.0) is not None
    found = guard.command(0.3 * np.float64([1, 0, 0, 0, 0, 0, 0]), 1.02, 1.02)
    np.testing.assert_allclose(found, [0.1, 0, 0, 0, 0, 0, 0])
