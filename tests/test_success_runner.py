"""A success memory as a memory of a frozen policy: layout and origin from its spec, paraphrases, and steering by it."""

from dataclasses import replace

import numpy as np
import pytest
from test_tiny_policy import noise, observation, small_policy

from vlamem.core.spec import ActionComponent, ActionSpec
from vlamem.memory.success import EntryError, Episode, OriginError, RetrieveOptions, Segment
from vlamem.memory.success.experience import StoredTrial
from vlamem.memory.success.memory import MemoryOptions
from vlamem.memory.success.runner import SuccessRunner, layout_of, open_success, origin_of
from vlamem.policies.memory_policy import wrap

OPTIONS = MemoryOptions(retrieve=RetrieveOptions(threshold=0.8))


def standing(rows: int = 3):
    """An observation whose orientation is a rotation."""
    seen = observation(rows)
    state = np.array(seen.proprioception, np.float32)
    state[:, 3:7] = (0, 1, 0, 0)
    return replace(seen, proprioception=state)


def remember(runner: SuccessRunner, policy, seen, instruction: str) -> np.ndarray:
    """Stores one success from the first row's state and gives its chunk."""
    key = policy.encode(seen).key[0]
    chunk = np.full((policy.spec.horizon, 7), 0.25, np.float32)
    segment = Segment(0, 0.0, key, seen.proprioception[0], chunk)
    episode = Episode("one", instruction, "success", "operator", 1.0, 0.0, (segment,), runner.meaning(instruction))
    runner.memory.commit(episode)
    return chunk


def test_an_empty_memory_leaves_the_policy_bit_for_bit_and_a_filled_one_steers_the_row_that_it_knows(tmp_path):
    policy, seen = small_policy(), standing()
    runner = open_success(tmp_path / "memory.db", policy, options=OPTIONS)
    robot = wrap(policy, runner, rows=3)
    eps = noise(policy, 3)
    bare = policy.sample(policy.encode(seen), eps)
    np.testing.assert_array_equal(robot.plan(robot.observe(seen), eps), bare)
    chunk = remember(runner, policy, seen, seen.instruction[0])
    proposed = []
    runner.proposed = proposed.append
    steered = robot.plan(robot.observe(seen), eps)
    assert np.abs(steered[0] - chunk).mean() < 0.7 * np.abs(bare[0] - chunk).mean()
    for row, prior in enumerate(runner.memory.last):
        if prior.confidence == 0:
            np.testing.assert_array_equal(steered[row], bare[row])
    np.testing.assert_array_equal(proposed[0].chunk_weight, np.float32([p.confidence for p in runner.memory.last]))
    assert len(proposed) == 1
    assert not robot.ticks
    assert robot.state(0) == {}
    runner.memory.close()


def test_options_of_a_success_memory_are_written_after_its_file(tmp_path):
    policy = small_policy()
    robot = wrap(policy, f"success:{tmp_path / 'memory.db'}?most_segments=7&calibrated=false")
    (runner,) = robot.memories
    assert (runner.memory.options.most_segments, runner.memory.options.calibrated) == (7, False)
    runner.memory.close()
    with pytest.raises(ValueError, match="most_segments is -1: expected 0 or more"):
        wrap(policy, f"success:{tmp_path / 'memory.db'}?most_segments=-1")


def test_other_words_of_one_vector_find_the_memory(tmp_path):
    policy, seen = small_policy(), standing(1)
    runner = open_success(tmp_path / "memory.db", policy, options=OPTIONS)
    remember(runner, policy, seen, seen.instruction[0])
    key = policy.encode(seen).key
    vector = runner.meaning(seen.instruction[0])
    runner._meanings |= {"the same in other words": 2.0 * vector, "something else": -vector}
    assert runner.query(key, seen.proprioception, ["the same in other words"]).weight[0] > 0
    assert runner.query(key, seen.proprioception, ["something else"]).weight[0] == 0
    runner.memory.close()


