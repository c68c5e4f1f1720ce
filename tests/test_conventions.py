"""docs/conventions.md against the code."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE
from vlamem.core.tick_trace import PROPOSED, RETRIEVED, SERVED, STEP, TICKED
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.pages import SCHEMA, SCHEMA_VERSION, WALL_CLOCK
from vlamem.sim.results.summary import summarise
from vlamem.sim.suites.registry import load_suite

TABLE = (Path(__file__).resolve().parent.parent / "docs" / "conventions.md").read_text()


def row(name: str) -> str:
    return next(line for line in TABLE.splitlines() if line.startswith(f"| {name} |"))


def test_the_action_convention_is_the_one_in_the_spec() -> None:
    translation, rotation, gripper = OSC_POSE.components
    assert (translation.size, rotation.size, gripper.size) == (3, 3, 1)
    assert {c.low for c in OSC_POSE.components} == {-1.0}
    assert f"{translation.mode}, {translation.frame} frame; 1 is {translation.unit}" in row("translation in actions")
    assert rotation.form == "axis_angle"
    assert f"axis-angle, {rotation.mode}, {rotation.frame} frame; 1 is {rotation.unit}" in row("rotation in actions")
    assert f"{gripper.mode}; {gripper.unit}" in row("gripper in actions")


def test_every_field_of_an_episode_is_listed() -> None:
    listed = row("`episodes.jsonl`")
    for field in fields(EpisodeRecord):
        assert field.name in listed, field.name


def test_every_column_of_a_trace_is_listed() -> None:
    listed = row("`traces/TASK-EPISODE.parquet`")
    for name in (*STEP, *TICKED, *PROPOSED, *RETRIEVED):
        assert name in listed, name
    served = row("`STATE/traces/SESSION-EPISODE.parquet`")
    for name in SERVED:
        assert name in served, name


def test_every_count_of_results_is_listed() -> None:
    listed = row("`results.json`")
    arms, _ = summarise([EpisodeRecord("none", "touch", "test", 0, 0, "success", "test/0")], ["touch"])
    for name in arms["none"]["total"]:
        assert name in listed, name
    assert f"`{SCHEMA}`, version {SCHEMA_VERSION}" in listed
    assert f"`{WALL_CLOCK}`" in listed


def test_streams_have_names_and_do_not_depend_on_each_other() -> None:
    first = stream(3, "noise", "touch", 1).standard_normal(4)
    stream(3, "noise", "push", 1).standard_normal(9)
    np.testing.assert_array_equal(first, stream(3, "noise", "touch", 1).standard_normal(4))
    assert not np.allclose(first, stream(3, "noise", "touch", 2).standard_normal(4))


@pytest.fixture
def observation():  # type: ignore[no-untyped-def]
    env = load_suite("tabletop").make("touch")
    seen, _ = env.reset(options={"episode": 3, "split": "test", "wording": "training"})
    yield seen
    env.close()


def test_tabletop_observations_follow_the_table(observation) -> None:  # type: ignore[no-untyped-def]
    proprioception = observation["proprioception"]
    assert proprioception.dtype == np.float32
    assert proprioception.shape == (8,)
    assert np.linalg.norm(proprioception[3:7]) == pytest.approx(1, abs=1e-5)
    for camera in ("agentview", "wrist"):
        assert observation[camera].dtype == np.uint8
        assert observation[camera].shape == (84, 84, 3)
