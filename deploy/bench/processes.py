"""The processes of the bench: started, watched, killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlamem.core.bench import BenchError
from vlamem.deploy.bench.robot_process import RobotRun

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class ProcessError(BenchError):
    """A process of the bench that did not do what it should; the message has its last words."""


class ServerProcess:
    """`vlamem serve --respawn`: it keeps its port and its state over a kill.

    Args:
        options: of the verb, without port and state.
        folder: for state and output.
        start_s: how long it may take to listen.
    """

    def __init__(self, options: list[str], folder: Path, start_s: float = 300.0) -> None:
        self._options, self._folder, self._start_s = options, folder, start_s
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._read = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def output(self) -> Path:
        """What it printed."""
        return self._folder / "server.log"

    def start(self) -> float:
        """Starts it and gives the moment at which it listened [s on the monotonic clock]. Raises ProcessError."""
        words = [sys.executable, "-m", "vlamem", "serve", "--respawn", "--port", str(self.port), *self._options]
        words += ["--state", str(self._folder / "state")]
        self._skip_output()
        with self.output.open("ab") as out:
            self._process = subprocess.Popen(words, stdout=out, stderr=out)
        return self.wait_listening()

    def _skip_output(self) -> None:
        self._read = self.output.stat().st_size if self.output.exists() else 0

    def wait_listening(self) -> float:
        """Waits until it listens, after `start` or `crash`, and gives that moment. Raises ProcessError."""
        assert self._process is not None
        until = time.monotonic() + self._start_s
        while time.monotonic() < until and self._process.poll() is None:
            printed = self.output.read_bytes()[self._read :].decode(errors="replace")
            for line in printed.splitlines(keepends=True):
                if line.startswith("serving on") and line.endswith("\n"):
                    self.port = int(line.rpartition(":")[2])
                    return time.monotonic()
            time.sleep(0.01)
        raise ProcessError(f"the server did not start: {self.output.read_text(errors='replace')[-2000:]}")

    def crash(self) -> float:
        """kill -9 of the process that serves, which its parent starts again; gives the moment. Raises ProcessError."""
        serving = self.serving
        self._skip_output()
        os.kill(serving, signal.SIGKILL)
        return time.monotonic()

    @property
    def serving(self) -> int:
        """The number of the process that serves. Raises ProcessError where there is none."""
        return self._pids()[-1]

    def kill(self) -> None:
        """kill -9 of all of it."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGSTOP)  # else it would start another, or that would see it go
        for pid in self._pids(alive=False)[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Asks it to end. Raises ProcessError when it does not, or ends with an error."""
        if self._process is None or self._process.poll() is not None:
            raise ProcessError(f"the server ended by itself: {self.output.read_text(errors='replace')[-2000:]}")
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise ProcessError("the server did not end within 30 s of SIGTERM") from None
        if status:
            raise ProcessError(f"the server ended with {status}: {self.output.read_text(errors='replace')[-2000:]}")

    def cpu_s(self) -> float:
        """Processor time that it used [s]."""
        fields = [Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split() for p in self._pids()]
        return sum(int(f[11]) + int(f[12]) for f in fields) / _TICK

    def memory_mb(self) -> float:
        """Resident memory of the process that serves, and what its parent has beside that for itself [MB]."""
        parent, serving = self._pids()
        return _kilobytes(serving, "Rss:") * 1024 / 1e6 + _kilobytes(parent, "Private_") * 1024 / 1e6

    def _pids(self, alive: bool = True) -> list[int]:
        """The parent and the process that serves. Raises ProcessError when one is missing that has to be alive."""
        if self._process is None:
            raise ProcessError("the server was not started")
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if alive and len(children) != 1:
            raise ProcessError(f"the server is not running: {self.output.read_text(errors='replace')[-2000:]}")
        return [pid, *map(int, children)]


def _kilobytes(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(field))


class RobotProcess:
    """The robot's side in a process that runs a plan; its folder takes plan, output, events and report."""

    def __init__(self, plan: RobotRun) -> None:
        self._folder = Path(plan.folder)
        self._folder.mkdir(parents=True)
        path = self._folder / "plan.json"
        path.write_text(json.dumps(asdict(plan)), encoding="utf-8")
        words = [sys.executable, "-m", "vlamem.deploy.bench.robot_process", str(path)]
        self._log = (self._folder / "robot.log").open("wb")
        self.started = time.time()
        self._process = subprocess.Popen(words, stdout=self._log, stderr=self._log)

    def end(self) -> None:
        """Tells it to end after the episode at hand."""
        (self._folder / "end").touch()

    def output(self) -> str:
        """What it printed."""
        return (self._folder / "robot.log").read_text(errors="replace")

    def wait_until_running(self) -> None:
        """Until its arm stands in its first episode. Raises ProcessError when it does not come to that."""
        until = time.monotonic() + 400
        while "running" not in self.output():
            if self._process.poll() is not None or time.monotonic() > until:
                raise ProcessError(f"the robot did not start: {self.output()[-2000:]}")
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9; an arm that hangs on its line ends with it."""
        if self.running:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What it noted of these kinds, in order."""
        path = self._folder / "events.jsonl"
        if not path.exists():
            return []
        whole = path.read_text(errors="replace").rpartition("\n")[0].splitlines()
        return [event for line in whole if (event := json.loads(line))["event"] in kinds]

    def report(self, seconds: float) -> dict[str, Any]:
        """Its report, when it has ended. Raises ProcessError when that takes longer, or it ended with an error."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise ProcessError(f"the robot did not end: {self.output()[-2000:]}") from None
        self._log.close()
        if status:
            raise ProcessError(f"the robot ended with {status}: {self.output()[-2000:]}")
        found: dict[str, Any] = json.loads((self._folder / "report.json").read_text(encoding="utf-8"))
        return found
