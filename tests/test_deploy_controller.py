"""deploy/robot/controller.py and timeline.py, on a clock that the test moves."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from controller_cases import ARM, Arm, Scene, Server

from vlamem.deploy.bench.audit import audit
from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.limits import Limits
from vlamem.deploy.robot.messages import Reply
from vlamem.deploy.robot.protocol import DryRun, RobotError, RobotObservation
from vlamem.deploy.robot.robot_file import Part, RobotFile
from vlamem.deploy.robot.rounds import Mode, Round
from vlamem.deploy.robot.timeline import Timeline


def test_every_policy_step_goes_to_memory_and_some_ask_for_a_plan() -> None:
    scene = Scene(execute=4)
    scene.play(500)
    assert [f.step for f in scene.server.frames] == list(range(200))  # 20 Hz of 50 Hz for 10 s
    asked = [f.step for f in scene.server.frames if f.plan]
    assert all(4 <= b - a <= 5 for a, b in pairwise(asked))
    assert scene.modes[5:] == [Mode.RUN] * 495


def test_nothing_is_sent_before_the_first_chunk_and_its_past_actions_never() -> None:
    scene = Scene()
    scene.server.delay = 20
    scene.play(30)
    first = next(i for i, r in enumerate(scene.rounds) if r.command is not None)
    assert first == 20
    planned = scene.rounds[first].planned
    assert planned is not None
    assert planned.index == 8


def test_a_lost_server_leads_to_hold_then_stop_then_motion_again() -> None:
    scene = Scene()
    scene.play(20)
    scene.server.up = False
    scene.play(80)
    after = [m for m in scene.modes[20:] if m is not Mode.RUN]
    held = after.count(Mode.HOLD)
    assert after[:held] == [Mode.HOLD] * held
    assert held == 6  # 0.1 s at 50 Hz and the round in which it was noticed
    assert set(after[held:]) == {Mode.STOP}
    np.testing.assert_allclose(scene.arm.sent[-1], [0, 0, 0, 0, 0, 0, 0.3], atol=1e-6)
    falling = [abs(c[0]) for c in scene.arm.sent[-len(after) + held :]]
    assert all(b <= a for a, b in pairwise(falling))
    scene.server.up = True
    scene.play(40)
    assert scene.modes[-1] is Mode.RUN
    assert {f.step for f in scene.server.frames} == set(range(scene.server.frames[-1].step + 1))


def test_commands_planned_from_an_old_observation_are_not_sent() -> None:
    scene = Scene()
    scene.server.horizon = 100
    scene.play(20)
    scene.server.up = False
    scene.play(100)
    sent = [r for r in scene.rounds if r.planned is not None]
    assert all(r.t - (100 + r.planned.step / 20) <= 0.8 + 1e-9 for r in sent if r.planned)
    assert scene.modes[-1] is Mode.STOP
    assert scene.controller.events.counts["stale_command"] > 0


@pytest.mark.parametrize("stalled_s", [0.06, 0.1, 0.6, 2.0, 30.0])
@pytest.mark.parametrize("where", ["between rounds", "in observe", "before it is sent"])
def test_after_a_loop_stood_still_nothing_old_is_repeated(stalled_s: float, where: str) -> None:
    scene = Scene()
    scene.play(40)
    before, observe = scene.arm.sent[-1], scene.arm.observe
    scene.server.up = False

    def hangs() -> RobotObservation:
        scene.arm.observe = observe  # type: ignore[method-assign]  # it hangs once
        scene.now += stalled_s
        return observe()

    if where == "between rounds":
        scene.now += stalled_s
    elif where == "in observe":
        scene.arm.observe = hangs  # type: ignore[method-assign]
    else:
        choose = scene.controller._choose

        def chooses(*seen: Any) -> Any:
            chosen = choose(*seen)
            scene.now += stalled_s
            return chosen

        scene.controller._choose = chooses  # type: ignore[method-assign]
    scene.controller.round(scene.now)
    last = scene.rounds[-1]
    assert last.command is not None
    assert scene.modes[-1] in ({Mode.STOP} if stalled_s > 0.8 else {Mode.RUN, Mode.STOP})
    if last.planned is not None:
        assert scene.now - (100 + last.planned.step / 20) <= ARM.stale_s + 1e-9
    else:
        share = max(0.0, 1 - stalled_s / ARM.stop_s)
        assert (np.abs(last.command[:6]) <= share * np.abs(before[:6]) + 1e-9).all()


def test_a_hold_that_a_stall_interrupts_is_over() -> None:
    scene = Scene()
    scene.play(20)
    scene.server.up = False
    while scene.modes[-1] is not Mode.HOLD:
        scene.play(1)
    scene.now += 0.06
    scene.play(1)
    assert scene.modes[-1] is Mode.STOP
    assert abs(scene.arm.sent[-1][0]) < 0.3 * 0.5


def test_the_ramp_of_a_stop_counts_from_the_moment_the_operator_said_it() -> None:
    scene = Scene()
    scene.play(20)
    observe = scene.arm.observe

    def hangs() -> RobotObservation:
        scene.arm.observe = observe  # type: ignore[method-assign]  # it hangs once
        scene.controller.stop()
        scene.now += 4.9
        return observe()

    scene.arm.observe = hangs  # type: ignore[method-assign]
    scene.play(1)
    assert scene.modes[-1] is Mode.HALT
    np.testing.assert_array_equal(scene.arm.sent[-1][:6], np.zeros(6))


def test_a_robot_that_shows_one_frame_for_ever_is_held_and_stopped_however_fresh_the_plans_are() -> None:
    scene = Scene()
    scene.play(20)
    scene.arm.frozen = True
    scene.play(100)
    frozen_at = scene.rounds[19].t
    moved = [r.t for r in scene.rounds if r.planned is not None]
    assert frozen_at + 0.4 < max(moved) <= frozen_at + ARM.stale_s + 0.02
    after = scene.modes[scene.modes.index(Mode.HOLD) :]
    held = after.count(Mode.HOLD)
    assert after == [Mode.HOLD] * held + [Mode.STOP] * (len(after) - held)
    assert held == 6
    assert any(f.plan for f in scene.server.frames[-8:])  # and each was answered
    assert scene.controller.events.counts["observation_frozen"] == 1
    assert audit(scene.rounds, {1: 100.0}, ARM).stale == 0
    scene.arm.frozen = False
    scene.play(20)
    assert scene.modes[-1] is Mode.RUN


def test_a_stamp_that_is_no_time_counts_as_one_that_stands_still() -> None:
    scene = Scene()
    scene.play(20)
    observe = scene.arm.observe
    scene.arm.observe = lambda: replace(observe(), stamp=np.nan)  # type: ignore[method-assign]  # its clock breaks
    scene.play(100)
    assert scene.modes[-1] is Mode.STOP
    assert scene.controller.events.counts["observation_frozen"] == 1


def test_a_robot_that_does_not_report_the_force_that_its_file_limits_is_refused_before_it_moves() -> None:
    scene = Scene()
    scene.arm.force = None
    with pytest.raises(RobotError, match=r"'tabletop' limits gripper_force to 60 N and the robot reports none"):
        scene.controller.run(lambda now: len(scene.rounds) > 20)
    assert scene.arm.sent == []


def test_a_reply_of_the_episode_before_is_never_commanded() -> None:
    scene = Scene()
    scene.server.delay = 10
    scene.play(25)
    scene.server.value = -0.2
    scene.controller.begin("push it", 2, now=scene.now)
    late = len(scene.server.due)
    assert late
    scene.play(60)
    second = [r for r in scene.rounds if r.episode == 2 and r.command is not None]
    assert second
    assert all(r.planned is not None and r.planned.episode == 2 for r in second)
    assert all(r.command[0] < 0 for r in second if r.command is not None)
    assert scene.controller.events.counts["stale_reply"] == late


def test_a_refused_observation_holds_and_stops_until_the_next_chunk() -> None:
    scene = Scene()
    scene.play(20)
    scene.server.due = [(0, Reply("refused", 1, 7, None, "no camera", 0.0))]
    scene.server.up = False
    scene.play(1)
    assert scene.modes[-1] is Mode.HOLD
    scene.play(15)
    assert scene.modes[-1] is Mode.STOP
    scene.server.up = True
    scene.play(40)
    assert scene.modes[-1] is Mode.RUN


def test_the_operator_stops_at_once_and_motion_waits_for_go() -> None:
    scene = Scene()
    scene.play(20)
    scene.controller.stop()
    scene.play(30)
    assert set(scene.modes[20:]) == {Mode.HALT}
    np.testing.assert_allclose(scene.arm.sent[-1][:6], 0, atol=1e-9)
    scene.controller.begin("again", 2, now=scene.now)
    scene.play(10)
    assert set(scene.modes[50:]) == {Mode.HALT}
    scene.controller.go()
    scene.play(10)
    assert scene.modes[-1] is Mode.RUN


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_a_chunk_of_nonsense_never_leaves_the_limits(bad: float) -> None:
    scene = Scene()
    scene.play(20)
    scene.server.value = bad
    scene.play(60)
    limits = Limits(ARM)
    for command, (last, seen) in zip(scene.arm.sent, scene.arm.before, strict=True):
        assert limits.violations(command, last, seen) == []
    assert sum(scene.controller.limits.counts.values()) > 0
    assert scene.controller.events.counts["clip"] + scene.controller.events.counts["chunk_refused"] > 0


def test_a_wild_server_never_moves_the_arm_outside_its_limits() -> None:
    rng = np.random.default_rng(0)
    scene = Scene()
    limits = Limits(ARM)
    for _ in range(300):
        scene.server.value = rng.normal() * 3
        scene.server.up = bool(rng.random() < 0.7)
        scene.arm.position[:3] = rng.uniform(-0.5, 0.5, 3)
        scene.play(1)
    for command, (last, seen) in zip(scene.arm.sent, scene.arm.before, strict=True):
        assert limits.violations(command, last, seen) == []


def test_a_robot_that_fails_is_brought_to_rest_and_the_error_is_seen() -> None:
    scene = Scene()
    scene.play(20)
    scene.arm.fails = True
    with pytest.raises(RuntimeError, match="bus"):
        scene.controller.run(lambda now: False)
    assert scene.controller.events.counts["rest_failed"] == 1


@pytest.mark.parametrize("halted", [False, True])
def test_an_arm_whose_proprioception_is_not_finite_is_sent_rest_at_once_and_goes_on_when_it_is(halted: bool) -> None:
    scene = Scene()
    scene.play(20)
    if halted:
        scene.controller.stop()
    scene.arm.position[2] = np.nan
    scene.play(10)
    assert set(scene.modes[20:]) == {Mode.HALT if halted else Mode.STOP}
    assert len(scene.arm.sent) == len([r for r in scene.rounds if r.command is not None]) >= 10
    for command in scene.arm.sent[-10:]:
        np.testing.assert_allclose(command, [0, 0, 0, 0, 0, 0, 0.3], atol=1e-6)
    assert (audit(scene.rounds, {1: 100.0}, ARM).out_of_limit, len(scene.rounds)) == (0, 30)
    scene.arm.position[2] = 0
    scene.controller.go()
    scene.play(20)
    assert scene.modes[-1] is Mode.RUN


def test_an_arm_that_cannot_be_observed_is_sent_rest_all_the_same() -> None:
    scene = Scene()
    scene.play(20)

    def observe() -> RobotObservation:
        raise RuntimeError("camera")

    scene.arm.observe, scene.arm.send = observe, scene.arm.sent.append  # type: ignore[method-assign]  # it breaks here
    with pytest.raises(RuntimeError, match="camera"):
        scene.controller.run(lambda now: False)
    np.testing.assert_allclose(scene.arm.sent[-1], [0, 0, 0, 0, 0, 0, 0.3], atol=1e-6)
    assert scene.controller.events.counts["rest_unseen"] == 1


@pytest.mark.parametrize("at", [2.6, 0.5])
def test_rest_before_the_first_command_goes_through_the_limits_and_moves_nothing(at: float) -> None:
    joints = Part("joints", 8, "absolute", "1 rad", -3, 3, 1.0, -2, 2, 0.2, 4.0, measured=0)
    file = RobotFile("joints", 50, 20, ("front",), 8, (joints,), 0.2, 0.2, 1.0).check()
    arm, rounds = Arm(), []
    arm.position[:] = at
    controller = Controller(arm, file, Server(), record=rounds.append, clock=lambda: 100.0)
    controller.begin("touch it", 1)
    controller.rest()
    np.testing.assert_array_equal(arm.sent, [arm.position])
    assert audit(rounds, {1: 100.0}, file).out_of_limit == 0


def test_rounds_that_were_missed_are_counted_and_not_made_up_for() -> None:
    scene = Scene()
    slow = iter([0.0, 0.09, 0.0, 0.0])
    begun: list[float] = []

    def sleep(seconds: float) -> None:
        scene.now += seconds

    scene.controller._sleep = sleep
    record = scene.rounds.append

    def take(round_: Round) -> None:
        begun.append(round_.t)
        record(round_)
        scene.now += next(slow)

    scene.controller._record = take
    scene.controller.run(lambda now: len(begun) == 4)
    np.testing.assert_allclose(np.diff(begun), [0.02, 0.1, 0.02], atol=1e-9)
    assert scene.controller.timing.misses == 4


def test_a_dry_run_shows_commands_and_sends_none() -> None:
    arm, shown = Arm(), []
    DryRun(arm, shown.append).send(np.array([0.5, -1.0]))
    assert shown == ["+0.500 -1.000"]
    assert arm.sent == []


def test_an_episode_that_goes_on_after_a_restart_keeps_its_steps() -> None:
    scene = Scene()
    scene.controller.begin("touch it", 1, step=41, now=scene.now)
    scene.play(10)
    assert [f.step for f in scene.server.frames] == [42, 43, 44, 45]


def timeline(blend: int = 3) -> Timeline:
    line = Timeline(np.array([True, False]), np.array([True, True]), blend)
    line.clear(1)
    return line


def test_a_chunk_gives_way_to_the_next_without_a_jump_and_the_gripper_changes_at_once() -> None:
    line = timeline()
    line.take(np.full((8, 2), 0.0), 1, 0, 0.0)
    line.take(np.full((8, 2), 1.0), 1, 2, 4.0)
    got = [line.at(k).command for k in range(4, 10)]  # type: ignore[union-attr]  # all there
    np.testing.assert_allclose([c[0] for c in got], [0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_allclose([c[1] for c in got], 1)


def test_an_older_chunk_or_one_of_another_episode_or_of_the_past_is_not_taken() -> None:
    line = timeline()
    assert line.take(np.ones((4, 2)), 1, 5, 5.0)
    assert not line.take(np.zeros((4, 2)), 1, 4, 5.0)
    assert not line.take(np.zeros((4, 2)), 1, 5, 5.0)
    assert not line.take(np.zeros((4, 2)), 2, 6, 6.0)
    assert not line.take(np.zeros((4, 2)), 1, 6, 10.0)
    line.clear(2)
    assert line.at(5.0) is None
    assert line.take(np.zeros((4, 2)), 2, 0, 0.0)


def test_held_entries_keep_their_value_within_a_step_and_positions_move_on() -> None:
    line = Timeline(np.array([True, True]), np.array([True, False]), 0)
    line.clear(1)
    line.take(np.array([[0.0, 0.0], [1.0, 1.0]]), 1, 0, 0.0)
    np.testing.assert_allclose(line.at(0.5).command, [0.0, 0.5])  # type: ignore[union-attr]  # it is there
