"""deploy/server: what a broken or a loud client may not do to the others."""

import asyncio
import contextlib
import re
import threading
import time
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, client, ended, observation, options, run, serving
from websockets.asyncio.client import connect

from vlamem.deploy.server.rate_limit import RateLimit
from vlamem.deploy.server.sessions import SessionLimits, SessionTable
from vlamem.deploy.wire import WireLimits, pack, unpack


def test_malformed_messages_are_answered_and_too_many_end_the_connection() -> None:
    async def scenario() -> None:
        async with serving(options=options(sessions=SessionLimits(count=4, errors=5))) as server:
            async with client(server.port) as c:
                for raw in (b"\xc1", b"", pack([1]), pack({"vlamem": 3}), "text"):
                    await c.ws.send(raw)
                    assert "error" in str(await c.ws.recv())
                await c.ws.send(b"\xc1")
                await ended(c.ws.recv)
                assert c.ws.close_code == 1008
            async with client(server.port) as c:
                await c.ask("episode_start", episode=1)
                assert await c.memory(1, 0) == 0

    run(scenario)


def test_a_message_beyond_its_size_ends_the_connection_alone() -> None:
    async def scenario() -> None:
        async with serving(options=options(wire=WireLimits(bytes=10_000))) as server, client(server.port) as good:
            async with client(server.port) as big:
                await big.ws.send(bytes(20_000))
                await ended(big.ws.recv)
                assert big.ws.close_code == 1009
            await good.ask("episode_start", episode=1)
            assert await good.memory(1, 0) == 0

    run(scenario)


def test_a_client_that_never_reads_is_disconnected_and_the_others_are_served() -> None:
    async def scenario() -> None:
        limits = SessionLimits(count=4, send_s=0.3, rate_hz=1e6, errors=10**9)
        async with serving(options=options(sessions=limits)) as server, client(server.port) as good:
            deaf = await connect(f"ws://127.0.0.1:{server.port}", compression=None, max_queue=1, proxy=None)
            deaf.transport.pause_reading()
            message = pack({"vlamem": {"type": "x" * 4000}})

            async def flood() -> None:
                while True:
                    await deaf.send(message)

            task = asyncio.create_task(flood())
            await good.ask("episode_start", episode=1)
            step = 0
            while 'closed_total{why="not reading"} 1.0' not in server.metrics.text().decode():
                assert await good.memory(1, step) == 0
                step += 1
            assert step > 20
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            deaf.transport.abort()

    run(scenario)


def test_who_connects_and_says_nothing_keeps_no_one_out_and_disconnects_no_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlamem.deploy.server.policy_server._BESIDE", 1)

    async def scenario() -> None:
        async with serving(options=options(connections=2, handshake_s=LONG_S)) as server, client(server.port) as robot:
            await robot.ask("episode_start", episode=1)
            silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
            try:
                async with client(server.port) as other:
                    assert (await other.ask("reset"))["vlamem"]["type"] == "episode"
                assert await robot.memory(1, 0) == 0
                closed = re.search(r'closed_total{why="half open"} (\d+)', server.metrics.text().decode())
                assert closed is not None
                assert int(closed[1]) >= 18
            finally:
                for _, writer in silent:
                    writer.transport.abort()

    run(scenario)


def test_who_takes_too_long_to_say_who_it_is_is_left() -> None:
    async def scenario() -> None:
        async with serving(options=options(handshake_s=0.05)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_a_large_message_is_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def read(*given: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return unpack(*given)

    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            monkeypatch.setattr("vlamem.deploy.server.handler.unpack", read)
            assert await c.memory(1, 0) == 0
            beside = observation() | {"other camera": np.zeros((600, 600, 3), np.uint8)}
            assert (await c.ask("observe", beside, episode=1, step=1, plan=True))["vlamem"]["type"] == "chunk"

    run(scenario)
    assert threads == [True, False]


def test_a_full_table_refuses_politely_and_a_left_session_is_given_up_in_time() -> None:
    async def scenario() -> None:
        limits = SessionLimits(count=1, idle_s=0.2)
        async with serving(options=options(sessions=limits)) as server:
            async with client(server.port) as first, client(server.port) as second:
                await first.ask("hello", session="first")
                server.state.table._sessions["first"].used += 1000  # not silent, however long the next message takes
                assert (await second.ask("hello", session="second"))["vlamem"]["code"] == "full"
            async with client(server.port) as second:
                while (reply := await second.ask("hello", session="second"))["vlamem"]["type"] == "error":
                    assert reply["vlamem"]["code"] == "full"
                    await asyncio.sleep(0.1)

    run(scenario)


def test_a_silent_session_gives_its_row_when_another_wants_it_and_not_before() -> None:
    async def scenario() -> None:
        two = options(sessions=SessionLimits(count=2))
        async with serving(options=two) as server, contextlib.AsyncExitStack() as stack:
            silent, busy, new = [await stack.enter_async_context(client(server.port)) for _ in range(3)]
            for c, name in ((silent, "silent"), (busy, "busy")):
                await c.ask("hello", session=name)
            table = server.state.table
            for session in table._sessions.values():
                session.used -= 1000.0
            await busy.ask("episode_start", episode=1)
            server.state.sweep(time.monotonic())
            assert (len(table), table.connected) == (2, 2)
            assert (await new.ask("hello", session="new"))["vlamem"]["type"] == "session"
            await ended(silent.ws.recv)
            assert silent.ws.close_code == 1001
            assert await busy.memory(1, 0) == 0
            assert table.get("silent") is None
            assert table.connected == 2

    run(scenario)


def test_a_client_beyond_its_rate_waits_and_neither_the_others_nor_the_end_of_the_server_do() -> None:
    async def scenario() -> None:
        slow = options(sessions=SessionLimits(count=4, rate_hz=0.001, burst=2))
        async with serving(options=slow) as server, client(server.port) as fast, client(server.port) as other:
            for _ in range(3):
                await fast.ws.send(pack({"vlamem": {"type": "reset"}}))
            for _ in range(2):
                assert unpack(await fast.ws.recv())["vlamem"]["type"] == "episode"
            assert (await other.ask("reset"))["vlamem"]["type"] == "episode"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(fast.ws.recv(), 0.1)

    run(scenario)


def test_a_rate_lets_a_burst_pass_then_so_many_a_second_and_saves_up_no_more_than_a_burst() -> None:
    rate = RateLimit(10.0, 3, now=0.0)
    assert [rate.take(0.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])
    assert rate.take(0.3) == pytest.approx(0)
    assert [rate.take(1000.0) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_idle_is_counted_from_the_last_message_and_a_message_at_work_is_not_idle() -> None:
    async def scenario() -> None:
        table = SessionTable(SessionLimits(count=4, idle_s=10.0), 4)
        for name, used in (("held", 0.0), ("talking", 95.0), ("left", 50.0), ("working", 0.0)):
            table.create(name, connection=object(), now=used)
        table.disconnect(left := table._sessions["left"], left.connection, 50.0)
        async with table._sessions["working"].lock:
            assert [s.name for s in table.idle(100.0)] == ["left", "held"]

    run(scenario)
