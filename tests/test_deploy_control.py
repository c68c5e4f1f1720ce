"""scripts/control.py: a run of episodes against a server in this process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import deploy_cases
import pytest
from deploy_cases import Hosted, frame

from vlamem.core.checksums import unsealed
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.link import Link, LinkOptions
from vlamem.deploy.robot.panel import Panel
from vlamem.deploy.robot.robot_file import SHIPPED
from vlamem.deploy.server.session_record import read_record, write_record
from vlamem.scripts.control import main
from vlamem.scripts.main import main as vlamem


def words(hosted: Hosted, folder: Path, *more: str) -> list[str]:
    """Arguments of a control process whose robot and session are those of `folder`."""
    text = (SHIPPED / "tabletop.toml").read_text()
    text = re.sub(r"^box_.*\n", "", text, flags=re.MULTILINE).replace('["agentview", "wrist"]', '["front"]')
    (folder / "arm.toml").write_text(text)
    given = {
        "robot": "counting_arm:make", "robot-file": folder / "arm.toml", "server": f"ws://127.0.0.1:{hosted.port}",
        "session": "arm", "state": folder / "state", "instruction": "touch it", "seconds": 0.3,
        "realtime-priority": 0, "log": folder / "events.jsonl", "watchdog": "thread",
    }  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", str(value))] + list(more)


def noted(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for line in lines if (event := json.loads(line))["event"] == kind]


def test_a_run_begins_where_the_one_before_has_ended_and_not_in_its_last_episode(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    assert main(words(hosted, tmp_path, "--episodes", "2")) == 0
    record = read_record(tmp_path / "server" / "sessions" / "arm")
    assert (record.episode, record.ended) == (2, True)
    hosted.end()
    hosted.start()
    assert main(words(hosted, tmp_path)) == 0
    assert [(e["episode"], e["step"]) for e in noted(tmp_path, "episode")] == [(1, -1), (2, -1), (3, -1)]
    record = read_record(tmp_path / "server" / "sessions" / "arm")
    assert (record.episode, record.ended) == (3, True)


def test_a_run_goes_on_with_the_episode_that_a_crash_cut_short(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    link = Link(LinkOptions(f"ws://127.0.0.1:{hosted.port}", "arm", tmp_path / "state"), EventLog())
    link.start()
    link.begin(1)
    link.send(frame(0, write=True))
    while link.waiting:
        pass
    link.close()
    assert main(words(hosted, tmp_path, "--episodes", "2")) == 0
    assert [(e["episode"], e["step"]) for e in noted(tmp_path, "episode")] == [(1, 0), (2, -1)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_episode_with_the_arm_at_rest(number: int, hosted: Hosted, tmp_path: Path) -> None:
    given = words(hosted, tmp_path, "--episodes", "3", "--seconds", "1000", "--watchdog", "process")
    env = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent), "ARM_LOG": str(tmp_path / "arm.jsonl"),
        "ARM_SIGNAL": str(int(number)),
    }  # fmt: skip
    # as in a terminal: under nohup it would be told to go on when its terminal is closed
    program = (
        "import sys, signal; from vlamem.scripts.main import main; signal.signal(signal.SIGHUP, signal.SIG_DFL);"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program, "control", *given], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *commands, last = [json.loads(line) for line in (tmp_path / "arm.jsonl").read_text().splitlines()]
    assert (first, last) == ("connected", "closed")
    assert len(commands) > 10
    assert commands[-1][:6] == [0] * 6
    record = read_record(tmp_path / "server" / "sessions" / "arm")
    assert (record.episode, record.ended) == (1, True)


def test_a_run_whose_link_has_ended_ends_with_the_arm_at_rest_and_says_why(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "arm.jsonl"
    monkeypatch.setenv("ARM_LOG", str(log))

    def come_back_as_another() -> None:
        while not log.exists() or len(log.read_text().splitlines()) < 10:
            time.sleep(0.01)
        hosted.end()
        monkeypatch.setattr(deploy_cases, "SPEC", replace(deploy_cases.SPEC, horizon=5))
        hosted.start()

    thread = threading.Thread(target=come_back_as_another)
    thread.start()
    assert main(words(hosted, tmp_path, "--seconds", "1000")) == 1
    thread.join()
    assert "the server has another policy now: stop, and start the robot again" in capsys.readouterr().err
    *_, command, last = [json.loads(line) for line in log.read_text().splitlines()]
    assert (command[:6], last) == ([0] * 6, "closed")


def test_a_session_that_another_memory_wrote_ends_the_run_and_is_there_for_the_next(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    assert main(words(hosted, tmp_path)) == 0
    kept = json.loads((tmp_path / "state" / "link.json").read_text())
    hosted.end()
    path = tmp_path / "server" / "sessions" / "arm" / "session.json"
    record = read_record(path.parent)
    write_record(path.parent, replace(record, owner=replace(record.owner, memory="sum2")))
    hosted.start()
    assert main(words(hosted, tmp_path)) == 1
    printed = capsys.readouterr().err
    assert "memory 'sum2', this server has 'sum1'" in printed
    assert "or begin a new session: another --state of the robot does so" in printed
    again = json.loads((tmp_path / "state" / "link.json").read_text())
    assert unsealed(again) == unsealed(kept) | {"epoch": kept["epoch"] + 1}


def test_a_dry_run_is_a_session_of_its_own_and_executes_nothing(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    executed: list[Any] = []
    monkeypatch.setattr(
        Link, "send", lambda self, frame, send=Link.send: (executed.append(frame.executed), send(self, frame))
    )
    assert main(words(hosted, tmp_path, "--dry-run")) == 0
    assert re.search(r"^[+-]0\.\d{3} ", capsys.readouterr().out, flags=re.MULTILINE)
    assert set(executed) == {None}
    assert not (tmp_path / "state").exists()
    assert [p.name for p in (tmp_path / "server" / "sessions").iterdir() if p.is_dir()] != ["arm"]
    assert (tmp_path / "arm.jsonl").read_text().split() == ['"connected"', '"closed"']


def test_a_label_before_the_first_episode_of_a_run_is_refused(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    assert main(words(hosted, tmp_path)) == 0
    refused: list[str] = []

    def listen(panel: Panel) -> None:
        panel._report = refused.append
        panel.press("s")

    monkeypatch.setattr(Panel, "listen", listen)
    assert main(words(hosted, tmp_path)) == 0
    assert len(refused) == 1
    assert "no episode has begun" in refused[0]
    assert not noted(tmp_path, "label")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--seconds", "-1"], "--seconds -1: expected a number above 0"),
        (["--seconds", "nan"], "--seconds nan: expected a number above 0"),
        (["--panel-port", "70000"], "--panel-port 70000: expected at most 65535"),
        (["--realtime-priority", "200"], "--realtime-priority 200: expected at most 99"),
        (["--label-by-task"], "--label-by-task is the verdict of a simulated task"),
        (["--execute", "0"], "--execute 0: expected 1 or more"),
        (["--episodes", "0"], "--episodes 0: expected 1 or more"),
        (["--server", "http://127.0.0.1:1"], "server 'http://127.0.0.1:1': expected ws://HOST:PORT"),
        (["--server", "127.0.0.1:8000"], "server '127.0.0.1:8000': expected ws://HOST:PORT"),
        (["--robot", "mujoco:touch", "--dry-run", "--label-by-task"], "leave one out"),
        (["--api-key-file", os.devnull], f"{os.devnull} holds no key"),
    ],
)
def test_what_makes_no_sense_is_named_before_a_server_is_looked_for(
    more: list[str], complaint: str, hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    monkeypatch.setattr(Link, "start", lambda *_: pytest.fail("the server was looked for"))
    with pytest.raises(ValueError, match=re.escape(complaint)):
        main([*words(hosted, tmp_path), *more])


def test_settings_that_are_no_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "arm.json").write_text("{")
    with pytest.raises(ValueError, match=r"arm\.json is no JSON .*settings of the arm"):
        main(["--robot", "lerobot:so101_follower", "--robot-config", str(tmp_path / "arm.json"), "--instruction", "x"])


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--sessions", "0"], "--sessions 0: expected 1 or more"),
        (["--port", "70000"], "--port 70000: expected at most 65535"),
        (["--tls-cert", "no.pem", "--tls-key", "no.pem"], "--tls-cert no.pem: there is no such file"),
        (["--port", "TAKEN"], "is in use by another program: give another --port"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
        (["--wait-ms", "nan"], "--wait-ms nan: expected 0 or more"),
        (["--host", "0.0.0.0"], "host 0.0.0.0 is reachable from elsewhere"),
    ],
)
def test_a_server_says_what_it_cannot_do_before_it_loads_anything(
    more: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vlamem.deploy.server.assembly.build_server", lambda *_: pytest.fail("it was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert vlamem(["serve", *(port if word == "TAKEN" else word for word in more)]) == 2
    assert complaint in capsys.readouterr().err
