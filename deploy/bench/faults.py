"""A robot that works while its server is killed, its network stalls and its server is abused by others."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.deploy.bench.abuse import Leaks, frames, look_for_leaks, never_read, send_malformed
from vlamem.deploy.bench.controller_kills import wait_for_write
from vlamem.deploy.bench.options import DeployBench
from vlamem.deploy.bench.processes import ProcessError, RobotProcess, ServerProcess
from vlamem.deploy.bench.proxy import Proxy
from vlamem.deploy.bench.robot_process import RobotRun
from vlamem.deploy.bench.server_kills import ServerKill, kill_server, words
from vlamem.deploy.wire import pack, unpack

_DEAF_S = 60.0


@dataclass(frozen=True)
class Faults:
    """The run under faults.

    Attributes:
        report: the robot's, over the whole of it.
        kills: of the server.
        network: what the proxy did.
        stalls_s: length of each.
        malformed, answered, ended: messages sent, answered, and connections that ended instead.
        leaks: what the look for leaks among many clients found.
        deaf_ended: whether the client that never reads was disconnected.
    """

    report: dict[str, Any]
    kills: tuple[ServerKill, ...]
    network: dict[str, int]
    stalls_s: tuple[float, ...]
    malformed: int
    answered: int
    ended: int
    leaks: Leaks
    deaf_ended: bool


def drive_under_faults(
    bench: DeployBench, plan: RobotRun, server: ServerProcess, state: Path, say: Callable[[str], None]
) -> Faults:
    """Lets the robot of `plan` work through a bad network while the `server` with its `state` is killed, then abused.

    Raises ProcessError when the robot ends before its end file is there.
    """
    say(f"run under faults: {bench.faults_s:g} s, {bench.kills} kills, {bench.stalls} stalls")
    rng = stream(bench.seed, "faults")
    proxy = Proxy(f"ws://127.0.0.1:{server.port}", rng)
    robot = RobotProcess(replace(plan, server=f"ws://127.0.0.1:{proxy.start()}"))
    lengths = list(np.clip(rng.uniform(0.1, 5.0, bench.stalls), 0.1, bench.faults_s / (4 * max(1, bench.stalls))))
    closing = threading.Event()
    stalls: list[tuple[float, float]] = []

    def stall() -> None:
        for length in lengths:
            if closing.wait(max(0.0, bench.faults_s / (bench.stalls + 1) - length)):
                return
            stalls.append((time.time(), time.time() + length))
            proxy.badness.stalled = True
            closing.wait(length)
            proxy.badness.stalled = False

    proxy.badness.duplicate = proxy.badness.reorder = bench.bad
    proxy.badness.truncate = bench.bad / 10
    thread = threading.Thread(target=stall, name="stalls")
    kills: list[ServerKill] = []
    try:
        robot.wait_until_running()
        thread.start()
        for number in range(1, bench.kills + 1):
            time.sleep(bench.faults_s / (bench.kills + 1))
            if not robot.running:
                raise ProcessError(f"the robot ended before kill {number}: {robot.output()[-2000:]}")
            wait_for_write(robot, state, plan)
            kills.append(kill_server(number, robot, server, state, plan.session, stalls))
            say(f"  kill {number}: {words(kills[-1])}")
        time.sleep(bench.faults_s / (bench.kills + 1))
        say(f"abuse: {bench.malformed} malformed messages, {bench.clients} clients at once, one that never reads")
        answered, ended, leaks, deaf = asyncio.run(_abuse(bench, f"ws://127.0.0.1:{server.port}"))
        robot.end()
        report = robot.report(bench.faults_s + bench.episode_s + 120)
    finally:
        closing.set()
        if thread.ident is not None:
            thread.join()
        robot.kill()
        proxy.close()
    return Faults(
        report, tuple(kills), dict(proxy.counts), tuple(lengths), bench.malformed, answered, ended, leaks, deaf
    )


async def _abuse(bench: DeployBench, uri: str) -> tuple[int, int, Leaks, bool]:
    spec = await _spec(uri)
    good = pack(frames(spec, 0, 1, bench.seed)[0] | {"vlamem": {"type": "observe", "episode": 1, "step": 0}})
    answered, ended = await send_malformed(uri, bench.malformed, good, bench.seed)
    leaks = await look_for_leaks(uri, spec, bench.clients, bench.client_steps, bench.seed)
    return answered, ended, leaks, await never_read(uri, _DEAF_S, good)


async def _spec(uri: str) -> dict[str, Any]:
    from websockets.asyncio.client import connect

    async with connect(uri, compression=None, proxy=None) as ws:
        raw = await ws.recv()
        assert isinstance(raw, bytes)
        spec: dict[str, Any] = unpack(raw)["vlamem"]["spec"]
        return spec
