"""deploy/server.py: protocols, sessions, bounds, and what a broken client may not do."""

import asyncio
import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import FOUR, Client, Summing, client, observation, run, serving, store_in
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vlamem.deploy.labels import LabelDesk
from vlamem.deploy.server import ServeOptions
from vlamem.deploy.sessions import SessionLimits
from vlamem.deploy.wire import WireLimits, pack, unpack


def options(**changed: Any) -> ServeOptions:
    return ServeOptions(**{"port": 0, "sessions": FOUR, **changed})


async def ended(ask: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What a connection still says until it is closed."""
    said = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            said.append(await ask())
    return said


def get(port: int, path: str, key: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Api-Key {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_an_openpi_client_gets_metadata_then_a_chunk_for_each_observation() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            assert c.metadata["vlamem"]["spec"]["name"] == "summing"
            await c.ws.send(pack(observation(write=True, value=7.0)))
            reply = unpack(await c.ws.recv())
            assert reply["actions"].shape == (4, 7)
            assert reply["actions"][0, 0] == np.float32(0.07)
            assert reply["policy_timing"]["infer_ms"] > 0
            assert reply["server_timing"]["infer_ms"] > 0
            await c.ws.send(pack(observation()))
            assert unpack(await c.ws.recv())["server_timing"]["prev_total_ms"] > 0

    run(scenario)


def test_reset_of_an_openpi_client_empties_its_memory() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ws.send(pack(observation(write=True, value=7.0)))
            await c.ws.recv()
            await c.ws.send(pack({"reset": True}))
            assert unpack(await c.ws.recv()) == {"reset_finished": True}
            await c.ws.send(pack(observation()))
            assert unpack(await c.ws.recv())["actions"][0, 0] == 0

    run(scenario)


def test_memory_sees_ticks_between_plans_and_is_empty_in_the_next_episode() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            reply = await c.observe(1, 0, write=True, value=5.0, plan=False)
            assert reply["vlamem"]["type"] == "tick"
            assert reply["vlamem"]["wrote"] is True
            assert "actions" not in reply
            assert await c.memory(1, 1) == 5
            await c.ask("episode_start", episode=2)
            assert await c.memory(2, 0) == 0

    run(scenario)


def test_no_session_sees_the_memory_of_another_and_a_row_is_clean_for_its_next_holder() -> None:
    async def scenario() -> None:
        async with serving(options=options(sessions=SessionLimits(count=2))) as server:
            for value in range(1, 6):  # more sessions than rows, one after the other
                async with client(server.port) as a, client(server.port) as b:
                    for c, own in ((a, value), (b, 10 * value)):
                        await c.ask("episode_start", episode=1)
                        assert await c.memory(1, 0) == 0
                        await c.observe(1, 1, write=True, value=own)
                    assert (await a.memory(1, 2), await b.memory(1, 2)) == (value, 10 * value)
                    await a.ask("bye")
                await asyncio.sleep(0)
                while len(server.desk.table):
                    await asyncio.sleep(0.01)

    run(scenario)


def test_a_step_that_comes_again_or_late_is_not_seen_twice() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            first = await c.observe(1, 3, write=True, value=5.0)
            again = await c.observe(1, 3, write=True, value=5.0)
            assert again["vlamem"]["duplicate"] is True
            np.testing.assert_array_equal(again["actions"], first["actions"])
            late = await c.observe(1, 2, write=True, value=5.0)
            assert late["vlamem"]["duplicate"] is True
            assert "actions" not in late
            assert (await c.ask("episode_start", episode=1))["vlamem"]["fresh"] is False
            assert await c.memory(1, 4) == 5

    run(scenario)


def test_what_belongs_to_another_episode_is_refused() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            assert (await c.observe(1, 0))["vlamem"]["code"] == "episode"
            await c.ask("episode_start", episode=2)
            assert (await c.observe(1, 0))["vlamem"]["code"] == "episode"
            assert (await c.ask("episode_start", episode=1))["vlamem"]["code"] == "order"
            assert await c.memory(2, 0) == 0

    run(scenario)


def test_a_session_is_resumed_by_its_token_alone() -> None:
    async def scenario() -> None:
        async with serving() as server:
            async with client(server.port) as c:
                token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
                await c.ask("episode_start", episode=1)
                await c.observe(1, 0, write=True, value=5.0)
            async with client(server.port) as thief:
                assert (await thief.ask("hello", session="arm"))["vlamem"]["code"] == "taken"
                assert (await thief.ask("hello", session="arm", token="guess"))["vlamem"]["code"] == "taken"
            async with client(server.port) as c:
                back = (await c.ask("hello", session="arm", token=token))["vlamem"]
                assert (back["restored"], back["episode"], back["step"]) == (True, 1, 0)
                assert await c.memory(1, 1) == 5

    run(scenario)


def test_a_session_that_is_resumed_elsewhere_is_lost_to_the_old_connection() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as old, client(server.port) as new:
            token = (await old.ask("hello", session="arm"))["vlamem"]["token"]
            await old.ask("episode_start", episode=1)
            await new.ask("hello", session="arm", token=token)
            await new.observe(1, 0, write=True, value=5.0)
            refused = await ended(lambda: old.observe(1, 1, write=True, value=9.0))
            assert all(reply["vlamem"]["code"] == "taken" for reply in refused)
            assert await new.memory(1, 1) == 5

    run(scenario)


def test_a_full_table_refuses_politely_and_a_left_session_is_given_up_in_time() -> None:
    async def scenario() -> None:
        limits = SessionLimits(count=1, idle_s=0.2)
        async with serving(options=options(sessions=limits)) as server:
            async with client(server.port) as first, client(server.port) as second:
                await first.ask("hello", session="first")
                assert (await second.ask("hello", session="second"))["vlamem"]["code"] == "full"
            async with client(server.port) as second:
                while (reply := await second.ask("hello", session="second"))["vlamem"]["type"] == "error":
                    assert reply["vlamem"]["code"] == "full"
                    await asyncio.sleep(0.1)

    run(scenario)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"front": np.zeros((9, 8, 3), np.uint8)}, r"uint8 \[9, 8, 3\], expected uint8 \[8, 8, 3\]"),
        ({"front": np.zeros((8, 8, 3), np.float32)}, "float32"),
        ({"front": "picture"}, "is str"),
        ({"proprioception": np.full(8, np.nan, np.float32)}, "not finite"),
        ({"proprioception": np.zeros(7, np.float32)}, r"\[7\], expected \[8\]"),
        ({"proprioception": {"x": 1}}, "expected 8 numbers"),
        ({"instruction": ""}, "the instruction is ''"),
        ({"instruction": 3}, "the instruction is '3'"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_by_name_and_the_session_goes_on(changed: Any, said: str) -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            bad = await c.ask("observe", observation() | changed, episode=1, step=0, plan=True)
            assert bad["vlamem"]["code"] == "observation"
            assert len(bad["vlamem"]["id"]) == 12
            assert re.search(said, bad["vlamem"]["message"]), bad
            assert await c.memory(1, 0) == 0

    run(scenario)


def test_a_policy_that_fails_on_one_row_fails_for_that_row_alone() -> None:
    async def scenario() -> None:
        policy = Summing()
        slow = ServeOptions(port=0, sessions=FOUR, wait_s=0.5)
        async with serving(policy, slow) as server, client(server.port) as good, client(server.port) as bad:
            for c in (good, bad):
                await c.ask("episode_start", episode=1)
            policy.batches.clear()
            unlucky = observation(write=True, value=3.0)
            unlucky["proprioception"][7] = 13
            answers = await asyncio.gather(
                good.observe(1, 0, write=True, value=5.0), bad.ask("observe", unlucky, episode=1, step=0, plan=True)
            )
            assert policy.batches == [2, 1, 1]
            assert answers[0]["actions"][0, 0] == np.float32(0.05)
            assert answers[1]["vlamem"]["code"] == "internal"
            assert "unlucky" not in answers[1]["vlamem"]["message"]
            assert await bad.memory(1, 0) == 0  # the failed frame left nothing

    run(scenario)


def test_rows_of_several_sessions_share_a_pass() -> None:
    async def scenario() -> None:
        policy = Summing()
        slow = ServeOptions(port=0, sessions=FOUR, wait_s=1.0)
        async with serving(policy, slow) as server, client(server.port) as a, client(server.port) as b:
            for c in (a, b):
                await c.ask("episode_start", episode=1)
            policy.batches.clear()
            await asyncio.gather(a.observe(1, 0), b.observe(1, 0))
            assert policy.batches == [2]

    run(scenario)


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


def test_health_and_metrics_are_served_and_count() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            await c.observe(1, 0, write=True)
            await c.observe(1, 1)
            assert await asyncio.to_thread(get, server.port, "/healthz") == (200, "OK\n")
            status, text = await asyncio.to_thread(get, server.port, "/metrics")
            assert status == 200
            for line in (
                "vlamem_ticks_total 2.0", "vlamem_writes_total 1.0", "vlamem_gate_rate 0.5", "vlamem_sessions 1.0",
                "vlamem_decision_seconds_count 2.0",
            ):  # fmt: skip
                assert line in text.splitlines()

    run(scenario)


def test_without_the_key_nothing_but_health_is_told() -> None:
    async def scenario() -> None:
        async with serving(options=options(api_key="secret")) as server:
            assert (await asyncio.to_thread(get, server.port, "/healthz"))[0] == 200
            assert (await asyncio.to_thread(get, server.port, "/metrics"))[0] == 401
            assert (await asyncio.to_thread(get, server.port, "/metrics", "wrong"))[0] == 401
            assert (await asyncio.to_thread(get, server.port, "/metrics", "secret"))[0] == 200
            for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "Basic secret"}):
                with pytest.raises(InvalidStatus):
                    async with client(server.port, additional_headers=headers):
                        pass
            async with client(server.port, additional_headers={"Authorization": "Api-Key secret"}) as c:
                await c.ask("episode_start", episode=1)

    run(scenario)


def test_a_web_page_may_not_connect() -> None:
    async def scenario() -> None:
        async with serving() as server:
            with pytest.raises(InvalidStatus):
                async with client(server.port, origin="http://elsewhere.example"):
                    pass

    run(scenario)


def test_listening_beyond_the_machine_needs_a_key_and_tls_needs_both_files() -> None:
    with pytest.raises(ValueError, match="--api-key-file"):
        ServeOptions(host="0.0.0.0")
    with pytest.raises(ValueError, match="both a certificate"):
        ServeOptions(certificate=Path("cert.pem"))


def test_a_label_is_on_disk_before_it_is_acknowledged_and_counts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        done: list[str] = []
        desk = LabelDesk(tmp_path / "labels.jsonl", lambda label: done.append(label.outcome) or "done")
        async with serving(labels=desk, store=store_in(tmp_path / "s")) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            for _ in range(2):
                reply = await c.ask("label", label="a1", episode=1, outcome="success")
                assert reply["vlamem"]["type"] == "labelled"
            assert "a1" in (tmp_path / "labels.jsonl").read_text()
            assert (await c.ask("label", label="a2", episode=2, outcome="success"))["vlamem"]["code"] == "episode"
            assert (await c.ask("label", label="a3", episode=1, outcome="maybe"))["vlamem"]["code"] == "label"
            desk.settle(10)
        desk.close()
        assert done == ["success"]

    run(scenario)


def test_after_a_restart_the_episode_goes_on_with_the_memory_it_had(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
            await c.ask("episode_start", episode=1)
            await c.observe(1, 0, write=True, value=5.0)
            await c.observe(1, 1)
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            assert (await c.ask("hello", session="arm"))["vlamem"]["code"] == "taken"
            back = (await c.ask("hello", session="arm", token=token))["vlamem"]
            assert (back["restored"], back["episode"], back["step"]) == (True, 1, 0)
            assert await c.memory(1, 2) == 5
            await c.ask("episode_start", episode=2)
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            await c.ask("hello", session="arm", token=token)
            assert await c.memory(2, 0) == 0  # nothing was written in episode 2

    run(scenario)


def test_a_stored_session_of_another_policy_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
        async with serving(store=store_in(tmp_path, memory="sum2")) as server, client(server.port) as c:
            reply = (await c.ask("hello", session="arm", token=token))["vlamem"]
            assert reply["code"] == "state"
            assert "memory 'sum1', this server has 'sum2'" in reply["message"]

    run(scenario)


def test_what_the_robot_executed_must_be_an_action() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            bad: Client = c
            reply = await bad.ask("observe", observation(), episode=1, step=0, plan=True, executed=[1.0, 2.0])
            assert reply["vlamem"]["code"] == "observation"

    run(scenario)
