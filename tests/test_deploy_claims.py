"""deploy/server: what a client may claim (step numbers, sessions, actions), and what the server makes of a claim."""

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import SPEC, Summing, client, get, label, observation, run, serving, store_in
from websockets.asyncio.client import connect

from vlamem.deploy.bounds import longest_episode, longest_gap
from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.executed import PlannedActions
from vlamem.deploy.server.labels import Label, LabelQueue
from vlamem.deploy.server.sessions import Session, SessionError
from vlamem.deploy.server.traces import TraceStore
from vlamem.deploy.wire import pack, unpack
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
        found = [s.segment.chunk[:, 0] for s in memory.store.segments(memory.origin)]
    np.testing.assert_allclose(found, [[0.5004, 0.5005, 0.5006, 0.5007]], atol=1e-6)


NONCE = "n" * 32


def test_a_hello_whose_answer_came_too_late_is_said_again_and_joins_the_session_that_it_made(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server:
            async with client(server.port) as late:
                await late.ws.send(pack({"vlamem": {"type": "hello", "session": "arm", "nonce": NONCE}}))
                while server.state.table.get("arm") is None:  # the robot does not wait for the answer
                    await asyncio.sleep(0.01)
            for _ in range(2):
                async with client(server.port) as c:
                    joined = (await c.ask("hello", session="arm", nonce=NONCE))["vlamem"]
                    assert (joined["session"], joined["token"], joined["episode"]) == ("arm", NONCE, 0)
            assert len(server.state.table) == 1
            async with client(server.port) as c:
                await c.ask("hello", session="arm", token=NONCE)
                await c.ask("episode_start", episode=1)
                await c.observe(1, 0, write=True, value=5.0)
            async with client(server.port) as c:
                assert (await c.ask("hello", session="arm", nonce="m" * 32))["vlamem"]["code"] == "taken"
                assert (await c.ask("hello", session="arm", nonce="short"))["vlamem"]["code"] == "message"
                assert (await c.ask("hello", session={"a": 1}, token="t"))["vlamem"]["code"] == "state"
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            joined = (await c.ask("hello", session="arm", nonce=NONCE))["vlamem"]
            assert (joined["restored"], joined["episode"], joined["token"]) == (True, 1, NONCE)
            assert await c.memory(1, 1) == 5

    run(scenario)


def test_an_outcome_is_credited_to_the_segments_that_the_episode_used_and_once(tmp_path: Path) -> None:
    with memory_in(tmp_path) as memory:
        commit_episode(memory, recorded(tmp_path, 1, 2, 3, 4), label("a"))
        (stored,) = memory.store.segments(memory.origin)
        traces = TraceStore(tmp_path / "episodes")
        for episode, outcome in ((2, "failure"), (3, "success"), (4, "success")):
            traces.begin("arm", episode)
            used = None if episode == 4 else np.array([stored.id])
            at = np.float32([episode / 2, 0, 0, 1, 0, 0, 0, 0])
            traces.record_plan("arm", episode, 0, "touch it", KEY, at, CHUNK, used)
            traces.record_action("arm", episode, 1, ACTION)
            for name, said in (("a", outcome), ("again", "failure")):
                commit_episode(memory, traces, replace(label(name, said), episode=episode))
        credited = next(s for s in memory.store.segments(memory.origin) if s.id == stored.id)
        assert (credited.uses, credited.successes) == (2, 1)
        assert memory.verify() >= 1


def test_the_segments_behind_a_chunk_are_on_record_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        traces = TraceStore(tmp_path)
        async with serving(traces=traces, used=lambda row: np.array([7 + row])) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            await c.observe(1, 0)
            await c.observe(1, 1, plan=False)
            _, plan = traces.read("arm", 1)
            assert plan["used"].tolist() == [7]

    run(scenario)


def test_of_two_controllers_of_one_session_the_one_that_was_started_last_drives_and_the_other_is_fenced_off(
    tmp_path: Path,
) -> None:
    async def join(c: Any, epoch: int, writer: str, **head: Any) -> dict[str, Any]:
        reply = await c.ask("hello", session="arm", epoch=epoch, writer=writer, **head)
        return dict(reply["vlamem"])

    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as old, client(server.port) as c:
            assert (await join(old, 2, "a", nonce=NONCE))["type"] == "session"
            await old.ask("episode_start", episode=1)
            for epoch, writer in ((1, "b"), (2, "b")):  # started before it, or with a copy of its state
                assert (await join(c, epoch, writer, token=NONCE))["code"] == "fenced"
            assert (await c.ask("hello", session="arm", token=NONCE))["vlamem"]["code"] == "fenced"
            assert (await old.observe(1, 0, write=True, value=5.0))["vlamem"]["wrote"] is True
            async with client(server.port) as again:  # the same controller on another connection
                assert (await join(again, 2, "a", token=NONCE))["step"] == 0
            assert (await join(c, 3, "b", token=NONCE))["type"] == "session"
            assert await c.memory(1, 1) == 5
            async with client(server.port) as late:
                assert (await join(late, 2, "a", token=NONCE))["code"] == "fenced"
                assert (await join(late, -1, "a", token=NONCE))["code"] == "message"
                assert (await join(late, 4, "a" * 65, token=NONCE))["code"] == "message"
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            assert (await join(c, 2, "a", token=NONCE))["code"] == "fenced"
            assert (await join(c, 3, "b", token=NONCE))["episode"] == 1

    run(scenario)


def plan_of(*values: float) -> np.ndarray:
    return np.tile(np.float32(values)[:, None], 7)


def test_what_a_controller_makes_of_its_chunks_counts_as_planned() -> None:
    planned = PlannedActions(-np.ones(7), np.ones(7))
    planned.planned(0, plan_of(0.5, 0.6, 0.7, 0.8))
    planned.planned(2, plan_of(0.0, 0.1, 0.2, 0.3))
    executed = (
        (1, -0.9),  # where it started from is its own
        (2, 0.6), (3, 0.35),  # of one chunk, blended with the next
        (4, 0.15),  # between two steps
        (5, 0.2), (6, 0.2),  # held
        (7, 0.1), (8, 0.0),  # on the way to rest
    )  # fmt: skip
    assert [planned.allows(step, np.full(7, value)) for step, value in executed] == [True] * 8
    assert not planned.allows(9, np.full(7, 0.3))
    assert not planned.allows(10, np.float64([0.3, 0, 0, 0, 0, 0, -0.5]))


def test_an_episode_whose_actions_were_never_planned_is_not_stored(tmp_path: Path) -> None:
    traces = recorded(tmp_path, 1, 2)
    traces.record_action("arm", 1, 3, np.float32([0, 0.9, 0, 0, 0, 0, 0]))
    with memory_in(tmp_path) as memory:
        said = commit_episode(memory, traces, label("a"))
        assert said.endswith("the action before step 3 was neither planned nor on the way to rest")
        assert len(memory) == 0


def test_an_episode_that_can_never_be_stored_is_done_with_and_its_trace_goes(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path / "episodes")
    traces.begin("arm", 1)
    traces.record_plan("arm", 1, 0, "touch it", KEY, AT, np.full((4, 7), np.nan, np.float32))
    traces.record_action("arm", 1, 1, np.full(7, 1.5, np.float32))
    with memory_in(tmp_path) as memory:
        assert "nothing of arm/1 could be kept" in commit_episode(memory, traces, label("a"))
    assert traces.is_labelled("arm", 1)


def test_an_executed_action_far_outside_the_range_is_refused_at_the_door() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            for wrong in (1e30, -3.5, float("nan"), float("inf")):
                executed = [0.0] * 6 + [wrong]
                reply = await c.ask("observe", observation(), episode=1, step=0, plan=True, executed=executed)
                assert reply["vlamem"]["code"] == "observation", reply
            assert (
                "entry 6 of the executed action"
                in (await c.ask("observe", observation(), episode=1, step=0, executed=[0.0] * 6 + [99.0]))["vlamem"][
                    "message"
                ]
            )
            reply = await c.ask("observe", observation(), episode=1, step=0, plan=True, executed=[0.0] * 6 + [1.2])
            assert reply["vlamem"]["type"] == "chunk"

    run(scenario)


class Broken(Summing):
    """Plans, or remembers, what is not finite where proprioception[6] says so."""

    def plan(self, tick: Any, noise: np.ndarray) -> np.ndarray:
        chunk = super().plan(tick, noise)
        chunk[tick.observation.proprioception[:, 6] == 1, 2, 3] = np.nan
        return chunk

    def observe(self, obs: Any, rows: Any = None) -> Any:
        self._memory[rows[obs.proprioception[:, 6] == 2], 0] = np.inf
        return super().observe(obs, rows)


def broken(how: float, write: bool = False) -> dict[str, Any]:
    seen = observation(write=write)
    seen["proprioception"][6] = how
    return seen


def test_actions_that_are_not_finite_reach_no_client_whatever_it_speaks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(Broken(), store=store_in(tmp_path)) as server:
            async with client(server.port) as c:
                await c.ask("hello", session="arm", nonce=NONCE)
                await c.ask("episode_start", episode=1)
                said = (await c.ask("observe", broken(1), episode=1, step=0, plan=True))["vlamem"]
                assert said["code"] == "nan"
                assert await c.memory(1, 1) == 0
                said = (await c.ask("observe", broken(2, write=True), episode=1, step=2))["vlamem"]
                assert said["code"] == "nan"
                await c.ask("episode_start", episode=2)
                assert await c.memory(2, 0) == 0
            async with client(server.port) as openpi:
                await openpi.ws.send(pack(broken(1)))
                assert "(nan)" in str(await openpi.ws.recv())
            async with connect(f"ws://127.0.0.1:{server.port}/vla-eval", compression=None, proxy=None) as ws:
                seen = broken(1)
                payload = {"images": {"front": seen["front"]}, "states": seen["proprioception"]}
                payload["task_description"] = "touch it"
                await ws.send(pack({"type": "observation", "payload": payload, "seq": 1, "timestamp": 0.0}))
                assert "(nan)" in unpack(await ws.recv())["payload"]["error"]

    run(scenario)


def test_a_full_disk_has_a_code_and_a_server_that_cannot_keep_labels_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    failing = [True]

    def process(given: Label) -> str:
        if failing[0]:
            raise full
        return "done"

    def begin(*record: Any) -> Any:
        raise full

    async def scenario() -> None:
        queue, store = LabelQueue(tmp_path / "l.jsonl", process, retry_s=0.01), store_in(tmp_path / "s")
        async with serving(labels=queue, store=store) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            assert await asyncio.to_thread(get, server.port, "/readyz") == (200, "OK\n")
            await c.ask("episode_end")
            await c.ask("label", label="a", episode=1, outcome="success")
            while not queue.failing:
                await asyncio.sleep(0.01)
            status, text = await asyncio.to_thread(get, server.port, "/readyz")
            assert (status, "1 labels could not be processed" in text) == (503, True)
            assert "vlamem_labels_failing 1.0" in server.metrics.text().decode()
            failing[0] = False
            while queue.failing:
                await asyncio.sleep(0.01)
            assert (await asyncio.to_thread(get, server.port, "/readyz"))[0] == 200
            with monkeypatch.context() as patch:
                patch.setattr(store, "begin", begin)
                said = (await c.ask("episode_start", episode=2))["vlamem"]
            assert (said["code"], "make room there" in said["message"]) == ("disk", True)
            assert (await c.ask("episode_start", episode=2))["vlamem"]["type"] == "episode"
            monkeypatch.setattr("vlamem.deploy.server.state._LEAST_FREE", 1 << 62)
            assert "MB left" in (await asyncio.to_thread(get, server.port, "/readyz"))[1]
        queue.close()

    run(scenario)
