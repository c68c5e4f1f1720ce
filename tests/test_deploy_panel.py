"""deploy/robot/panel.py and TLS: an operator's commands arrive, a web page's do not."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import tty
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deploy_cases import FOUR, LONG_S, Hosted, frame, serving

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.link import Link, LinkOptions
from vlamem.deploy.robot.panel import Panel
from vlamem.deploy.robot.robot_file import SHIPPED
from vlamem.deploy.server.options import ServeOptions


class Presses(list[str]):
    def label(self, outcome: str) -> str:
        self.append(outcome)
        return "id"


@pytest.fixture
def panel() -> Iterator[tuple[Panel, Presses, int]]:
    presses = Presses()
    made = Panel(
        lambda: presses.append("stop"), lambda: presses.append("go"), presses.label, lambda: {"mode": "run"},
        lambda: presses.append("quit"),
    )  # fmt: skip
    yield made, presses, made.serve(0)
    made.close()


def post(
    port: int, path: str, body: object = None, kind: str = "application/json", token: str = "", **headers: str
) -> tuple[int, dict[str, str]]:
    headers |= {"Content-Type": kind, "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_operator_stops_goes_and_labels_by_http(panel: tuple[Panel, Presses, int]) -> None:
    made, presses, port = panel
    assert post(port, "/stop") == (200, {"said": "stop"})
    assert post(port, "/go", token=made.token) == (200, {"said": "go"})
    assert post(port, "/label", {"outcome": "success"}, token=made.token) == (200, {"label": "id"})
    assert presses == ["stop", "go", "success"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        assert json.load(answer) == {"mode": "run"}


def test_a_person_takes_the_arm_over_and_gives_it_back_by_key_and_by_http(panel: tuple[Panel, Presses, int]) -> None:
    plain, presses, port = panel
    plain.press("t")  # without a teleoperator the keys do nothing
    assert post(port, "/take", token=plain.token) == (404, {"error": "known: POST /stop, /go, /label"})
    assert presses == []
    made = Panel(
        lambda: presses.append("stop"), lambda: presses.append("go"), presses.label, dict, lambda: None,
        take=lambda taken: presses.append(f"take {taken}"),
    )  # fmt: skip
    port = made.serve(0)
    try:
        made.press("t")
        made.press("b")
        assert post(port, "/take")[0] == 401
        assert post(port, "/take", token=made.token) == (200, {"said": "take"})
        assert post(port, "/give-back", token=made.token) == (200, {"said": "give-back"})
    finally:
        made.close()
    assert presses == ["take True", "take False"] * 2


def test_a_form_of_a_web_page_can_stop_but_neither_move_nor_label(panel: tuple[Panel, Presses, int]) -> None:
    made, presses, port = panel
    for path in ("/go", "/label", "/stop"):
        post(port, path, {"outcome": "success"}, "text/plain", made.token)
    assert presses == ["stop"]


def test_who_has_no_token_or_comes_under_another_name_can_stop_the_arm_alone(panel: tuple[Panel, Presses, int]) -> None:
    made, presses, port = panel
    for path in ("/go", "/label"):
        for token in ("", "guess", made.token + "x", "\u00fc"):
            assert post(port, path, {"outcome": "success"}, token=token)[0] == 401
        assert post(port, path, {"outcome": "success"}, token=made.token, Host=f"evil.example:{port}")[0] == 403
    assert post(port, "/go", token=made.token, Host=f"localhost:{port}")[0] == 200
    assert post(port, "/stop", Host="evil.example")[0] == 200
    assert presses == ["go", "stop"]
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": "evil.example"}))
    refused.value.close()


def test_a_stop_waits_for_no_body_and_clients_that_say_nothing_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlamem.deploy.robot.panel_http._TIMEOUT_S", 0.2)
    presses = Presses()
    panel = Panel(lambda: presses.append("stop"), lambda: None, presses.label, dict, lambda: None)
    port = panel.serve(0)
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        slow.sendall(b"POST /stop HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000\r\n\r\n")
        assert slow.recv(12) == b"HTTP/1.0 200"
        assert presses == ["stop"]
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        until = time.monotonic() + LONG_S
        while presses == ["stop"]:
            assert time.monotonic() < until
            with contextlib.suppress(OSError):
                assert post(port, "/stop")[0] == 200
    panel.close()


@pytest.mark.parametrize("body", [None, {}, {"outcome": "maybe"}, [1]])
def test_a_label_that_means_nothing_is_refused(panel: tuple[Panel, Presses, int], body: object) -> None:
    made, presses, port = panel
    assert post(port, "/label", body, token=made.token)[0] == 400
    assert post(port, "/elsewhere", body, token=made.token)[0] == 404
    assert presses == []


def test_keys_do_the_same(panel: tuple[Panel, Presses, int]) -> None:
    made, presses, _ = panel
    for key in " gsfqx":
        made.press(key)
    assert presses == ["stop", "go", "success", "failure", "quit"]


ARM = """
import time
import numpy as np
from vlamem.deploy import RobotObservation

class Arm:
    def connect(self):
        self.log = open({log!r}, "w", buffering=1)
    def observe(self):
        images = {{"front": np.zeros((8, 8, 3), np.uint8)}}
        return RobotObservation(images, np.zeros(8, np.float32), time.monotonic(), 0.0)
    def send(self, command):
        print(*command, file=self.log)
    def close(self):
        print("closed", file=self.log)
