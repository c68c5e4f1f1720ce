"""deploy/server/supervisor.py, serve --respawn: a server that dies starts again, one that is ended does not."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from deploy_cases import LONG_S, client, run, wait

from vlamem.deploy.server.supervisor import respawn
from vlamem.scripts.main import main

SCRIPT = """
import os, signal, sys, threading, time
from vlamem.deploy.server.supervisor import respawn
{preload}
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
child = respawn(preload)
{serve}
"""
"""A server of a few lines: what it preloads, and what it does in each life."""
SLEEPS = "time.sleep(600)\n"
LIVES = """
life = len(open("lives").readlines()) if os.path.exists("lives") else 0
with open("lives", "a") as file:
    print(child.port, os.getppid(), "loaded" in globals(), file=file)
"""


GONE = "lambda: os._exit(3)"
"""What a server of these lines does when its parent is gone."""


def script(folder: Path, serve: str, preload: str = "def preload():\n    globals()['loaded'] = True\n") -> list[str]:
    (folder / "server.py").write_text(SCRIPT.format(preload=preload, serve=LIVES + serve))
    return [sys.executable, "-W", "error", "server.py"]


def lives(folder: Path) -> list[list[str]]:
    path = folder / "lives"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def ended(folder: Path, serve: str, quiet: bool = False, **more: str) -> "subprocess.CompletedProcess[str]":
    words, to = script(folder, serve, **more), subprocess.DEVNULL if quiet else subprocess.PIPE
    return subprocess.run(words, cwd=folder, stdout=to, stderr=to, text=True, timeout=LONG_S)


def pids(folder: Path) -> list[int]:
    """Processes that left their number there."""
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return " (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_that_was_killed_or_failed_starts_again_at_its_port_without_importing_anew(tmp_path: Path) -> None:
    found = ended(
        tmp_path,
        f"child.listening(4242, {GONE})\n"
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
    found = ended(tmp_path, f"if life in (0, 3): child.listening(1, {GONE})\nsys.exit(6 if life == 3 else 5)\n")
    assert found.returncode == 5
    assert len(lives(tmp_path)) == 1 + 2 + 1 + 3
    assert "ended with status 5 before it listened" in found.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGHUP, 4)])
def test_the_parent_forwards_a_signal_that_ends_it(number: signal.Signals, status: int, tmp_path: Path) -> None:
    ends = "def ends(*_):\n    open('got', 'w').close(); sys.exit(status)\n"
    serve = f"{ends}signal.signal({number.value}, ends)\nchild.listening(1, {GONE})\nopen('ready', 'w').close()\n"
    with subprocess.Popen(script(tmp_path, f"status = {status}\n{serve}{SLEEPS}"), cwd=tmp_path) as process:
        wait(lambda: (tmp_path / "ready").exists())
        process.send_signal(number)
        assert process.wait(LONG_S) == status
    assert (tmp_path / "got").exists()
    assert len(lives(tmp_path)) == 1


def ignoring(number: signal.Signals, words: list[str]) -> list[str]:
    """A command that starts with a signal ignored, as nohup and a script's background jobs are."""
    return ["sh", "-c", f'trap "" {number.name.removeprefix("SIG")}; exec "$@"', "sh", *words]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ignored_at_the_start_ends_a_server_that_handles_it(number: signal.Signals, tmp_path: Path) -> None:
    ends = "def ends(*_):\n    open('got', 'w').close(); sys.exit(0)\n"
    serve = f"{ends}signal.signal({number.value}, ends)\nchild.listening(1, {GONE})\nopen('ready', 'w').close()\n"
    with subprocess.Popen(ignoring(number, script(tmp_path, serve + SLEEPS)), cwd=tmp_path) as process:
        wait(lambda: (tmp_path / "ready").exists())
        process.send_signal(number)
        assert process.wait(LONG_S) == 0
    assert (tmp_path / "got").exists()
    assert len(lives(tmp_path)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ignored_at_the_start_ends_neither_a_server_that_ignores_it_nor_the_restarts(
    number: signal.Signals, tmp_path: Path
) -> None:
    kept = f"assert signal.getsignal({number.value}) is signal.SIG_IGN\nchild.listening(1, {GONE})\n"
    preload = f"def preload():\n    signal.raise_signal({number.value})\n    globals()['loaded'] = True\n"
    words = script(tmp_path, f"{kept}open(str(os.getpid()), 'w').close()\n{SLEEPS}", preload=preload)
    source = (tmp_path / "server.py").read_text().replace("signal.signal(signal.SIGHUP, signal.SIG_DFL)", "")
    (tmp_path / "server.py").write_text(source)
    with subprocess.Popen(ignoring(number, words), cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        wait(lambda: len(pids(tmp_path)) == 1)
        process.send_signal(number)
        os.kill(*pids(tmp_path), signal.SIGKILL)
        wait(lambda: len(pids(tmp_path)) == 2)
        process.terminate()
        assert process.wait(LONG_S) == 0
    assert [port for port, _, _ in lives(tmp_path)] == ["None", "1"]


@pytest.mark.parametrize("listens", [True, False])
def test_a_server_whose_parent_was_killed_is_called_back_or_ends_at_once(listens: bool, tmp_path: Path) -> None:
    serve = f"child.listening(1, {GONE})\n" if listens else ""
    with subprocess.Popen(
        script(tmp_path, f"{serve}open(str(os.getpid()), 'w').close()\n{SLEEPS}"), cwd=tmp_path
    ) as process:
        wait(lambda: bool(pids(tmp_path)))
        process.kill()
    wait(lambda: not running(*pids(tmp_path)))
    assert len(lives(tmp_path)) == 1


def test_a_process_that_the_server_forked_keeps_no_one_waiting(tmp_path: Path) -> None:
    helper = f"if os.fork() == 0:\n    open(str(os.getpid()), 'w').close()\n    {SLEEPS}"
    found = ended(
        tmp_path,
        f"if life == 1: sys.exit(0)\n{helper}while not any(p.isdigit() for p in os.listdir()): time.sleep(0.01)\n"
        f"child.listening(1, {GONE})\nos.kill(os.getpid(), signal.SIGKILL)\n",
        quiet=True,
    )
    for helper_pid in pids(tmp_path):
        os.kill(helper_pid, signal.SIGKILL)
    assert found.returncode == 0
    assert len(lives(tmp_path)) == 2


def test_terminated_when_the_server_has_just_died_and_while_it_waits_to_start_it_again(tmp_path: Path) -> None:
    serve = f"child.listening(1, {GONE})\nos.kill(os.getpid(), signal.SIGKILL)\n"
    for lived in (1, 5):
        with subprocess.Popen(script(tmp_path, serve), cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
            wait(lambda lived=lived: len(lives(tmp_path)) >= lived)
            process.terminate()
            # 137 where the word reached it while its server was about to die
            assert process.wait(LONG_S) in (0, 128 + signal.SIGKILL)
        (tmp_path / "lives").unlink()


@pytest.mark.parametrize("end", ["os._exit(255)", "os.kill(os.getpid(), 35)"])
def test_a_server_may_end_in_any_way(end: str, tmp_path: Path) -> None:
    found = ended(tmp_path, f"child.listening(1, {GONE})\nif life == 0: {end}\n")
    assert found.returncode == 0
    assert len(lives(tmp_path)) == 2
    assert ("ended with status 255" if "255" in end else "was killed by signal 35") in found.stderr


def test_terminated_while_the_server_still_loads_both_are_gone(tmp_path: Path) -> None:
    with subprocess.Popen(script(tmp_path, f"open(str(os.getpid()), 'w').close()\n{SLEEPS}"), cwd=tmp_path) as process:
        wait(lambda: bool(pids(tmp_path)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG_S) == 0
    assert not running(*pids(tmp_path))
    assert len(lives(tmp_path)) == 1


def test_terminated_while_it_imports(tmp_path: Path) -> None:
    preload = f"def preload():\n    open('imports', 'w').close()\n    {SLEEPS}"
    with subprocess.Popen(script(tmp_path, "", preload=preload), cwd=tmp_path) as process:
        wait(lambda: (tmp_path / "imports").exists())
        process.terminate()
        assert process.wait(LONG_S) == 0
    assert not lives(tmp_path)


def test_what_starts_threads_before_a_fork_is_refused(tmp_path: Path) -> None:
    preload = (
        "def preload():\n    threading.Thread(target=time.sleep, args=(600,), name='poller', daemon=True).start()\n"
    )
    found = ended(tmp_path, "", preload=preload)
    assert found.returncode == 1
    assert "starts threads, which do not survive a fork" in found.stderr
    assert not lives(tmp_path)


def test_a_bar_of_progress_under_way_leaves_nothing_that_stands_in_the_way_of_a_fork(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tqdm import tqdm\nlist(tqdm(range(2)))\nfrom point_mass import policy\n")
    words = "import threading\nfrom vlamem.deploy.server.assembly import preload\npreload('mine:policy')\n"
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
    words = [sys.executable, "-m", "vlamem", "serve", "--respawn", "--memory", "aura", "--port", "0"]
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

    replies: list[dict[str, object]] = []

    async def hello(**how: object) -> None:
        async with client(port) as c:
            replies.append((await c.ask("hello", session="arm", **how))["vlamem"])
            if not how:
                await c.ask("episode_start", episode=1)

    run(hello)
    os.kill(first, signal.SIGKILL)
    assert port_of(serving) == port
    (second,) = children_of(serving.pid)
    assert second != first
    run(lambda: hello(token=replies[0]["token"]))
    assert (replies[1]["restored"], replies[1]["episode"]) == (True, 1)
    serving.terminate()
    assert serving.wait(LONG_S) == 0


def test_a_server_whose_parent_was_killed_ends_and_frees_its_port(serving: "subprocess.Popen[str]") -> None:
    port = port_of(serving)
    (child,) = children_of(serving.pid)
    serving.kill()
    serving.wait()
    wait(lambda: not running(child))
    with socket.create_server(("127.0.0.1", port)) as free:  # nobody listens there any more
        assert free.getsockname()[1] == port


def test_respawn_says_in_one_line_what_cannot_be_served(tmp_path: Path) -> None:
    assert main(["serve", "--respawn", "--policy", "tiyn"]) == 2
    words = [sys.executable, "-m", "vlamem", "serve", "--respawn", "--memory", f"success:{tmp_path / 's.db'}"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=LONG_S)
    assert found.returncode == 2
    replies = "vlamem serve: a success memory grows by labels, which need a folder: give --state"
    assert found.stderr.splitlines().count(replies) == 1
