"""deploy/server/state.py and labels.py: when an episode is over, and what happens to its labels before and after."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from deploy_cases import LONG_S, client, options, run, serving, store_in

from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.session_record import read_record
from vlamem.deploy.server.sessions import SessionLimits


async def next_episode(c: Any) -> None:
    await c.ask("episode_start", episode=2)


async def reset(c: Any) -> None:
    await c.ask("reset")


async def end(c: Any) -> None:
    assert (await c.ask("episode_end", episode=1))["vlamem"]["type"] == "ended"
    assert (await c.ask("episode_end", episode=2))["vlamem"]["code"] == "episode"


async def end_in_short(c: Any) -> None:
    await c.ask("episode_end")


async def bye(c: Any) -> None:
    await c.ask("bye")


async def leave(c: Any) -> None:
    await c.ws.close()


@pytest.mark.parametrize("over", [end, end_in_short, next_episode, reset, bye, leave])
def test_a_label_of_an_episode_that_runs_is_acknowledged_at_once_and_carried_out_when_it_is_over(
    tmp_path: Path, over: Callable[[Any], Awaitable[None]]
) -> None:
    async def scenario() -> None:
        done: list[str] = []
        queue = LabelQueue(tmp_path / "labels.jsonl", lambda label: done.append(label.label) or "done")
        brief = options(sessions=SessionLimits(count=4, idle_s=0.05))
        store = store_in(tmp_path / "s")
        async with serving(options=brief, labels=queue, store=store) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            await c.observe(1, 0)
            assert (await c.ask("label", label="a1", episode=1, outcome="success"))["vlamem"]["type"] == "labelled"
            assert queue.drain(LONG_S)
            await c.observe(1, 1)
            assert (done, queue.held) == ([], {"arm"})
            await over(c)
            while queue.held:
                await asyncio.sleep(0.01)
            assert queue.drain(LONG_S)
            assert done == ["a1"]
        queue.close()

    run(scenario)


def test_a_label_of_an_episode_that_is_over_waits_for_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        done: list[str] = []
        queue = LabelQueue(tmp_path / "labels.jsonl", lambda label: done.append(label.label) or "done")
        async with serving(labels=queue) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            await c.ask("episode_end", episode=1)
            await c.ask("label", label="a1", episode=1, outcome="success")
            assert queue.drain(LONG_S)
            await c.ask("episode_start", episode=2)
            await c.ask("label", label="a2", episode=1, outcome="failure")
            await c.ask("label", label="b1", episode=2, outcome="failure")
            assert queue.drain(LONG_S)
            assert done == ["a1", "a2"]
        queue.close()

    run(scenario)


@pytest.mark.parametrize("resumed", [True, False])
def test_a_label_held_over_a_restart_waits_for_the_episode_and_not_for_a_robot_that_has_left(
    tmp_path: Path, resumed: bool
) -> None:
    def parts() -> dict[str, Any]:
        store = store_in(tmp_path / "s")
        done: list[str] = []
        queue = LabelQueue(
            tmp_path / "labels.jsonl", lambda label: done.append(label.label) or "done", done.append,
            runs=lambda label: store.runs(label.session, label.episode),
        )  # fmt: skip
        return {"labels": queue, "store": store, "done": done}

    async def scenario() -> None:
        first = parts()
        done = first.pop("done")
        async with serving(**first) as server, client(server.port) as c:
            token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
            await c.ask("episode_start", episode=1)
            await c.ask("label", label="a1", episode=1, outcome="success")
        first["labels"].close()
        assert done == []
        second = parts()
        done, queue = second.pop("done"), second["labels"]
        idle_s = 300.0 if resumed else 0.05
        async with serving(options=options(sessions=SessionLimits(count=4, idle_s=idle_s)), **second) as server:
            async with client(server.port) as c:
                if resumed:
                    await c.ask("hello", session="arm", token=token)
                    assert queue.drain(LONG_S)
                    assert done == []
                    await c.ask("episode_end", episode=1)
                while queue.held:
                    await asyncio.sleep(0.01)
            assert queue.drain(LONG_S)
            assert done == ["a1"]
        queue.close()

    run(scenario)


def test_a_session_says_whether_its_episode_has_ended_after_a_restart_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server:
            async with client(server.port) as c:
                hello = (await c.ask("hello", session="arm"))["vlamem"]
                token = hello["token"]
                assert hello["ended"] is False
                await c.ask("episode_start", episode=1)
                await c.observe(1, 0, write=True, value=5.0)
            async with client(server.port) as c:
                assert (await c.ask("hello", session="arm", token=token))["vlamem"]["ended"] is False
                await c.ask("episode_end", episode=1)
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            back = (await c.ask("hello", session="arm", token=token))["vlamem"]
            assert (back["episode"], back["step"], back["ended"]) == (1, 0, True)
            await c.ask("episode_start", episode=2)
            assert read_record(tmp_path / "arm").ended is False

    run(scenario)
