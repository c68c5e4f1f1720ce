"""A success memory of an arm that is commanded by its joints: degrees and percents weigh alike, also of two arms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlamem.core.spec import BI_SO101, OSC_POSE, SO101, ActionComponent, ActionSpec, PolicySpec
from vlamem.memory.success import EntryError, Episode, Layout, MemoryOptions, Origin, Segment, SuccessMemory
from vlamem.memory.success.retrieve.prior import Candidates, RetrieveOptions, elite_prior
from vlamem.memory.success.runner import layout_of

SPEC = PolicySpec("act", 4, 6, 6, 1, 30.0, ("front",), 64, 6, SO101, "none")
PAIR = replace(SPEC, action=BI_SO101, proprioception_size=12)
NONE = Candidates.none(4, 6)
KEY = np.eye(6, dtype=np.float32)[0]


def chunk(*joints: float) -> np.ndarray:
    """Four steps at these places."""
    return np.tile(np.array(joints, np.float32), (4, 1))


def near(*chunks: np.ndarray) -> Candidates:
    """Segments of one state."""
    n = len(chunks)
    return Candidates(np.arange(n), np.full(n, 0.99), np.stack(chunks), np.ones(n))


def test_degrees_and_percents_are_measured_in_units_of_their_own() -> None:
    layout = layout_of(SPEC)
    assert [part.unit for part in layout.parts] == pytest.approx([np.degrees(0.5), 50])
    assert layout.proprioception_scale == pytest.approx([np.degrees(0.1)] * 5 + [10])
    radians = ActionSpec((ActionComponent("joints", 6, "joint", "absolute", "none", "1 rad", -3.14, 3.14),))
    assert [part.unit for part in layout_of(replace(SPEC, action=radians)).parts] == [0.5]
    for unit in ("0 deg", "some deg"):
        with pytest.raises(EntryError, match="expected a number of deg above 0"):
            layout_of(replace(SPEC, action=ActionSpec((replace(SO101.components[0], unit=unit),))))


def test_what_was_measured_in_halves_of_its_range_is_measured_and_stored_as_before() -> None:
    layout = layout_of(replace(SPEC, action=OSC_POSE))
    assert [part.unit for part in layout.parts] == [0, 0, 0]
    assert layout.proprioception_scale == (0.1,) * 6
    assert all("unit" not in part for part in json.loads(layout.to_json())["parts"])
    for each in (layout, layout_of(PAIR)):
        assert Layout.from_json(each.to_json()) == each


def test_joints_that_agree_are_averaged_and_others_are_left_out() -> None:
    parts, options = layout_of(SPEC).parts, RetrieveOptions(threshold=0.9)
    here, too = chunk(10, 0, 0, 0, 0, 80), chunk(14, 0, 0, 0, 0, 84)
    prior = elite_prior(near(here, too, chunk(70, 0, 0, 0, 0, 82)), NONE, parts, options)
    np.testing.assert_allclose(prior.chunk, chunk(12, 0, 0, 0, 0, 82), atol=1e-4)
    assert prior.used.tolist() == [0, 1]
    open_too = elite_prior(near(here, too, chunk(12, 0, 0, 0, 0, 10)), NONE, parts, options)
    np.testing.assert_allclose(open_too.chunk, chunk(12, 0, 0, 0, 0, 82), atol=1e-4)  # not half open
    assert elite_prior(near(here, chunk(70, 0, 0, 0, 0, 80), chunk(-50, 0, 0, 0, 0, 80)), NONE, parts, options).why
    failed = near(chunk(11, 0, 0, 0, 0, 80))
    after = elite_prior(near(here, here), failed, parts, replace(options, failures=True))
    assert after.failure > 0.5
    assert elite_prior(near(here, here), near(chunk(40, 0, 0, 0, 0, 80)), parts, options).failure == 0


@pytest.mark.parametrize("spec", [SPEC, PAIR], ids=["one", "two"])
def test_a_memory_of_joints_proposes_what_was_done_in_such_a_state(spec: PolicySpec, tmp_path: Path) -> None:
    origin, options = Origin("act", "weights", "none", "arms"), MemoryOptions()
    wanted = np.resize(np.array([30.0, -45, 60, 15, 0, 35], np.float32), spec.action.size)
    body = np.resize(np.array([5.0, -10, 20, 0, 0, 50], np.float32), spec.proprioception_size)
    steps = np.tile(wanted, (4, 1))
    with SuccessMemory(tmp_path / "memory.db", origin, layout_of(spec), options) as memory:
        for number in range(3):
            apart = body + number  # each began a degree further
            cut = (Segment(0, 0.5, KEY, apart, steps + number),)
            memory.commit(Episode(f"e{number}", "pick it up", "success", "predicate", 1.0, float(number), cut))
        found = memory.query(KEY[None], (body + 1.5)[None], ["pick it up"])
        assert found.chunk is not None
        assert found.chunk_weight[0] > 0
        np.testing.assert_allclose(found.chunk[0], steps, atol=2.5)
        far = memory.query(KEY[None], (body + 40)[None], ["pick it up"])
        assert far.chunk_weight[0] == 0
