"""deploy/robot/guard_process.py: the arm comes to rest when its controller's process does not see to it.

What is asserted is the order of what the arm was sent and the guard's rule (test_deploy_guard), never a duration: how
long it takes is measured by `vlamem bench faults`.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, wait

from vlamem.deploy.robot.guarded_robot import GuardedRobot, OperatorActions
from vlamem.deploy.robot.protocol import RobotError


class Rig:
    """A controller's process, the guard's, and what the arm was sent."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "arm.jsonl"
        env = os.environ | {
            "ARM_LOG": str(self.log),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "guarded_controller.py")], env=env, stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        self.url, self.token, self.guard = f"http://127.0.0.1:{words[0]}", words[1], int(words[2])
        wait(self.moves)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith(("]", '"'))]

    def last(self) -> Any:
        """The newest whole line; the whole file, read again and again, would take the processor from the controller."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 1000))
            lines = [line for line in file.read().split(b"\n")[:-1] if line.endswith((b"]", b'"'))]
        return json.loads(lines[-1]) if lines else None

    def moves(self) -> bool:
        return self.log.exists() and (last := self.last()) is not None and last[1] > 0.2

    def rests(self) -> bool:
        return bool(np.allclose(self.last()[1:7], 0))

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + path, json.dumps(body or {}).encode(), headers)
        with urllib.request.urlopen(request, timeout=LONG_S) as answer:
            return dict(json.loads(answer.read()))

    def end(self) -> None:
        for number in (signal.SIGCONT, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for the tests after which it still runs."""
    made = Rig(tmp_path_factory.mktemp("rig"))
    yield made
    made.end()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.end()


def test_the_arm_of_a_stopped_controller_comes_to_rest_and_the_operators_stop_counts(rig: Rig) -> None:
    rig.process.send_signal(signal.SIGSTOP)
    wait(rig.rests)
    assert rig.post("/stop") == {"said": "stop"}
    with pytest.raises(urllib.error.HTTPError):  # go needs the controller
        rig.post("/go")
    sent = len(rig.lines())
    rig.process.send_signal(signal.SIGCONT)
    wait(lambda: json.loads(urllib.request.urlopen(rig.url, timeout=LONG_S).read())["mode"] == "halt")
    wait(lambda: len(rig.lines()) > sent + 10)
    assert np.allclose([line[1:7] for line in rig.lines()[sent:]], 0)
    assert rig.post("/go") == {"said": "go"}
    wait(rig.moves)


def test_the_arm_of_a_controller_that_holds_the_interpreter_comes_to_rest_and_goes_on(rig: Rig) -> None:
    rig.process.send_signal(signal.SIGUSR1)
    wait(rig.rests)
    wait(rig.moves)
    assert rig.process.poll() is None


def test_the_arm_comes_to_rest_when_its_camera_hangs_in_the_guard_itself(rig: Rig) -> None:
    hang = rig.log.with_name(rig.log.name + ".hang")
    hang.touch()
    assert rig.post("/stop") == {"said": "stop"}
    wait(rig.rests)
    assert rig.post("/go") == {"said": "go"}
    hang.unlink()
    wait(rig.moves)


def test_go_at_once_after_stop_counts(rig: Rig) -> None:
    for _ in range(20):
        assert rig.post("/stop") == {"said": "stop"}
        assert rig.post("/go") == {"said": "go"}
    wait(rig.moves)


def test_the_arm_of_a_killed_controller_comes_to_rest_and_is_closed(mortal: Rig) -> None:
    mortal.process.kill()
    wait(lambda: mortal.last() == "closed")
    assert np.allclose(mortal.lines()[-2][1:7], 0)


def test_a_controller_whose_guard_was_killed_ends(mortal: Rig) -> None:
    os.kill(mortal.guard, signal.SIGKILL)
    assert mortal.process.wait(LONG_S) == 1


def test_labels_and_status_reach_the_controller(rig: Rig) -> None:
    assert rig.post("/label", {"outcome": "success"}) == {"label": "label-1"}


def test_an_arm_that_does_not_connect_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    monkeypatch.setenv("ARM_BROKEN", "1")
    with pytest.raises(RobotError, match="no such port"):
        GuardedRobot("hanging_arm:make", "tabletop").connect()


def test_what_was_observed_before_a_pause_is_not_taken_for_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "arm.jsonl"
    monkeypatch.setenv("ARM_LOG", str(log))
    robot = GuardedRobot("hanging_arm:make", "tabletop")
    robot.connect()
    try:
        first = robot.observe()
        wait(lambda: robot._take())  # another one came
        second = robot._newest
        assert second is not None
        log.with_name(log.name + ".hang").touch()
        robot._round_began = -1.0  # long ago
        assert robot.observe().stamp <= second.stamp
        assert first.stamp < second.stamp
    finally:
        log.with_name(log.name + ".hang").unlink()
        robot.close()


def test_what_the_operator_asked_for_is_done_once_and_in_the_order_of_the_keys() -> None:
    did: list[str] = []
    robot = GuardedRobot("hanging_arm:make", "tabletop")
    robot._actions = OperatorActions(
        lambda: did.append("stop"), lambda: did.append("go"), lambda outcome: outcome, dict, lambda: did.append("quit")
    )
    assert robot._do("stop", 1) == {"value": None}
    assert robot._do("go", 1) == {"value": None}
    robot._stop(robot._actions, 1)  # the count of an observation that hung
    assert did == ["stop", "go"]
    assert robot._do("go", 2) == {"value": None}  # its stop is on its way
    assert robot._do("stop", 2) == {"value": None}
    assert did == ["stop", "go", "go"]
    robot._stop(robot._actions, 3)
    assert did[3:] == ["stop"]
    late = time.monotonic() - 1  # the guard has told the operator that it failed
    assert robot._do("go", 3, late) == robot._do("label", "success", late) == {"error": "it came too late"}
    assert did[4:] == []