def test_sentences_without_end_are_answered_and_not_remembered_without_end(tmp_path):
    policy = small_policy()
    runner = open_success(tmp_path / "memory.db", policy, options=OPTIONS)
    first = runner.meaning("touch the red cube")
    sentences = [f"touch the blue ball {number}" for number in range(260)]
    vectors = np.stack([runner.meaning(text) for text in sentences])
    np.testing.assert_array_equal(vectors[-2:], policy.context_of(sentences[-2:]))
    np.testing.assert_array_equal(runner.meaning("touch the red cube"), first)
    assert max(len(runner._meanings), len(policy._contexts)) <= 256
    runner.memory.close()


def test_other_weights_normaliser_or_units_are_refused_by_name(tmp_path):
    policy = small_policy()
    open_success(tmp_path / "memory.db", policy, "a" * 64).memory.close()
    with pytest.raises(OriginError, match="weights is 'aaaaaaaaaaaaaaaa'"):
        open_success(tmp_path / "memory.db", policy, "b" * 64)
    parts = policy.spec.action.components
    centimetres = replace(parts[0], unit="0.05 cm")
    other = replace(policy.spec, action=ActionSpec((centimetres, *parts[1:])), normaliser="another")
    mine, theirs = (origin_of(s, "a" * 64) for s in (policy.spec, other))
    with pytest.raises(OriginError, match=r"normaliser is .* read in other units"):
        mine.check(theirs, "one", "two")
    with pytest.raises(OriginError, match=r"robot is .*0\.05 m.* but .*0\.05 cm"):
        mine.check(replace(theirs, normaliser=mine.normaliser), "one", "two")


def test_the_layout_is_what_the_spec_says():
    layout = layout_of(small_policy().spec)
    assert [(p.name, p.kind, p.scale) for p in layout.parts] == [
        ("translation", "linear", 1.0),
        ("rotation", "axis_angle", 0.5),
        ("gripper", "vote", 1.0),
    ]
    assert layout.quaternion == 3


def test_an_action_form_that_cannot_be_averaged_is_named():
    spec = small_policy().spec
    euler = ActionComponent("rotation", 3, "euler", "delta", "base", "0.5 rad")
    with pytest.raises(EntryError, match="form 'euler', which cannot be averaged"):
        layout_of(replace(spec, action=ActionSpec((euler,))))
    degrees = ActionComponent("rotation", 3, "axis_angle", "delta", "base", "30 degrees")
    with pytest.raises(EntryError, match="'30 degrees': expected a number of radians"):
        layout_of(replace(spec, action=ActionSpec((degrees,))))


def test_a_residual_memory_adds_its_offset_to_the_policys_chunk_and_learns_only_where_episodes_are_stored(tmp_path):
    policy, seen = small_policy(), standing()
    runner = open_success(tmp_path / "memory.db", policy, options=MemoryOptions(prior="residual"))
    robot = wrap(policy, runner, rows=3)
    eps = noise(policy, 3)
    bare = policy.sample(policy.encode(seen), eps)
    np.testing.assert_array_equal(robot.plan(robot.observe(seen), eps), bare)  # nothing is known
    runner.retract("run", ())  # a rollout is about to learn
    robot.reset()
    np.testing.assert_array_equal(robot.plan(robot.observe(seen), eps), bare)  # the first trial is a control
    runner.memory.add_trial(StoredTrial("run/touch/0", "success", np.zeros(7), 0.0))
    robot.reset()
    decision = robot.decide(robot.observe(seen), eps)
    offset = runner.memory.residual(explore=True).offset
    assert offset[:3].all()
    assert not offset[3:].any()
    np.testing.assert_allclose(decision.chunks, np.clip(bare + offset, -1, 1), atol=1e-6)
    assert decision.weight.tolist() == [1, 1, 1]
    assert runner.used(0).size == 0
    runner.retract("run", ())
    assert runner.memory.store.trials(runner.memory.origin) == []
    runner.close()
