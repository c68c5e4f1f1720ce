"""The deploy bench: a quiet run, one under faults and abuse, killed controllers; figures are of what was measured."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlamem.core.bench import Page, Progress
from vlamem.core.registry import Registry
from vlamem.deploy.bench.abuse import healthy
from vlamem.deploy.bench.controller_kills import kill_controllers
from vlamem.deploy.bench.faults import drive_under_faults
from vlamem.deploy.bench.options import DeployBench, DeployOptions
from vlamem.deploy.bench.page import page_of
from vlamem.deploy.bench.processes import RobotProcess, ServerProcess
from vlamem.deploy.bench.result import Quiet, Result
from vlamem.deploy.bench.robot_process import RobotRun

_SAMPLE_S = 0.5


def run(options: DeployOptions, command: str, progress: Progress) -> Page:
    """Measures everything, and gives the page.

    Raises ValueError for a task that the suite lacks, ProcessError when a process does not do its part.
    """
    bench = options.sized()
    known = Registry[Any]("suite", {}).get(bench.suite).tasks
    for task in (*bench.tasks, *bench.memory_tasks):  # now, not when their turn comes after twenty minutes
        if task not in known:
            raise ValueError(f"suite {bench.suite} has no task '{task}': choose from {', '.join(known)}")
    return page_of(options, bench, measure(bench, progress.say))


def measure(bench: DeployBench, say: Callable[[str], None]) -> Result:
    """The quiet run, the one under faults, and killed controllers.

    Raises ProcessError when a process does not do its part.
    """
    folder = bench.folder / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    memory = bench.memory
    if memory == ("untrained",):
        from vlamem.deploy.bench.gate import untrained_gate

        drawn = untrained_gate(bench.policy, folder / "gate.safetensors", bench.seed)
        memory = (f"aura:{drawn}?abstain_below=1",)
    sessions = bench.clients + 4
    options = ["--policy", bench.policy, "--memory", *memory, "--sessions", str(sessions), "--idle-s", "60"]
    options += ["--threads", "1"]

    say(f"quiet run: {bench.quiet_s:g} s")
    server = ServerProcess(options, folder / "quiet")
    try:
        server.start()
        quiet = _quiet(bench, server, folder / "quiet-robot", say)
        server.stop()
    finally:
        server.kill()

    server = ServerProcess(options, folder / "faults")
    try:
        return _under_faults(bench, server, folder, quiet, say)
    finally:
        server.kill()


def _under_faults(
    bench: DeployBench,
    server: ServerProcess,
    folder: Path,
    before: Quiet,
    say: Callable[[str], None],
) -> Result:
    """The second half: faults and abuse while a robot works, then killed controllers, on one server."""
    server.start()
    state = folder / "faults" / "state"
    plan = replace(_plan(bench, "", bench.faults_s, folder / "faults-robot"), until_end_file=True)
    plan = replace(plan, tasks=[*bench.memory_tasks, *bench.tasks])
    stressed = drive_under_faults(bench, plan, server, state, say)
    say(f"controller killed {bench.controller_kills} times")
    plan = replace(_plan(bench, f"ws://127.0.0.1:{server.port}", 0.0, folder / "controllers"), session="controllers")
    plan = replace(plan, tasks=list(bench.memory_tasks))
    ends, revived = kill_controllers(plan, state, bench.controller_kills, bench.seed, say)
    kept = _labels(state / "labels.jsonl") | _labels(folder / "quiet" / "state" / "labels.jsonl")
    reports = (before.report, stressed.report, revived)
    lost = sum(name not in kept for report in reports for name in report["acknowledged"])
    alive = healthy(server.port)
    server.stop()
    return Result(before, stressed, revived, tuple(ends), lost, alive)


def _plan(bench: DeployBench, server: str, seconds: float, folder: Path) -> RobotRun:
    return RobotRun(
        server, bench.robot_file, bench.suite, bench.size, list(bench.tasks), seconds, bench.episode_s, bench.execute,
        bench.blend, str(folder), "bench", str(folder / "state"),
    )  # fmt: skip


def _quiet(bench: DeployBench, server: ServerProcess, folder: Path, say: Callable[[str], None]) -> Quiet:
    robot = RobotProcess(_plan(bench, f"ws://127.0.0.1:{server.port}", bench.quiet_s, folder))
    memory: list[float] = []
    try:
        robot.wait_until_running()
        began, cpu = time.monotonic(), server.cpu_s()
        while robot.running:
            memory.append(server.memory_mb())
            time.sleep(_SAMPLE_S)
        percent = 100 * (server.cpu_s() - cpu) / (time.monotonic() - began)
        report = robot.report(10)
    finally:
        robot.kill()
    say(f"  jitter {report['jitter_ms']}, {report['deadline_misses']} misses, decisions {report['decision_ms']}")
    return Quiet(report, percent, tuple(memory))


def _labels(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {body["label"]["label"] for line in lines if "label" in (body := json.loads(line))}
