"""deploy/respawn.py, `vlamem serve --respawn`: a server that dies is there again, one that is told to end ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from deploy_cases import client, run, wait

from vlamem.deploy.respawn import respawn
from vlamem.scripts.main import main

SCRIPT = """
import os, signal, sys, threading, time
from vlamem.deploy.respawn import respawn
{preload}
child = respawn(preload)
{serve}
"""
"""A server of a few lines: what it preloads, and what it does in each life."""
LIVES = """
life = len(open("lives").readlines()) if os.path.exists("lives") else 0
with open("lives", "a") as file:
    print(child.port, os.getppid(), "loaded" in globals(), file=file)
"""


def script(folder: Path, serve: str, preload: str = "def preload():\n    globals()['loaded'] = True\n") -> list[str]:
    (folder / "server.py").write_text(SCRIPT.format(preload=preload, serve=LIVES + serve))
    return [sys.executable, "-W", "error", "server.py"]


def lives(folder: Path) -> list[list[str]]:
    path = folder / "lives"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def ended(folder: Path, serve: str, **more: str) -> "subprocess.CompletedProcess[str]":
    words = script(folder, serve, **more)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_server_that_was_killed_or_failed_starts_again_at_its_port_without_importing_anew(tmp_path: Path) -> None:
    found = ended(
        tmp_path,
        "child.listening(4242)\n"
        "if life == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if life == 1: raise RuntimeError('a fault')\n"
        "if life == 2: sys.exit(2)\n",
    )
    assert found.returncode == 0
    assert [port for port, _, _ in lives(tmp_path)] == ["None", "4242", "4242", "4242"]
    assert len({parent for _, parent, _ in lives(tmp_path)}) == 1
    assert {loaded for _, _, loaded in lives(tmp_path)} == {"True"}
    for words in ("was killed by SIGKILL: starting it again", "ended with status 1", "ended with status 2"):
        assert words in found.stderr
    assert "RuntimeError: a fault" in found.stderr


def test_a_first_server_that_never_listens_is_not_started_again(tmp_path: Path) -> None:
    assert ended(tmp_path, "sys.exit(2)\n").returncode == 2
    assert len(lives(tmp_path)) == 1


def test_three_in_a_row_that_do_not_listen_are_the_last(tmp_path: Path) -> None:
    found = ended(tmp_path, "if life in (0, 3): child.listening(1)\nif life != 3: sys.exit(5)\nsys.exit(6)\n")
    assert found.returncode == 5
    assert len(lives(tmp_path)) == 1 + 2 + 1 + 3
    assert "ended with status 5 before it listened" in found.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_parent_hands_on_that_it_was_told_to_end(number: signal.Signals, tmp_path: Path) -> None:
    told = "def told(*_):\n    open('told', 'w').close(); sys.exit(0)\n"
    serve = f"{told}signal.signal({number.value}, told)\nchild.listening(1)\nwhile True: time.sleep(1)\n"
    with subprocess.Popen(script(tmp_path, serve), cwd=tmp_path) as process:
        wait(lambda: bool(lives(tmp_path)))
        time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(30) == 0
    assert (tmp_path / "told").exists()
    assert len(lives(tmp_path)) == 1


def test_told_to_end_while_the_server_still_loads_both_are_gone(tmp_path: Path) -> None:
    with subprocess.Popen(script(tmp_path, "time.sleep(60)\n"), cwd=tmp_path) as process:
        wait(lambda: bool(lives(tmp_path)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert len(lives(tmp_path)) == 1


def test_what_starts_threads_before_a_fork_is_refused(tmp_path: Path) -> None:
    preload = "def preload():\n    threading.Thread(target=time.sleep, args=(1,), name='poller').start()\n"
    found = ended(tmp_path, "", preload=preload)
    assert found.returncode == 1
    assert "starts threads (poller)" in found.stderr
    assert not lives(tmp_path)


def test_a_bar_of_progress_under_way_leaves_nothing_that_stands_in_the_way_of_a_fork(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tqdm import tqdm\nlist(tqdm(range(2)))\nfrom point_mass import policy\n")
    words = "import threading\nfrom vlamem.deploy.assembly import preload\npreload('mine:policy')\n"
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parent}"}
    found = subprocess.run(
        [sys.executable, "-c", f"{words}print(threading.active_count())"],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "1\n"


def test_a_system_without_a_safe_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match="this is darwin: leave it out"):
        respawn(lambda: None)


@pytest.fixture
def serving(tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    words = [sys.executable, "-m", "vlamem", "serve", "--respawn", "--aura", "shipped", "--port", "0"]
    process = subprocess.Popen([*words, "--state", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    children: list[int] = []
    try:
        yield process
        children = children_of(process.pid) if process.poll() is None else []
    finally:
        process.kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def port_of(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving on"), line
    return int(line.rpartition(":")[2])


def test_a_killed_server_is_there_again_with_its_session(serving: "subprocess.Popen[str]") -> None:
    port, (first,) = port_of(serving), children_of(serving.pid)

    said: list[dict[str, object]] = []

    async def hello(**how: object) -> None:
        async with client(port) as c:
            said.append((await c.ask("hello", session="arm", **how))["vlamem"])
            if not how:
                await c.ask("episode_start", episode=1)

    run(hello)
    os.kill(first, signal.SIGKILL)
    assert port_of(serving) == port
    (second,) = children_of(serving.pid)
    assert second != first
    run(lambda: hello(token=said[0]["token"]))
    assert (said[1]["restored"], said[1]["episode"]) == (True, 1)
    serving.terminate()
    assert serving.wait(30) == 0


def test_a_server_whose_parent_was_killed_ends_and_frees_its_port(serving: "subprocess.Popen[str]") -> None:
    port_of(serving)
    (child,) = children_of(serving.pid)
    serving.kill()
    serving.wait()
    wait(lambda: not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text())


def test_respawn_says_in_one_line_what_cannot_be_served(tmp_path: Path) -> None:
    assert main(["serve", "--respawn", "--policy", "tiyn"]) == 2
    words = [sys.executable, "-m", "vlamem", "serve", "--respawn", "--success", str(tmp_path / "s.db")]
    found = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert found.stderr.splitlines()[0] == (
        "vlamem serve: a success memory grows by labels, which need a folder: give --state"
    )
