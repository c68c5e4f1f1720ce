"""The deploy bench: a quiet run, one under faults, killed controllers, abuse; every figure from what was measured."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.deploy.bench.abuse import frames, healthy, look_for_leaks, never_read, send_malformed
from vlamem.deploy.bench.controller_kills import ControllerKill, kill_controllers
from vlamem.deploy.bench.processes import BenchError, RobotProcess, ServerProcess
from vlamem.deploy.bench.proxy import Proxy
from vlamem.deploy.bench.robot_process import RobotRun
from vlamem.deploy.wire import pack
from vlamem.memory.seeding import stream

_SAMPLE_S = 0.5


@dataclass(frozen=True)
class DeployBench:
    """How long and how badly.

    Attributes:
        policy: to serve.
        aura: gate, "shipped", a file, or "untrained": one with drawn weights that ticks, writes and never speaks.
        robot_file, suite, size, tasks: of the simulated arm.
        quiet_s, faults_s: of the two runs; under faults the time in which the server starts again comes on top.
        episode_s: of an episode, at most.
        kills: of the server.
        stalls: of the network, 0.1 to 5 s each.
        bad: chance of a frame to be duplicated, and to be reordered; a tenth of it to be truncated.
        malformed: messages.
        clients: at once.
        client_steps: frames of each.
        controller_kills: of the controller, each in an episode of one of `memory_tasks` that has written.
        memory_tasks: tasks in which the gate writes.
        execute, blend: of the controller.
        seed: of every draw.
        folder: for state, logs and reports.
    """

    policy: str
    aura: str
    robot_file: str
    suite: str
    size: int
    tasks: tuple[str, ...]
    quiet_s: float
    faults_s: float
    episode_s: float
    kills: int
    stalls: int
    bad: float
    malformed: int
    clients: int
    client_steps: int
    controller_kills: int
    memory_tasks: tuple[str, ...]
    execute: int
    blend: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        quiet, faults: the robot's reports.
        revived: the report of the last controller that came after a killed one.
        controller_kills: each kill of a controller.
        cpu_percent: of one core, of the server in the quiet run.
        memory_mb: of the server, sampled through the quiet run.
        growth_mb: median of its last tenth less that of its third tenth.
        kills: of the server; survived: with the session restored.
        resume_s: from a server that listens again to the robot's session restored, each.
        network: what the proxy did.
        stalls_s: length of each.
        labels_lost: acknowledged to the robot and not in the server's file.
        malformed, answered, ended: messages sent, answered, and connections that ended instead.
        alive: whether the server answered after the abuse.
        leaks: what the look for leaks found.
        deaf_ended: whether the client that never reads was disconnected.
    """

    quiet: dict[str, Any]
    faults: dict[str, Any]
    revived: dict[str, Any]
    controller_kills: tuple[ControllerKill, ...]
    cpu_percent: float
    memory_mb: tuple[float, ...]
    growth_mb: float
    kills: int
    survived: int
    resume_s: tuple[float, ...]
    network: dict[str, int]
    stalls_s: tuple[float, ...]
    labels_lost: int
    malformed: int
    answered: int
    ended: int
    alive: bool
    leaks: dict[str, Any]
    deaf_ended: bool


def run(bench: DeployBench, say: Callable[[str], None]) -> Result:
    """Runs all of it. Raises BenchError when a process does not do its part."""
    folder = bench.folder / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    gate = bench.aura
    if gate == "untrained":
        from vlamem.deploy.bench.gate import untrained_gate

        gate = str(untrained_gate(bench.policy, folder / "gate.safetensors", bench.seed))
    sessions = bench.clients + 4
    options = ["--policy", bench.policy, "--aura", gate, "--sessions", str(sessions), "--idle-s", "60"]
    options += ["--threads", "1"] + (["--abstain-below", "1.0"] if bench.aura == "untrained" else [])

    say(f"quiet run: {bench.quiet_s:g} s")
    server = ServerProcess(options, folder / "quiet")
    try:
        server.start()
        quiet, memory, cpu = _quiet(bench, server, folder / "quiet-robot", say)
        server.stop()
    finally:
        server.kill()

    say(f"run under faults: {bench.faults_s:g} s, {bench.kills} kills, {bench.stalls} stalls")
    server = ServerProcess(options, folder / "faults")
    try:
        return _under_faults(bench, server, folder, (quiet, memory, cpu), say)
    finally:
        server.kill()


