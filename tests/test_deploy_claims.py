"""deploy/server: what a client may claim (step numbers, actions, labels), and what the server makes of a claim."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import SPEC, client, label, run, serving

from vlamem.deploy.bounds import longest_episode, longest_gap
from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.sessions import Session, SessionError
from vlamem.deploy.server.traces import TraceStore
from vlamem.memory.success import Origin, SuccessMemory
from vlamem.memory.success.runner import layout_of as success_layout

KEY, AT, CHUNK = np.float32([1, 0]), np.float32([0, 0, 0, 1, 0, 0, 0, 0]), np.zeros((4, 7), np.float32)
ACTION = np.zeros(7, np.float32)


def memory_in(folder: Path) -> SuccessMemory:
    return SuccessMemory(folder / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC))


def recorded(folder: Path, *steps: int, first: int = 0) -> TraceStore:
    """Episode 1 of session "arm": a plan at step `first`, and an action before each of `steps`."""
    traces = TraceStore(folder / "episodes")
    traces.begin("arm", 1)
    traces.record_plan("arm", 1, first, "touch it", KEY, AT, CHUNK)
    for step in steps:
        traces.record_action("arm", 1, step, ACTION)
    return traces


def test_a_jump_in_step_number_is_refused_and_the_session_goes_on() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            await c.observe(1, 0, write=True, value=5.0)
            for step in (2_000_000_000, longest_episode(20.0) + 1, 10_000):
                reply = await c.observe(1, step)
                assert reply["vlamem"]["code"] in ("limit", "message"), reply
            assert await c.memory(1, 1) == 5
            assert (await c.ask("episode_start", episode=(1 << 31) - 1))["vlamem"]["code"] == "message"

    run(scenario)


def test_steps_may_be_missing_for_as_long_as_no_frame_came_and_ten_seconds_beyond() -> None:
    session = Session("arm", "t", 0, True, episode=1, step=100, stepped=1000.0)
    assert session.check_step(1, 100 + longest_gap(20.0), 1000.0, 20.0)
    with pytest.raises(SessionError, match="step 301 of session 'arm' cannot have come after step 100 at 20 Hz"):
        session.check_step(1, 301, 1000.0, 20.0)
    assert session.check_step(1, 301 + 20 * 60, 1060.1, 20.0)  # a minute without a server
    session.stepped = None  # another process or another connection
    assert session.check_step(1, 50_000, 0.0, 20.0)
    with pytest.raises(SessionError, match="at most 1728000"):
        session.check_step(1, 1_728_001, 0.0, 20.0)


def test_an_episode_counts_up_to_a_bound_whoever_counts() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            server.state.table.get("arm").episode = (1 << 31) - 1
            assert (await c.ask("reset"))["vlamem"]["code"] == "limit"

    run(scenario)


def test_an_episode_whose_record_has_a_hole_is_not_filled_step_by_step(tmp_path: Path) -> None:
    traces = recorded(tmp_path, *range(1, 9), 2_000_000_000)
    with memory_in(tmp_path) as memory:
        said = commit_episode(memory, traces, label("a"))
        assert "nothing of arm/1 could be kept: 1999999991 of its steps have no action on record" in said
        assert len(memory) == 0


def test_steps_missing_here_and_there_are_filled_and_counted_together(tmp_path: Path) -> None:
    traces = recorded(tmp_path, 1, 2, 5, 6, 8)
    with memory_in(tmp_path) as memory:
        assert "3 of its steps" in commit_episode(memory, traces, label("a"), most_missing=2)
        assert "1 segments kept" in commit_episode(memory, traces, label("a"), most_missing=3)


def test_an_action_that_was_recorded_twice_counts_once_and_waiting_before_the_first_action_is_no_part_of_it(
    tmp_path: Path,
) -> None:
    traces = recorded(tmp_path, first=5000)
    traces.record_plan("arm", 1, 5003, "touch it", KEY, AT, CHUNK)
    for step in (5004, 5004, 5005, 5006, 5007):
        traces.record_action("arm", 1, step, np.full(7, step / 1e4, np.float32))
    found: list[Any] = []
    with memory_in(tmp_path) as memory:
        assert "1 segments kept" in commit_episode(memory, traces, label("a"), most_missing=0)
        found = [s.chunk[:, 0].round(4).tolist() for s in memory.store.segments(memory.origin)]
    assert found == [[0.5004, 0.5005, 0.5006, 0.5007]]
