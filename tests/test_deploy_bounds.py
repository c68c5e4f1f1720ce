"""deploy/server: what a broken or an unknown client may not do, and what a server reports of itself."""

import asyncio
import contextlib
import io
import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, Summing, client, ended, observation, options, run, serving
from PIL import Image, ImageFile
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from vlamem.core.proposal import Proposal
from vlamem.deploy.server.metrics import Metrics
from vlamem.deploy.server.options import ServeOptions
from vlamem.deploy.server.rate_limit import RateLimit
from vlamem.deploy.server.sessions import SessionLimits, SessionTable
from vlamem.deploy.wire import WireLimits, pack, unpack
from vlamem.scripts.serve import address


def get(port: int, path: str, key: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Api-Key {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


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


def figure(text: bytes, name: str) -> float:
    return next(float(line.split()[1]) for line in text.decode().splitlines() if line.startswith(f"{name} "))


def test_metrics_tell_the_age_of_a_frame_that_waits() -> None:
    at_work, go = threading.Event(), threading.Event()

    class Waiting(Summing):
        def observe(self, obs: Any, rows: Any = None) -> Any:
            at_work.set()
            assert go.wait(LONG_S)
            return super().observe(obs, rows)

    async def scenario() -> None:
        async with serving(Waiting()) as server, client(server.port) as a, client(server.port) as b:
            assert figure(server.metrics.text(), "vlamem_queue_age_seconds") == 0
            for c in (a, b):
                await c.ask("episode_start", episode=1)
            first = asyncio.create_task(a.observe(1, 0))
            while not at_work.is_set():
                await asyncio.sleep(0.01)
            second = asyncio.create_task(b.observe(1, 0))
            while figure(server.metrics.text(), "vlamem_queue_age_seconds") == 0:
                await asyncio.sleep(0.01)
            go.set()
            await asyncio.gather(first, second)
            assert figure(server.metrics.text(), "vlamem_queue_age_seconds") == 0

    run(scenario)


def test_metrics_count_what_success_memory_proposed_and_where_it_abstained() -> None:
    metrics = Metrics(lambda: 0, lambda: 0, lambda: 0.0)
    for weight in ([0.5, 0.0, 0.9], [0.0]):
        metrics.retrieved(Proposal.of_chunk(np.zeros((len(weight), 4, 7), np.float32), weight))
    assert figure(metrics.text(), "vlamem_retrieval_hits_total") == 2
    assert figure(metrics.text(), "vlamem_retrieval_abstentions_total") == 2


def test_without_the_key_nothing_but_health_is_served() -> None:
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
            with pytest.raises(InvalidStatus) as refused:
                async with client(server.port, origin="http://elsewhere.example"):
                    pass
            assert refused.value.response.status_code == 403
            assert b"--allow-origin http://elsewhere.example" in refused.value.response.body

    run(scenario)


def test_a_web_page_that_is_allowed_by_name_connects_and_no_other() -> None:
    async def scenario() -> None:
        async with serving(options=options(origins=("http://panel.local:5000",))) as server:
            async with client(server.port, origin="http://panel.local:5000") as c:
                await c.ask("episode_start", episode=1)
            async with client(server.port) as c:
                await c.ask("episode_start", episode=1)
            with pytest.raises(InvalidStatus):
                async with client(server.port, origin="http://panel.local"):
                    pass

    run(scenario)


def test_an_address_of_ip_version_6_is_said_in_brackets() -> None:
    assert address("ws", "::1", 8000) == "ws://[::1]:8000"
    assert address("wss", "127.0.0.1", 8000) == "wss://127.0.0.1:8000"


def test_listening_beyond_the_machine_needs_a_key_and_tls_needs_both_files() -> None:
    with pytest.raises(ValueError, match="--api-key-file"):
        ServeOptions(host="0.0.0.0")
    with pytest.raises(ValueError, match="both a certificate"):
        ServeOptions(certificate=Path("cert.pem"))


@pytest.mark.parametrize(
    ("changed", "expected"),
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
def test_an_observation_that_does_not_fit_is_refused_by_name_and_the_session_goes_on(
    changed: Any, expected: str
) -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            bad = await c.ask("observe", observation() | changed, episode=1, step=0, plan=True)
            assert bad["vlamem"]["code"] == "observation"
            assert len(bad["vlamem"]["id"]) == 12
            assert re.search(expected, bad["vlamem"]["message"]), bad
            assert await c.memory(1, 0) == 0

    run(scenario)


def test_what_the_robot_executed_must_be_an_action() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            reply = await c.ask("observe", observation(), episode=1, step=0, plan=True, executed=[1.0, 2.0])
            assert reply["vlamem"]["code"] == "observation"

    run(scenario)


def encoded(size: int, form: str = "png") -> dict[str, Any]:
    """A grey image as vla-eval's harness sends it."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (128, 128, 128)).save(file, form)
    return {"__image__": True, "format": form, "data": file.getvalue(), "shape": [size, size, 3]}


async def vla_eval_message(port: int, images: dict[str, Any]) -> dict[str, Any]:
    payload = {"images": images, "states": np.zeros(8, np.float32), "task_description": "touch it"}
    async with connect(f"ws://127.0.0.1:{port}/vla-eval", compression=None, proxy=None) as ws:
        await ws.send(pack({"type": "observation", "payload": payload, "seq": 1, "timestamp": 0.0}))
        return unpack(await ws.recv())


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_of_the_images_of_a_vla_eval_client_those_of_the_policy_are_decoded_beside_the_loop_and_no_others(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[tuple[int, int], bool]] = []
    load = ImageFile.ImageFile.load

    def loaded(image: Any) -> Any:
        decoded.append((image.size, threading.current_thread() is threading.main_thread()))
        return load(image)

    async def scenario() -> None:
        async with serving() as server:
            bombs = {f"other{i}": encoded(64, form) for i in range(20)}
            right, bomb = encoded(8, form), encoded(512, form)
            with monkeypatch.context() as patch:
                patch.setattr(ImageFile.ImageFile, "load", loaded)
                reply = await vla_eval_message(server.port, bombs | {"front": right})
                assert reply["type"] == "action", reply
                reply = await vla_eval_message(server.port, {"front": bomb})
                assert "512 pixels high and 512 wide, expected 8 high and 8 wide" in reply["payload"]["error"]

    run(scenario)
    assert set(decoded) == {((8, 8), False)}


def test_an_image_too_large_to_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with serving() as server:
            for most in (10, 40):  # an error beyond twice of it, a warning beyond once
                monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
                reply = await vla_eval_message(server.port, {"front": bomb})
                assert "(message): a damaged png image" in reply["payload"]["error"]

    bomb = encoded(8)
    run(scenario)
