"""Local shifts of the tabletop: each changes what it says, and nothing stays of it when it is closed."""

import numpy as np
import pytest

from vlamem.sim.suites.tabletop import SUITE
from vlamem.sim.suites.tabletop.shift import BIAS_WAY, Shift, ShiftedEnv

STILL = np.array([0, 0, 0, 0, 0, 0, 1.0])
STRENGTH = {"camera": 0.1, "actuator": 0.3, "table": 0.04, "friction": 4.0, "lighting": 0.5}


@pytest.fixture(scope="module")
def plain():
    env = SUITE.make("place_bowl")
    env.render_on_step = False
    env.reset(options={"episode": 3})
    seen = env.observe()
    for _ in range(4):
        env.step(STILL)
    seen |= {"hand": env.scene.hand.copy(), "friction": env.scene.model.geom_friction.copy()}
    env.close()
    return seen


def shifted(kind: str, strength: float | None = None) -> ShiftedEnv:
    return ShiftedEnv(SUITE.make("place_bowl"), Shift(kind, STRENGTH[kind] if strength is None else strength))


@pytest.mark.parametrize("kind", STRENGTH)
def test_each_shift_changes_what_it_says_and_closing_takes_it_back(kind, plain):
    env = shifted(kind)
    try:
        env.reset(options={"episode": 3})
        seen = env.observe()
        for _ in range(4):
            env.step(STILL)
        hand, friction = env.env.scene.hand.copy(), env.env.scene.model.geom_friction.copy()
    finally:
        env.close()
    images = {c: not np.array_equal(seen[c], plain[c]) for c in ("agentview", "wrist")}
    if kind == "camera":
        assert images == {"agentview": True, "wrist": False}
        np.testing.assert_array_equal(seen["proprioception"], plain["proprioception"])
    elif kind == "actuator":
        assert not any(images.values())
        moved = hand - plain["hand"]
        assert float(moved @ BIAS_WAY) / np.linalg.norm(moved) > 0.8
    elif kind == "table":
        assert seen["proprioception"][2] == pytest.approx(plain["proprioception"][2], abs=1e-4)
        assert hand[2] == pytest.approx(plain["hand"][2] - 0.04, abs=0.01)  # nearer to the table by what it is higher
        np.testing.assert_array_equal(seen["proprioception"][:2], plain["proprioception"][:2])
    elif kind == "friction":
        np.testing.assert_allclose(friction, plain["friction"] / 5.0)
        assert not any(images.values())
    else:
        assert all(images.values())
        assert seen["agentview"].mean() < 0.8 * plain["agentview"].mean()
    again = SUITE.make("place_bowl")
    again.render_on_step = False
    again.reset(options={"episode": 3})
    for name, value in again.observe().items():
        np.testing.assert_array_equal(value, plain[name], err_msg=name)
    np.testing.assert_array_equal(again.scene.model.geom_friction, plain["friction"])
    again.close()


@pytest.mark.parametrize("kind", STRENGTH)
def test_a_shift_of_strength_0_changes_nothing(kind, plain):
    env = ShiftedEnv(SUITE.make("place_bowl"), Shift(kind, 0.0))
    try:
        env.reset(options={"episode": 3})
        for name, value in env.observe().items():
            np.testing.assert_array_equal(value, plain[name], err_msg=name)
    finally:
        env.close()


def test_a_shift_can_change_between_episodes(plain):
    env = shifted("lighting")
    try:
        env.reset(options={"episode": 3})
        dark = env.observe()["agentview"].mean()
        env.change(Shift())
        env.reset(options={"episode": 3})
        np.testing.assert_array_equal(env.observe()["agentview"], plain["agentview"])
        assert dark < plain["agentview"].mean()
    finally:
        env.close()


def test_the_initial_state_under_a_shift_is_that_of_the_suite(plain):
    env = shifted("camera")
    try:
        for _ in range(2):
            seen, _ = env.reset(options={"episode": 3})
            np.testing.assert_array_equal(seen["proprioception"], plain["proprioception"])
            env.step(STILL)
    finally:
        env.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wind=1", "'wind' is unknown"),
        ("camera=much", "not kind=strength"),
        ("lighting=2", "out of range"),
        ("friction=-1", "below 0"),
    ],
)
def test_a_wrong_shift_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        Shift.parse(text)
