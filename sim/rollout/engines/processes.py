"""Gives episodes to worker processes and watches over these: a worker that hangs or dies is replaced."""

from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import wait

from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines.worker_process import WorkerProcess
from vlamem.sim.rollout.trials import Job, JobQueue

_POLL_S = 0.5


class ProcessEngine:
    """Plays in worker processes, `config.workers` of them at most."""

    def play(
        self, config: RolloutConfig, jobs: Sequence[Job], stopped: Callable[[], bool]
    ) -> Generator[list[EpisodeRecord]]:
        """As Engine says. The episodes of a job whose worker hangs for `config.watchdog_s` or dies become errors."""
        left = JobQueue(jobs, config.learns)
        first_task = jobs[0][0] if jobs else ""
        workers = [WorkerProcess(config, first_task) for _ in range(min(config.workers, len(jobs)))]
        try:
            while (left or any(worker.job for worker in workers)) and not stopped():
                for worker in workers:
                    if worker.ready and worker.job is None and left:
                        worker.give(left.take(worker.task, {w.task for w in workers}))
                wait([worker.connection for worker in workers], _POLL_S)
                for i, worker in enumerate(workers):
                    records = worker.hear()
                    if records:
                        yield records
                    if worker.lost:
                        worker.stop()
                        workers[i] = WorkerProcess(config, first_task)
        finally:
            for worker in workers:
                worker.stop()


ENGINE = ProcessEngine()