def _under_faults(
    bench: DeployBench,
    server: ServerProcess,
    folder: Path,
    before: tuple[dict[str, Any], list[float], float],
    say: Callable[[str], None],
) -> Result:
    """The second half: faults, killed controllers, then abuse, on one server."""
    quiet, memory, cpu = before
    server.start()
    faults, resume, network, stalls = _faults(bench, server, folder / "faults-robot", say)
    say(f"controller killed {bench.controller_kills} times")
    plan = replace(_plan(bench, f"ws://127.0.0.1:{server.port}", 0.0, folder / "controllers"), session="controllers")
    plan = replace(plan, tasks=list(bench.memory_tasks))
    ends, revived = kill_controllers(plan, folder / "faults" / "state", bench.controller_kills, bench.seed, say)
    kept = _labels(folder / "faults" / "state" / "labels.jsonl") | _labels(folder / "quiet" / "state" / "labels.jsonl")
    lost = sum(name not in kept for report in (quiet, faults, revived) for name in report["acknowledged"])

    say(f"abuse: {bench.malformed} malformed messages, {bench.clients} clients at once, one that never reads")
    uri = f"ws://127.0.0.1:{server.port}"
    spec = asyncio.run(_spec(uri))
    good = pack(frames(spec, 0, 1, bench.seed)[0] | {"vlamem": {"type": "observe", "episode": 1, "step": 0}})
    answered, ended = asyncio.run(send_malformed(uri, bench.malformed, good, bench.seed))
    leaks = asyncio.run(look_for_leaks(uri, spec, bench.clients, bench.client_steps, bench.seed))
    deaf = asyncio.run(never_read(uri, 60, good))
    alive = healthy(server.port)
    server.stop()
    tenth = max(1, len(memory) // 10)
    growth = float(np.median(memory[-tenth:]) - np.median(memory[2 * tenth : 3 * tenth] or memory[:1]))
    return Result(
        quiet, faults, revived, tuple(ends), cpu, tuple(memory), growth, bench.kills, len(resume), tuple(resume),
        network, tuple(stalls), lost, bench.malformed, answered, ended, alive, asdict(leaks), deaf,
    )  # fmt: skip


def _plan(bench: DeployBench, server: str, seconds: float, folder: Path) -> RobotRun:
    return RobotRun(
        server, bench.robot_file, bench.suite, bench.size, list(bench.tasks), seconds, bench.episode_s, bench.execute,
        bench.blend, str(folder), "bench", str(folder / "state"),
    )  # fmt: skip


def _quiet(
    bench: DeployBench, server: ServerProcess, folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[float], float]:
    robot = RobotProcess(_plan(bench, f"ws://127.0.0.1:{server.port}", bench.quiet_s, folder))
    try:
        robot.wait_until_running()
        began, cpu, memory = time.monotonic(), server.cpu_s(), []
        while robot.running:
            memory.append(server.memory_mb())
            time.sleep(_SAMPLE_S)
        percent = 100 * (server.cpu_s() - cpu) / (time.monotonic() - began)
        report = robot.report(10)
    finally:
        robot.kill()
    say(f"  jitter {report['jitter_ms']}, {report['deadline_misses']} misses, decisions {report['decision_ms']}")
    return report, memory, percent


def _faults(
    bench: DeployBench, server: ServerProcess, folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[float], dict[str, int], list[float]]:
    rng = stream(bench.seed, "faults")
    proxy = Proxy(f"ws://127.0.0.1:{server.port}", rng)
    robot = RobotProcess(replace(_plan(bench, f"ws://127.0.0.1:{proxy.start()}", bench.faults_s, folder), told=True))
    lengths = list(np.clip(rng.uniform(0.1, 5.0, bench.stalls), 0.1, bench.faults_s / (4 * max(1, bench.stalls))))
    closing = threading.Event()

    def stall() -> None:
        for length in lengths:
            if closing.wait(max(0.0, bench.faults_s / (bench.stalls + 1) - length)):
                return
            proxy.badness.stalled = True
            closing.wait(length)
            proxy.badness.stalled = False

    proxy.badness.duplicate = proxy.badness.reorder = bench.bad
    proxy.badness.truncate = bench.bad / 10
    thread = threading.Thread(target=stall, name="stalls")
    resumed: list[float] = []
    try:
        robot.wait_until_running()
        thread.start()
        for kill in range(bench.kills):
            time.sleep(bench.faults_s / (bench.kills + 1))
            if not robot.running:
                raise BenchError(f"the robot ended before kill {kill + 1}: {robot.said()[-2000:]}")
            before = len(robot.events("connected"))
            server.kill()
            listening = server.start()
            at = time.time() - (time.monotonic() - listening)
            until = time.monotonic() + 60
            while len(after := robot.events("connected")[before:]) == 0 and robot.running and time.monotonic() < until:
                time.sleep(0.02)
            back = [event for event in after if event["restored"]]
            if back:
                resumed.append(max(0.0, back[0]["t"] - at))
            say(f"  kill {kill + 1}: {f'restored after {resumed[-1]:.2f} s' if back else 'not restored'}")
        time.sleep(bench.faults_s / (bench.kills + 1))
        robot.end()
        report = robot.report(bench.faults_s + bench.episode_s + 120)
    finally:
        closing.set()
        if thread.ident is not None:
            thread.join()
        robot.kill()
        proxy.close()
    return report, resumed, dict(proxy.counts), lengths


def _labels(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {body["label"]["label"] for line in lines if "label" in (body := json.loads(line))}


async def _spec(uri: str) -> dict[str, Any]:
    from websockets.asyncio.client import connect

    from vlamem.deploy.wire import unpack

    async with connect(uri, compression=None, proxy=None) as ws:
        raw = await ws.recv()
        assert isinstance(raw, bytes)
        spec: dict[str, Any] = unpack(raw)["vlamem"]["spec"]
        return spec
