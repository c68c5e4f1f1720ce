"""core/proposal.py and core/observation.py: what is proposed, and rows of what is seen."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import vlamem
from vlamem.core.observation import Encoding, Observation, RowWise
from vlamem.core.proposal import Proposal

CHUNK, CONTEXT = np.zeros((2, 4, 7), np.float32), np.zeros((2, 5), np.float32)
NO, SURE = np.zeros(2, np.float32), np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ((CHUNK, np.float32([0.5, 1.5]), None, NO), r"chunk_weight .*expected one value in 0\.\.1 for each row"),
        ((None, NO, CONTEXT, np.float32([-0.1, 0])), r"context_weight .*expected one value in 0\.\.1"),
        ((CHUNK, np.float32([np.nan, 0]), None, NO), r"chunk_weight .*expected one value in 0\.\.1"),
        ((CHUNK, np.ones((2, 1), np.float32), None, NO), r"(?s)chunk_weight .*expected one value"),
        ((CHUNK, np.ones(3, np.float32), None, NO), "a proposed chunk of 2 rows has 3 weights"),
        ((None, SURE, CONTEXT, SURE), "no chunk is proposed: expected zeros"),
        ((CHUNK, SURE, None, SURE), "no context is proposed: expected zeros"),
        ((CHUNK * np.nan, SURE, None, NO), "proposed chunk has NaN entries"),
        ((None, NO, CONTEXT * np.nan, NO), "proposed context has NaN entries"),
        ((CHUNK, SURE, None, np.zeros(3, np.float32)), "2 chunk weights and 3 context weights"),
    ],
)
def test_a_proposal_that_cannot_be_meant_is_refused_where_it_is_made(given: Any, complaint: str) -> None:
    made = object.__new__(Proposal)  # without the checks of shapes that run under test alone
    for name, value in zip(("chunk", "chunk_weight", "context", "context_weight"), given, strict=True):
        object.__setattr__(made, name, value)
    with pytest.raises(ValueError, match=complaint):
        made.__post_init__()


def test_a_proposal_is_checked_against_a_policys_sizes() -> None:
    both = Proposal(CHUNK, SURE, CONTEXT, SURE)
    both.check(2, (4, 7), 5)
    for size, complaint in (
        ((3, (4, 7), 5), r"proposed chunk is \[2, 4, 7\], expected \[3, 4, 7\]"),
        ((2, (8, 7), 5), r"expected \[2, 8, 7\]"),
        ((2, (4, 7), 6), r"proposed context is \[2, 5\], expected \[2, 6\]"),
    ):
        with pytest.raises(ValueError, match=complaint):
            both.check(*size)
    with pytest.raises(ValueError, match="has 2 rows, expected 3"):
        Proposal.of_chunk(None, NO).check(3, (4, 7), 5)


def test_the_weight_of_a_row_is_the_larger_and_a_row_without_any_abstains() -> None:
    proposal = Proposal(CHUNK, np.float32([0.2, 0]), CONTEXT, np.float32([0.1, 0.4]))
    np.testing.assert_array_equal(proposal.weight, np.float32([0.2, 0.4]))
    assert not proposal.abstains
    assert Proposal(CHUNK, NO, CONTEXT, NO).abstains
    assert len(proposal) == 2


def test_a_proposal_of_one_kind_has_no_weight_for_the_other() -> None:
    chunk, context = Proposal.of_chunk(CHUNK, [0.5, 0]), Proposal.of_context(CONTEXT, [0, 1])
    assert (chunk.context, chunk.chunk_weight.tolist(), chunk.context_weight.tolist()) == (None, [0.5, 0], [0, 0])
    assert (context.chunk, context.chunk_weight.tolist(), context.context_weight.tolist()) == (None, [0, 0], [0, 1])
    assert Proposal.of_chunk(None, [1, 1]).abstains
    assert Proposal.of_context(None, [1, 1]).abstains


def test_rows_of_a_proposal_come_in_the_order_asked_for() -> None:
    chunk = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 4, 7), np.float32)
    part = Proposal.of_chunk(chunk, [0.1, 0.2, 0.3]).rows([2, 0])
    assert part.chunk is not None
    assert part.chunk[:, 0, 0].tolist() == [2, 0]
    np.testing.assert_array_equal(part.chunk_weight, np.float32([0.3, 0.1]))
    assert part.context is None


def seen(rows: int, first: int = 0) -> Observation:
    at = np.arange(first, first + rows)
    images = {
        c: np.full((rows, 4, 4, 3), i, np.uint8) + at[:, None, None, None].astype(np.uint8) for i, c in enumerate("ab")
    }
    return Observation(images, at[:, None] * np.ones((1, 8)), tuple(f"do {i}" for i in at))


def test_rows_of_an_observation_come_in_the_order_asked_for() -> None:
    part = seen(4).rows(np.array([3, 1]))
    assert part.instruction == ("do 3", "do 1")
    assert part.images["b"][:, 0, 0, 0].tolist() == [4, 2]
    assert part.proprioception[:, 0].tolist() == [3, 1]
    assert len(part) == 2


def test_stacked_observations_part_into_what_they_were() -> None:
    parts = [seen(2), seen(1, 2), seen(3, 3)]
    whole, together = seen(6), Observation.stack(parts)
    assert together.instruction == whole.instruction
    for name, images in whole.images.items():
        np.testing.assert_array_equal(together.images[name], images)
    np.testing.assert_array_equal(together.proprioception, whole.proprioception)
    np.testing.assert_array_equal(together.rows([2]).images["a"], parts[1].images["a"])


def test_what_cannot_be_stacked_is_refused() -> None:
    with pytest.raises(ValueError, match="no observation to stack"):
        Observation.stack([])
    other = seen(1)
    with pytest.raises(KeyError, match="b"):
        Observation.stack([seen(1), Observation({"a": other.images["a"]}, other.proprioception, other.instruction)])


@dataclass(frozen=True)
class Pair:
    left: np.ndarray

    def rows(self, index: Any) -> "Pair":
        return Pair(self.left[index])


@pytest.mark.parametrize("context", [None, np.arange(3), Pair(np.arange(3))])
def test_rows_of_an_encoding_take_its_conditioning_along(context: Any) -> None:
    whole = Encoding(np.arange(6.0).reshape(3, 2), np.eye(3, 2), context)
    part = whole.rows([2, 0])
    assert part.z.tolist() == [[4, 5], [0, 1]]
    assert part.key.tolist() == [[0, 0], [1, 0]]
    left = part.context.left if isinstance(part.context, Pair) else part.context
    assert left is None if context is None else left.tolist() == [2, 0]
    assert isinstance(Pair(np.arange(3)), RowWise)


def test_a_conditioning_without_rows_is_named_with_the_mend() -> None:
    with pytest.raises(TypeError, match=r"conditioning of this policy \(dict\) has no rows\(index\): give it one"):
        Encoding(np.zeros((3, 2)), np.zeros((3, 2)), {"tokens": []}).rows([0])


def test_the_public_face_names_them() -> None:
    assert vlamem.Proposal is Proposal
    assert vlamem.Observation is Observation
