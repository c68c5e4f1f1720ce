"""deploy/bench/controller_kills.py: controllers in processes of their own, an arm and a server that go on."""

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deploy_cases import LONG_S, Hosted, store_in

from vlamem.deploy.bench.controller_kills import LIMIT_S, ControllerKill, Stored, kill_controllers, stored
from vlamem.deploy.bench.robot_process import RobotRun
from vlamem.deploy.robot.mujoco_robot import MujocoRobot
from vlamem.deploy.robot.protocol import RobotError
from vlamem.deploy.robot.robot_file import SHIPPED, load_robot_file
from vlamem.deploy.server.session_record import hash_token


def robot_file(folder: Path) -> Path:
    """The tabletop arm with the camera of the summing policy, without box and limit of force."""
    text = (SHIPPED / "tabletop.toml").read_text()
    text = re.sub(r"^(box_|gripper_force).*\n", "", text, flags=re.MULTILINE).replace(
        '["agentview", "wrist"]', '["front"]'
    )
    path = folder / "arm.toml"
    path.write_text(text)
    assert load_robot_file(path).box_part is None
    return path


def test_after_a_kill_the_next_controller_goes_on_with_episode_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    host = Hosted(tmp_path / "server")
    host.start()
    folder, writes, lines = tmp_path / "run", [], []

    def say(line: str) -> None:
        here = stored(tmp_path / "server", "arm")
        assert here is not None
        writes.append(float(here.arrays["sum"][1]))
        lines.append(line)

    plan = RobotRun(
        f"ws://127.0.0.1:{host.port}", str(robot_file(tmp_path)), "pulsing_arm:SUITE", 8, ["pulses"], 0.0, 1000.0, 4, 3,
        str(folder), "arm", "",
    )  # fmt: skip
    try:
        found, report = kill_controllers(plan, tmp_path / "server", 2, 0, say)
        memory = host.policy._memory.copy()
    finally:
        host.end()
    assert [(k.episode, k.kept) for k in found] == [(1, True)] * 2
    assert found[1].step > found[0].step > 3
    assert all(k.resume_s is not None for k in found)
    assert [len(list(folder.glob(f"{life}/report.json"))) for life in range(3)] == [0, 0, 1]
    assert (report["audit"]["out_of_limit"], report["audit"]["stale"]) == (0, 0)
    last = stored(tmp_path / "server", "arm")
    assert last is not None
    assert last.record.episode == 1
    np.testing.assert_array_equal(memory[memory[:, 1] > 0], [last.arrays["sum"]])
    assert 1 <= writes[0] <= writes[1] <= last.arrays["sum"][1]
    received = [json.loads(line)[1] for line in (folder / "arm.jsonl").read_text().splitlines()]
    assert set(received) == {1}
    assert "controller kill 2: episode 1" in lines[1]


_STARTER = """
import subprocess, sys
words = ["vlamem.deploy.robot.mujoco_arm", sys.argv[1], "pulsing_arm:SUITE", "8", "-"]
subprocess.Popen([sys.executable, "-m", *words])
sys.stdin.read()
"""


def watch(robot: MujocoRobot, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        robot.observe()
        time.sleep(0.02)


def test_an_arm_that_listens_at_a_path_outlives_its_controllers_and_ends_with_its_starter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with tempfile.TemporaryDirectory(prefix="vlamem-") as short:
        at = Path(short) / "arm"
        with pytest.raises(RobotError, match="no simulation listens at"):
            MujocoRobot("pulses", start_s=0.1, at=at).connect()
        with subprocess.Popen([sys.executable, "-c", _STARTER, str(at)], stdin=subprocess.PIPE) as starter:
            first = MujocoRobot("pulses", at=at)
            first.connect()
            assert first.find(0.2) is None  # no episode yet
            assert first.begin(3).episode == 3
            first.send(np.zeros(7))
            first.close()
            second = MujocoRobot("pulses", at=at)
            second.connect()
            left = second.find(LONG_S)
            assert left is not None
            assert (left.episode, left.instruction, left.ended) == (3, "touch it", False)
            assert starter.stdin is not None
            starter.stdin.close()
            starter.wait()
            with pytest.raises(RobotError, match="the simulation has ended"):
                watch(second, LONG_S)
            second.close()


def test_a_memory_that_was_emptied_or_begun_anew_does_not_go_on(tmp_path: Path) -> None:
    store = store_in(tmp_path / "sessions")
    assert stored(tmp_path, "arm") is None
    record = store.begin("arm", hash_token("secret"), 1)
    blank = stored(tmp_path, "arm")
    store.persist(record, 4, {"sum": np.float32([5, 1])})
    written = stored(tmp_path, "arm")
    store.persist(record, 9, {"sum": np.float32([6, 2])})
    later = stored(tmp_path, "arm")
    store.begin("arm", hash_token("secret"), 2)
    another = stored(tmp_path, "arm")
    store.close()
    assert blank is not None
    assert written is not None
    assert later is not None
    assert another is not None
    assert (blank.step, written.step, another.step) == (-1, 4, -1)
    assert blank.goes_on_in(written)
    assert written.goes_on_in(written)
    assert written.goes_on_in(later)
    assert not later.goes_on_in(written)
    assert not written.goes_on_in(another)
    assert not written.goes_on_in(replace(written, arrays=blank.arrays))
    again = Stored(replace(written.record, saved=written.record.saved + 1), 9, later.arrays)
    assert not written.goes_on_in(again)


@pytest.mark.parametrize(
    ("kept", "resume_s", "survived"),
    [(True, 0.5, True), (True, LIMIT_S + 0.1, False), (False, 0.5, False), (True, None, False)],
)
def test_a_kill_is_survived_with_the_memory_and_in_time(kept: bool, resume_s: float | None, survived: bool) -> None:
    assert ControllerKill(1, 9, kept, resume_s).survived == survived
