"""A worker process: plays the episodes of its jobs, those of a message side by side, and reports them; in JSON."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from vlamem.sim.results.episodes import DiskFullError
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.episode import Player

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment of a worker: one thread of arithmetic, so that sums come out in one order on any number of cores."""


def heartbeat(clock: "Synchronized[float]", parent: int) -> Callable[[], None]:
    """A function that notes that the worker moves, and ends it when the process `parent`, which gave it its job, is
    gone."""

    def beat() -> None:
        clock.value = time.monotonic()
        if os.getppid() != parent:  # killed: nobody takes the records, and the episode is played again elsewhere
            os._exit(1)

    return beat


def serve(
    connection: Connection, clock: "Synchronized[float]", config: RolloutConfig, first_task: str, parent: int
) -> None:
    """Body of the process. Sends "ready", then the records of each [task, episodes] received, until the other side is
    closed.

    Sends "refused" with one line when policy and environment cannot work together, "missing" with
    the name of a module that is not installed, "disk" when the disk is full.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides

    def send(kind: str, body: Any) -> None:
        connection.send_bytes(json.dumps({"kind": kind, "body": body}).encode())

    beat = heartbeat(clock, parent)
    beat()
    try:
        player = Player(config, beat)
        player.check(first_task)
    except ModuleNotFoundError as error:
        send("missing", error.name)
        return
    except (ValueError, TypeError, OSError) as error:
        send("refused", str(error))
        return
    try:
        send("ready", os.getpid())
        while True:
            task, episodes = json.loads(connection.recv_bytes())
            beat()
            try:
                records = player.play_together(task, episodes)
            except DiskFullError as error:
                send("disk", str(error))
                return
            except (ValueError, TypeError) as error:
                send("refused", str(error))
                return
            send("done", [asdict(record) for record in records])
    except (EOFError, BrokenPipeError):  # the other side is gone, or has no more work
        return
    finally:
        player.close()