"""


def test_sigterm_leaves_the_arm_at_rest_and_closed(tmp_path: Path) -> None:
    log = tmp_path / "commands"
    (tmp_path / "logging_arm.py").write_text(ARM.format(log=str(log)))
    text = (SHIPPED / "tabletop.toml").read_text().replace('["agentview", "wrist"]', '["front"]')
    (tmp_path / "arm.toml").write_text(text)
    host = Hosted(None)
    host.start()
    words = [
        "control",
        "--robot",
        "logging_arm:Arm",
        "--robot-file",
        tmp_path / "arm.toml",
        "--instruction",
        "touch it",
    ]
    words += ["--server", f"ws://127.0.0.1:{host.port}", "--seconds", "600", "--episodes", "2"]
    there = os.environ | {"PYTHONPATH": str(tmp_path)}
    try:
        with subprocess.Popen([sys.executable, "-m", "vlamem", *words], env=there, stdin=subprocess.DEVNULL) as process:
            try:
                while not log.exists() or "0.1" not in log.read_text():  # it moves
                    assert process.poll() is None
                    time.sleep(0.02)
                process.terminate()
                assert process.wait(LONG_S) == 0
            finally:
                process.kill()
    finally:
        host.end()
    *_, last, closed = log.read_text().splitlines()
    assert closed == "closed"
    np.testing.assert_array_equal([float(x) for x in last.split()[:6]], 0)


class Terminal:
    """A pseudo-terminal whose keys a panel reads."""

    def __init__(self, presses: Presses) -> None:
        self.presses, self.reported = presses, list[str]()
        self.ours, self.theirs = os.openpty()
        self.acted = threading.Semaphore(0)
        self.full = threading.Event()
        self.panel = Panel(
            lambda: self._say("stop"), lambda: self._say("go"), self._label, dict, lambda: self._say("quit"),
            self.reported.append,
        )  # fmt: skip

    def _say(self, word: str) -> None:
        self.presses.append(word)
        self.acted.release()

    def _label(self, outcome: str) -> str:
        if outcome == "failure":
            self.full.wait(LONG_S)
            self.acted.release()
            raise OSError("no space left on device")
        self._say(outcome)
        return "id"

    def type(self, keys: bytes, acts: int) -> None:
        """Types before the panel begins to read, so that all come in one read, and waits until it has acted."""
        os.write(self.ours, keys)
        if not self.panel._threads:
            self.panel.read(self.theirs)
        for _ in range(acts):
            assert self.acted.acquire(timeout=20)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(Presses())
    tty.setcbreak(made.theirs)
    yield made
    made.full.set()
    made.panel.close()
    os.close(made.ours)
    os.close(made.theirs)


@pytest.mark.parametrize(
    ("keys", "presses"),
    [
        (b"g ", ["stop"]),
        (b" g", ["stop", "go"]),
        (b"xx ", ["stop"]),
        (b"gq ", ["stop", "quit"]),
        (b"\xff ", ["stop"]),
        (b"g", ["go"]),
    ],
)
def test_of_keys_that_come_at_once_stop_is_first_and_outlasts_an_earlier_go(
    terminal: Terminal, keys: bytes, presses: list[str]
) -> None:
    terminal.type(keys, len(presses))
    assert terminal.presses == presses
    terminal.type(b" ", 1)
    assert terminal.presses == [*presses, "stop"]


def test_space_stops_while_a_label_waits_for_the_disk_and_after_it_has_failed(terminal: Terminal) -> None:
    terminal.type(b"f", 0)
    terminal.type(b" ", 1)
    assert terminal.presses == ["stop"]
    terminal.full.set()
    terminal.type(b"s ", 3)  # the failure, the stop, and the success behind it
    assert sorted(terminal.presses) == ["stop", "stop", "success"]
    assert terminal.reported == ["key 'f' failed: OSError: no space left on device"]


def test_a_key_that_fails_is_reported_and_the_next_one_works(capsys: pytest.CaptureFixture[str]) -> None:
    presses = Presses()

    def broken(outcome: str) -> str:
        raise OSError("no space left on device")

    made = Panel(lambda: presses.append("stop"), lambda: None, broken, dict, lambda: None)
    for key in "s ":
        made.press(key)
    port = made.serve(0)
    status, body = post(port, "/label", {"outcome": "success"}, token=made.token)
    made.close()
    assert presses == ["stop"]
    assert (status, body) == (500, {"error": "the label is not kept: no space left on device"})
    assert "key 's' failed: OSError: no space left" in capsys.readouterr().err


def test_a_robot_reaches_a_server_over_tls_and_only_with_its_authority(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)

    async def scenario() -> None:
        options = ServeOptions(port=0, sessions=FOUR, certificate=cert, private_key=key)
        async with serving(options=options) as server:
            address = f"wss://127.0.0.1:{server.port}"
            link = Link(LinkOptions(address, "arm", authority=cert), EventLog())
            await asyncio.to_thread(link.start)
            link.begin(1)
            link.send(frame(0, plan=True))
            while not (replies := link.poll()):
                await asyncio.sleep(0.01)
            assert replies[0].chunk is not None
            await asyncio.to_thread(link.close)
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", server.port, ssl=ssl.create_default_context())

    asyncio.run(scenario())
