"""`vlamem control` killed and stopped while an operator labels: no label that was acknowledged to the operator is lost.

The operator speaks to the panel. A label is acknowledged when the panel answers: it is on the robot's disk then. When
the last controller has drained its link it has to be at the server.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlamem.core.bench import BenchError
from vlamem.core.seeding import stream
from vlamem.sim.bench.faults.killed import LONG_S, Killed, stand_still, whole_lines

_ARM, _FILE, _SESSION = "vlamem.sim.bench.faults.arm:LoggingArm", "tabletop", "arm"
_EPISODE_S = 0.5
_SOON_S = 10.0
_STILL = 1e-6


@dataclass
class _Labels:
    """What the operator knows of the labels of one episode.

    Attributes:
        acknowledged: ids that the panel gave, in order.
        unanswered: whether the controller died before it answered for another one, which may count all the same.
    """

    acknowledged: list[str] = field(default_factory=list)
    unanswered: bool = False

    def lost(self, at_server: list[str]) -> bool:
        """Whether the newest that was acknowledged is not at the server, nor one that came after it."""
        if not self.acknowledged or self.acknowledged[-1] in at_server:
            return False
        return not (self.unanswered and set(at_server) - set(self.acknowledged))


class _Run:
    """One controller in a process of its own, and its operator."""

    def __init__(self, words: list[str], log: Path) -> None:
        env = os.environ | {"FAULTS_LOG": str(log)}
        out = subprocess.PIPE
        self.process = subprocess.Popen(words, env=env, stdout=out, stdin=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("panel: "):
                self._url, self._token = line.removeprefix("panel: ").strip().split(", token ")
                return
        raise BenchError(f"vlamem control ended with status {self.process.wait()}: {' '.join(words)}")

    def label(self, known: dict[int, _Labels], outcome: str) -> None:
        """Labels the episode that runs, and notes what the panel says; one whose episode is not sure is not counted."""
        if not (before := self._status()):
            return time.sleep(0.01)  # no episode has begun
        try:
            name = self._ask("/label", {"outcome": outcome})["label"]
        except OSError as error:  # it may have been taken all the same
            known.setdefault(before, _Labels()).unanswered = True
            if isinstance(error, urllib.error.HTTPError):
                return None  # the controller stood still: its guard answered for it
            raise
        after = self._status()
        for episode in {before, after}:
            of = known.setdefault(episode, _Labels())
            of.unanswered = of.unanswered or before != after
        if before == after:
            known[before].acknowledged.append(name)
        return None

    def _status(self) -> int:
        return int(self._ask("/")["episode"])

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers)  # noqa: S310  # http, ours
        with urllib.request.urlopen(request, timeout=_SOON_S) as answer:  # noqa: S310  # of this machine
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def kill(self) -> list[int]:
        """kill -9; the processes that it leaves behind, which are the guard's."""
        pid = self.process.pid
        with contextlib.suppress(FileNotFoundError):
            left = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            return left
        return []


def kill_controllers(
    folder: Path, server: str, labels: Path, kills: int, seed: int, say: Callable[[str], None] = lambda line: None
) -> Killed:
    """Kills controllers of one robot; every second one stands still for a while before, and goes on until it is killed.

    `server` is the address of one that keeps its labels in the file `labels`. Survived is a kill after which the arm
    came to rest, its guard ended, and the next controller began. Raises BenchError when one does not begin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, rng, known = folder / "arm.log", stream(seed, "kill controllers"), dict[int, _Labels]()
    words = [sys.executable, "-m", "vlamem", "control", "--robot", _ARM, "--robot-file", _FILE, "--server", server]
    words += ["--session", _SESSION, "--state", str(folder / "state"), "--instruction", "touch the red cube"]
    words += ["--seconds", str(_EPISODE_S), "--realtime-priority", "0"]
    survived = stops = 0
    for number in range(kills):
        run = _Run([*words, "--episodes", "100000", "--panel-port", "0"], log)
        try:
            until = time.monotonic() + float(rng.uniform(0.1, 1.5))
            with contextlib.suppress(OSError):  # it has ended
                while time.monotonic() < until:
                    run.label(known, "success" if rng.integers(2) else "failure")
                    if number % 2 and rng.integers(3) == 0:
                        stand_still(run.process.pid, float(rng.uniform(0.05, 0.5)))
                        stops += 1
            if number % 2:
                run.process.send_signal(signal.SIGSTOP)
        finally:
            left = run.kill()
        survived += _at_rest(log, left)
        say(f"  controller kill {number + 1}: {sum(len(of.acknowledged) for of in known.values())} labels")
    done = subprocess.run(
        [*words, "--episodes", "1"], env=os.environ | {"FAULTS_LOG": str(log)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, timeout=LONG_S,
    )  # fmt: skip
    found = [body["label"] for line in whole_lines(labels) if "label" in (body := json.loads(line))]
    twice = [name for name, count in Counter(body["label"] for body in found).items() if count > 1]
    ours = [body for body in found if body["session"] == _SESSION]
    lost = sum(of.lost([b["label"] for b in ours if b["episode"] == episode]) for episode, of in known.items())
    acknowledged = sum(bool(of.acknowledged) for of in known.values())
    whole = done.returncode == 0 and not twice and not lost
    return Killed("control", kills, survived if whole else 0, acknowledged, lost, stops)


def _at_rest(log: Path, left: list[int]) -> bool:
    """Whether what a killed controller left behind ends soon, with the arm at rest."""
    until = time.monotonic() + _SOON_S
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < until:
        time.sleep(0.01)
    last = whole_lines(log)[-1:]
    resting = not last or max(abs(float(x)) for x in last[0].split()[1:]) < _STILL
    return resting and not any(Path(f"/proc/{pid}").exists() for pid in left)
