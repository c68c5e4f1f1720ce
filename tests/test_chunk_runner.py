"""policies/chunk_runner.py"""

from typing import Any

import numpy as np
import point_mass
import pytest

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.policies.chunk_runner import ChunkRunner

ALL = np.array([True, True, True])


def observe(places: Any) -> Observation:
    places = np.asarray(places, np.float32)
    images = np.zeros((len(places), 16, 16, 3), np.uint8)
    images[:, 8, 8] = 255
    return Observation({"top": images}, np.pad(places, ((0, 0), (0, 2))), ("go",) * len(places))


def noise(*episodes: int) -> list[np.random.Generator]:
    return [stream(0, "noise", episode) for episode in episodes]


PLACES = np.array([[0.1, 0.2], [-0.5, 0.3], [0.4, -0.4]])


def test_a_batch_of_rows_equals_single_rows() -> None:
    batch = ChunkRunner(point_mass.policy(), 3, 4)
    batch.reset(ALL, noise(0, 1, 2))
    batch.plan(batch.due(), observe(PLACES))
    together = [batch.pop() for _ in range(4)]
    for row in range(3):
        single = ChunkRunner(point_mass.policy(), 1, 4)
        single.reset(np.array([True]), noise(row))
        single.plan(single.due(), observe(PLACES[[row]]))
        for step in together:
            np.testing.assert_array_equal(step[row], single.pop()[0])


def test_rows_are_due_again_after_the_executed_part_of_the_chunk() -> None:
    runner = ChunkRunner(point_mass.policy(), 3, 2)
    runner.reset(ALL, noise(0, 1, 2))
    assert runner.due().tolist() == [0, 1, 2]
    runner.plan(runner.due(), observe(PLACES))
    runner.pop()
    assert runner.due().tolist() == []
    runner.pop()
    assert runner.due().tolist() == [0, 1, 2]
    with pytest.raises(IndexError):
        runner.pop()


def test_rows_that_are_not_asked_for_keep_their_actions() -> None:
    runner = ChunkRunner(point_mass.policy(), 3, 2)
    runner.reset(ALL, noise(0, 1, 2))
    runner.plan(np.array([0, 2]), observe(PLACES[[0, 2]]))
    assert runner.due().tolist() == [1]
    assert runner.due(np.array([2, 0])).tolist() == []
    first = runner.pop(np.array([2]))
    assert first.shape == (1, 7)
    second = runner.pop(np.array([0, 2]))
    assert runner.due(np.array([0, 2])).tolist() == [2]
    assert not np.array_equal(first[0], second[1])


def test_reset_of_one_row_leaves_the_others() -> None:
    runner, untouched = (ChunkRunner(point_mass.policy(), 3, 4) for _ in range(2))
    for each in (runner, untouched):
        each.reset(ALL, noise(0, 1, 2))
        each.plan(each.due(), observe(PLACES))
        each.pop()
    fresh = noise(7)[0]
    runner.reset(np.array([False, True, False]), [None, fresh, None])
    assert runner.due().tolist() == [1]
    runner.plan(np.array([1]), observe(PLACES[[1]]))
    after, expected = runner.pop(), untouched.pop()
    np.testing.assert_array_equal(after[[0, 2]], expected[[0, 2]])
    alone = ChunkRunner(point_mass.policy(), 1, 4)
    alone.reset(np.array([True]), noise(7))
    alone.plan(alone.due(), observe(PLACES[[1]]))
    np.testing.assert_array_equal(after[1], alone.pop()[0])


def test_actions_stay_in_the_range_of_the_spec() -> None:
    runner = ChunkRunner(point_mass.policy(), 1, 8)
    runner.reset(np.array([True]), noise(3))
    runner.plan(runner.due(), observe([[-30.0, 30.0]]))
    action = runner.pop()[0]
    assert action[0] == 1
    assert action[1] == -1


@pytest.mark.parametrize("execute", [0, 9])
def test_executing_more_than_a_chunk_is_refused(execute: int) -> None:
    with pytest.raises(ValueError, match="choose 1 to 8"):
        ChunkRunner(point_mass.policy(), 1, execute)


def test_a_row_that_was_never_reset_cannot_plan() -> None:
    runner = ChunkRunner(point_mass.policy(), 1, 4)
    with pytest.raises(ValueError, match="row 0 has no noise stream"):
        runner.plan(runner.due(), observe([[0.0, 0.0]]))
