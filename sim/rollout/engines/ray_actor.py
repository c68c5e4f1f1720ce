"""An actor of the engine on Ray: plays jobs in a worker process of its node, and hands over what these wrote."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from vlamem.policies.registry import find_policy
from vlamem.sim import gl
from vlamem.sim.results.episodes import DiskFullError, EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines.protocol import RunRefusedError
from vlamem.sim.rollout.engines.worker_process import WorkerProcess
from vlamem.sim.rollout.trials import Job

_POLL_S = 0.5
Answer = tuple[str, Any, dict[str, bytes]]
"""What it was ("ready", "done", "refused", "missing" or "disk"), its body, and files of the run by relative path."""


class RolloutActor:
    """Holds one worker process, in a run folder of its own on the node: no folder has to be shared.

    A process that hangs or dies is replaced, and its job played once more.

    Args:
        config: of the run.
        first_task: on which policy and environment are checked.
        marks: the run's fingerprint; a node with other weights, or that renders otherwise, is refused.
        folder: working directory of who began the run, to which the paths of files are relative.
        environment: variables that the run was begun with.
    """

    def __init__(
        self, config: RolloutConfig, first_task: str, marks: Mapping[str, Any], folder: str, environment: dict[str, str]
    ) -> None:
        self._begun, self._first_task, self._marks = config, first_task, marks
        self._folder, self._environment = folder, environment
        self._worker: WorkerProcess | None = None

    def start(self) -> Answer:
        """Loads what is needed to play: "ready", or why not."""
        os.environ.update(self._environment)
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
        self._out = Path(tempfile.mkdtemp(prefix="vlamem-run-"))
        self._config = replace(self._begun, out=self._out, engine=None, workers=1)
        try:
            self._check()
            self._worker = self._process()
        except (ValueError, TypeError, OSError) as error:
            return self._no(error)
        return "ready", os.getpid(), {}

    def _check(self) -> None:
        """Raises RunRefusedError when weights, memory or renderer are not those of the run."""
        policy, rendering = self._marks["policy"], self._marks["gl"]
        hashes = [name.sha256 for name in self._config.memories() if name.sha256 is not None]
        known = policy.get("memory_sha256", [])
        for what, here, there in (
            (f"policy {self._config.policy}", find_policy(self._config.policy).sha256, policy["weights_sha256"]),
            (f"memory {' '.join(self._config.memory)}", hashes, [known] if isinstance(known, str) else known),
        ):
            if here != there:
                raise RunRefusedError(f"{what} has other weights there: files have to be the same on every node")
        if rendering is not None:
            found = gl.choose().marks()
            if found != rendering:
                raise RunRefusedError(
                    f"it renders with {found['renderer']} ({found['backend']}) and this run with "
                    f"{rendering['renderer']} ({rendering['backend']}): use nodes of one kind"
                )

    def _process(self) -> WorkerProcess:
        """A process that is ready."""
        worker = WorkerProcess(self._config, self._first_task)
        try:
            while not worker.ready:
                wait([worker.connection], _POLL_S)
                worker.hear()
        except BaseException:
            worker.stop()
            raise
        return worker

    def play(self, job: Job) -> Answer:
        """The records of a job, as JSON values; "refused", "missing" or "disk" when the run cannot go on."""
        assert self._worker is not None
        try:
            for _ in range(2):
                worker = self._worker
                worker.give(job)
                records: list[EpisodeRecord] = []
                while not records:
                    wait([worker.connection], _POLL_S)
                    records = worker.hear()
                if not worker.lost:
                    break
                worker.stop()
                self._files()  # of an episode that was not played to its end
                self._worker = self._process()
        except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
            return self._no(error)
        return "done", [asdict(record) for record in records], self._files()

    def _files(self) -> dict[str, bytes]:
        """What the last job wrote, by relative path; taken away here."""
        found = {}
        for path in sorted(self._out.rglob("*")):
            if path.is_file():
                found[str(path.relative_to(self._out))] = path.read_bytes()
                path.unlink()
        return found

    def _no(self, error: Exception) -> Answer:
        if isinstance(error, ModuleNotFoundError):
            return "missing", error.name, {}
        return "disk" if isinstance(error, DiskFullError) else "refused", str(error), {}

    def close(self) -> None:
        """Ends the process, and removes the folder."""
        if self._worker is not None:
            self._worker.stop()
        shutil.rmtree(self._out, ignore_errors=True)
