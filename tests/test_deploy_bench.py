"""deploy/bench: the audit finds what it is there to find, the abuse is abuse, and the page has what was measured."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, wait

from vlamem.core.seeding import stream
from vlamem.deploy.bench.abuse import Leaks, malformed
from vlamem.deploy.bench.audit import audit, received_elsewhere, seams
from vlamem.deploy.bench.controller_kills import ControllerKill
from vlamem.deploy.bench.faults import Faults
from vlamem.deploy.bench.options import DeployBench
from vlamem.deploy.bench.page import figures, text_of
from vlamem.deploy.bench.result import Quiet, Result
from vlamem.deploy.bench.server_kills import ServerKill, is_cold, overlap_s
from vlamem.deploy.robot.robot_file import load_robot_file
from vlamem.deploy.robot.rounds import Mode, Round
from vlamem.deploy.robot.timeline import Planned
from vlamem.deploy.wire import WireError, pack, unpack
from vlamem.scripts.main import main

ARM = load_robot_file("tabletop")
BEGAN = {1: 0.0, 2: 10.0}


def command(x: float = 0.1) -> np.ndarray:
    return np.array([x, 0, 0, 0, 0, 0, 1.0])


def sent(t: float, x: float = 0.1, episode: int = 1, **planned: int) -> Round:
    step = int((t - BEGAN[episode]) * 20)
    plan = {"episode": episode, "step": step, "index": 0} | planned
    return Round(t, episode, Mode.RUN, command(x), Planned(command(x), **plan), np.zeros(8), None, t)


def unplanned(t: float, x: float, mode: Mode = Mode.HOLD, episode: int = 1) -> Round:
    return Round(t, episode, mode, command(x), None, np.zeros(8), None, t)


def test_what_is_in_order_is_not_found() -> None:
    found = audit(
        [sent(0.1), unplanned(0.12, 0.1), unplanned(0.14, 0.05, Mode.STOP), sent(10.2, episode=2)], BEGAN, ARM
    )
    assert (found.commands, found.out_of_limit, found.stale) == (4, 0, 0)


@pytest.mark.parametrize(
    ("rounds", "out", "stale"),
    [
        ([sent(0.1, 1.2)], 1, 0),
        ([sent(0.1, np.nan)], 1, 0),
        ([sent(0.1, 0.9), sent(0.12, -0.9), sent(0.14, 1.0)], 0, 0),
        ([sent(0.1), replace(sent(0.12), proprioception=np.array([0.349, 0, 0, 0, 0, 0, 0, 0.0]))], 1, 0),
        ([sent(10.1, episode=2, step=0, **{"index": 2}), sent(10.2, episode=2)], 0, 0),
        ([replace(sent(10.1, episode=2), planned=Planned(command(), 1, 3, 0))], 0, 1),
        ([sent(2.0, step=1, index=3)], 0, 1),
        ([replace(sent(t / 50), stamp=0.0) for t in range(60)], 0, 19),
        ([replace(sent(0.1), gripper_force=61.0)], 1, 0),
        ([sent(0.1), unplanned(0.12, 0.2)], 0, 1),
        ([sent(0.1), unplanned(10.1, 0.1, episode=2)], 0, 1),
    ],
)
def test_what_is_not_in_order_is_found(rounds: list[Round], out: int, stale: int) -> None:
    found = audit(rounds, BEGAN, ARM)
    assert (found.out_of_limit, found.stale) == (out, stale), found.examples
    assert bool(found.examples) == bool(out + stale)


def test_a_command_that_arrived_in_another_episode_is_found(tmp_path: Path) -> None:
    rounds = [sent(0.1, 0.1), sent(0.12, 0.2), sent(10.2, 0.3, episode=2)]
    log = tmp_path / "arm.jsonl"
    log.write_text(
        "".join(json.dumps([r.t, r.episode, list(r.command)]) + "\n" for r in rounds if r.command is not None)
    )
    assert received_elsewhere(log, rounds) == 0
    with log.open("a") as file:
        file.write(json.dumps([10.3, 2, list(command(0.1))]) + "\n")
    assert received_elsewhere(log, rounds) == 1


def test_a_jump_at_seams_shows_in_the_ratio() -> None:
    def run(jump: float) -> list[Round]:
        found = []
        for step in range(60):
            chunk = step // 6 * 6
            x = 0.01 * (step % 2) + jump * ((step // 6) % 2)
            found.append(sent(step / 20 + 0.01, x, step=chunk, index=step - chunk))
        return found

    smooth, rough = seams(run(0.0), ARM), seams(run(0.3), ARM)
    assert smooth is not None
    assert rough is not None
    assert smooth.ratio == pytest.approx(1, abs=0.1)
    assert rough.ratio > 10
    assert seams([sent(0.1)], ARM) is None


def test_malformed_messages_are_mostly_none_and_never_the_good_one() -> None:
    rng, good = stream(0, "test"), pack({"vlamem": {"type": "observe"}, "x": np.zeros(50)})
    unread = 0
    for _ in range(200):
        data = malformed(rng, good)
        assert data != good
        try:
            unpack(data)
        except WireError:
            unread += 1
    assert unread > 80


def test_a_stall_counts_as_far_as_it_lies_in_the_time_that_a_server_took() -> None:
    stalls = [(0.0, 1.0), (2.0, 3.5), (6.0, 7.0), (9.0, 10.0)]
    assert overlap_s((3.0, 6.5), stalls) == pytest.approx(1.0)
    assert overlap_s((4.0, 5.0), stalls) == 0


def test_of_twenty_kills_five_are_cold_and_of_two_one() -> None:
    assert [n for n in range(1, 21) if is_cold(n)] == [2, 6, 10, 14, 18]


def report(**changed: Any) -> dict[str, Any]:
    return {
        "rounds": 100, "episodes": 2, "successes": 1, "jitter_ms": {"p50": 0.1, "p99": 0.5, "max": 1.0},
        "deadline_misses": 3, "decision_ms": {"p50": 20.0, "p99": 40.0, "max": 50.0}, "decisions": 20,
        "modes": {"run": 90, "wait": 10}, "clips": {"speed": 4}, "events": {"episode": 2},
        "audit": {"commands": 90, "out_of_limit": 1, "stale": 2, "examples": []}, "received_elsewhere": 1,
        "seams": {"jumps": 0.1, "steps": 0.1, "ratio": 1.0, "acceleration_ratio": 1.0, "jerk_ratio": 1.0, "n": 9},
        "labels": ["a", "b"], "acknowledged": ["a", "b"], "scheduling": {"realtime": True, "reason": "SCHED_FIFO 20"},
    } | changed  # fmt: skip


def test_the_page_has_every_figure_and_says_what_was_run() -> None:
    ends = (ServerKill(False, 0.2, 0.3, True),) * 14 + (ServerKill(False, 0.2, 3.5, True, 3.2),)
    ends += (ServerKill(False, 1.9, 0.2, None), ServerKill(True, 3.0, 0.4, True), ServerKill(True, 3.4, 1.5, True, 1.0))
    ends += (ServerKill(True, 3.0, None, None), ServerKill(False, 0.2, 0.1, False))
    stressed = Faults(
        report(), ends, {"duplicated": 7}, (1.0,), 10_000, 9_000, 1_000, Leaks(48, 2, 0, 1e-6), deaf_ended=True
    )
    kills = (ControllerKill(1, 9, True, 0.5), ControllerKill(1, 30, True, 2.5), ControllerKill(2, -1, False, None))
    revived = report(received_elsewhere=None)
    result = Result(Quiet(report(), 30.0, (500.0, 501.0)), stressed, revived, kills, 0, True)
    bench = DeployBench(
        "tiny",
        ("untrained",),
        "tabletop",
        "s:S",
        84,
        ("touch",),
        600,
        600,
        15,
        20,
        20,
        0.02,
        10_000,
        50,
        20,
        3,
        ("patrol",),
        4,
        3,
        0,
        Path(),
    )
    found = figures(result)
    for name in (
        "jitter_p99_ms", "deadline_misses", "out_of_limit_commands", "stale_commands", "labels_lost", "session_leaks",
        "malformed_survived", "kills_survived", "memory_growth_mb", "seam_jump_ratio",
        "controller_resume_p50_s",
    ):  # fmt: skip
        assert name in found
    assert found["stale_commands"] == (8, 270)
    assert found["out_of_limit_commands"] == (3, 270)
    assert found["controller_kills_survived"] == (1, 3)
    assert found["controller_memories_kept"] == (2, 3)
    assert found["controller_resume_max_s"] == (2.5, 2)
    assert found["kills_survived"] == (18, 20)
    assert found["server_memories_kept"] == (17, 18)
    assert found["server_back_p50_s"] == (0.5, 16)
    assert found["server_back_max_s"] == (pytest.approx(2.1), 16)
    assert found["server_back_in_time"] == (16, 17)
    assert found["server_back_stalled_max_s"] == (pytest.approx(3.7), 1)
    assert found["server_back_cold_max_s"] == (3.4, 1)
    assert found["server_back_cold_stalled_max_s"] == (pytest.approx(4.9), 1)
    assert found["server_loading_p50_s"] == (3.0, 3)
    text = text_of(bench, result)
    assert "killed 20 times (kill -9), 3 times with the process that starts it again" in " ".join(text.split())
    assert "killed 3 times (kill -9) in the middle of an episode (tasks patrol)" in " ".join(text.split())
    assert "7 were duplicated" in text
    assert figures(replace(result, alive=False))["malformed_survived"] == (0, 10_000)


@pytest.mark.parametrize("option", ["--tasks", "--memory-tasks"])
def test_a_task_that_the_suite_lacks_is_named_before_anything_is_started(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "deploy", "--preset", "ci", "--folder", str(tmp_path / "run"), option, "patrl"]) == 2
    assert "has no task 'patrl': choose from touch, " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def running(folder: Path) -> list[str]:
    """Command lines of processes that were started with something in `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [words] * (str(folder) in words)
    return found


def test_a_bench_that_is_told_to_end_leaves_no_server_and_no_robot(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vlamem", "bench", "deploy", "--preset", "ci", "--folder", str(tmp_path)]
    bench = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: any("robot_process" in words for words in running(tmp_path)), 300)
        assert any("vlamem serve" in words for words in running(tmp_path))
        bench.terminate()
        assert bench.wait(LONG_S) == 128 + signal.SIGTERM
        wait(lambda: not running(tmp_path), 60)
    finally:
        bench.kill()
        bench.wait()
