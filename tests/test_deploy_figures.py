"""deploy/server: health, metrics, and who may connect."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, Summing, client, get, options, run, serving
from websockets.exceptions import InvalidStatus

from vlamem.core.proposal import Proposal
from vlamem.deploy.server.metrics import Metrics
from vlamem.deploy.server.options import ServeOptions
from vlamem.scripts.serve import address


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
