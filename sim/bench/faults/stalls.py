"""A controller that is stopped for a while, with and without the operator's stop: how old are the commands that the arm
gets, and how soon is it at rest?"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlamem.core.bench import BenchError
from vlamem.core.seeding import stream
from vlamem.deploy.robot import load_robot_file
from vlamem.sim.bench.faults.driver import MOVES, age_of

_ROBOT = "tabletop"
_SOON_S = 60.0


@dataclass(frozen=True)
class Stalls:
    """What the arm was sent.

    Attributes:
        commands: in all.
        stale: planned from an observation older than `stale_s`.
        oldest_s: the oldest observation behind a command that moved.
        stop_ms: from the operator's stop to rest, one a stop; of a controller that stood still, runs, or whose camera
            hangs in the guard's process.
        silent_ms: from the moment in which the controller was stopped to rest.
        moved_after_stop: commands that moved between a stop that was in force and the next go.
    """

    commands: int
    stale: int
    oldest_s: float
    stop_ms: tuple[float, ...]
    silent_ms: tuple[float, ...]
    moved_after_stop: int


class _Rig:
    """The two processes, and the arm's log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "arm.log"
        words = [sys.executable, "-m", "vlamem.sim.bench.faults.driver", _ROBOT]
        env = os.environ | {"FAULTS_LOG": str(self.log)}
        self.process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        found = self.process.stdout.readline().split()
        if len(found) != 2:
            self.end()
            raise BenchError(f"the controller did not start: it ended with status {self.process.poll()}")
        self.url, self._token = f"http://127.0.0.1:{found[0]}", found[1]

    def rows(self) -> np.ndarray:
        """[N, 3] of what the arm was sent."""
        lines = self.log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines() if self.log.exists() else []
        return np.array([[float(x) for x in line.split()] for line in lines]).reshape(-1, 3)

    def post(self, path: str) -> None:
        """Presses a button of the panel."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self.url + path, json.dumps({}).encode(), headers)  # noqa: S310  # http, ours
        with urllib.request.urlopen(request, timeout=_SOON_S) as answer:  # noqa: S310  # of this machine
            answer.read()

    def wait_until(self, moves: bool) -> None:
        """Until the arm moves, or is at rest. Raises BenchError when it does not."""
        until = time.monotonic() + _SOON_S
        while not len(rows := self.rows()[-1:]) or (rows[0, 1] > 0.9 * MOVES) != moves:
            if time.monotonic() > until:
                raise BenchError(f"the arm {'does not move' if moves else 'does not come to rest'}: see {self.log}")
            time.sleep(0.005)

    def end(self) -> None:
        """Ends both."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def measure_stalls(folder: Path, count: int, longest_s: float, seed: int) -> Stalls:
    """Stops a controller `count` times for 0.1 s to `longest_s`. Raises BenchError when the arm does not come back."""
    rig, rng = _Rig(folder), stream(seed, "stalls")
    stops, silences, marks = list[float](), list[float](), list[tuple[float, float]]()
    hang = rig.log.with_name(f"{rig.log.name}.hang")
    try:
        rig.wait_until(moves=True)
        for i in range(count):
            seconds = float(np.exp(rng.uniform(np.log(0.1), np.log(longest_s))))
            time.sleep(float(rng.uniform(0, 0.1)))
            kind = ("stopped", "runs", "hangs", "silent")[i % 4]
            if kind in ("stopped", "silent"):
                began = time.monotonic()
                rig.process.send_signal(signal.SIGSTOP)
                if kind == "silent":
                    time.sleep(max(seconds, 0.3))
                    silences.append(_rest_after(rig.rows(), began))
                    rig.process.send_signal(signal.SIGCONT)
                    rig.wait_until(moves=True)
                    continue
            elif kind == "hangs":
                hang.touch()
            began = time.monotonic()
            rig.post("/stop")
            answered = time.monotonic()
            rig.wait_until(moves=False)
            time.sleep(seconds if kind == "stopped" else 0.2)
            hang.unlink(missing_ok=True)
            rig.process.send_signal(signal.SIGCONT)
            time.sleep(0.2)
            stops.append(_rest_after(rig.rows(), began))
            marks.append((answered + 0.1, time.monotonic()))
            rig.post("/go")
            rig.wait_until(moves=True)
        return _judged(rig.rows(), stops, silences, marks)
    finally:
        rig.end()


def _rest_after(rows: np.ndarray, began: float) -> float:
    """From `began` until the arm was sent the first of the rests that it has been sent since [ms]."""
    still = np.abs(rows[:, 1:]).max(axis=1) < 1e-6
    moving = np.flatnonzero(~still)
    first = moving[-1] + 1 if len(moving) else 0
    return 1e3 * max(0.0, float(rows[first, 0] - began)) if first < len(rows) else float("inf")


def _judged(rows: np.ndarray, stops: list[float], silences: list[float], marks: list[tuple[float, float]]) -> Stalls:
    moving = rows[rows[:, 1] > MOVES - 1e-7]  # on the way to rest a command says nothing of its age
    ages = np.array([age_of(now, second) for now, _, second in moving.tolist()])
    after = sum(int(((moving[:, 0] > a) & (moving[:, 0] < b)).sum()) for a, b in marks)
    stale = int((ages > load_robot_file(_ROBOT).stale_s).sum())
    return Stalls(len(rows), stale, float(ages.max(initial=0.0)), tuple(stops), tuple(silences), after)
