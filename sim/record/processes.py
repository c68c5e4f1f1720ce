"""Processes that record side by side, and their reports."""

import multiprocessing
import queue
from collections.abc import Callable
from typing import Any

_END = "end"
"""The last message of a process; before it come True or False for every episode, as it succeeded."""


class RecordingError(RuntimeError):
    """A recording process died; what it recorded before stays, and the same command goes on from there."""


def record_in_processes[What](
    work: Callable[[What, int, Any], None], what: What, workers: int, progress: Callable[[int, int], None]
) -> None:
    """Runs `work(what, index, messages)` in that many new processes; `progress(recorded, unsuccessful)` at every word.

    Raises ValueError for no workers, RecordingError when a process dies; the others are stopped then.
    """
    if workers < 1:
        raise ValueError(f"workers {workers} is below 1")
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    processes = [context.Process(target=_body, args=(work, what, i, messages), daemon=True) for i in range(workers)]
    for process in processes:
        process.start()
    running, recorded, unsuccessful = workers, 0, 0
    try:
        while running:
            try:
                message = messages.get(timeout=5.0)
            except queue.Empty:
                dead = [p for p in processes if p.exitcode not in (None, 0)]
                if dead:
                    raise RecordingError(
                        f"a recording process stopped with exit status {dead[0].exitcode}: what was recorded is kept, "
                        "run the same command again to go on"
                    ) from None
                continue
            if message == _END:
                running -= 1
                continue
            recorded += int(message)
            unsuccessful += int(not message)
            progress(recorded, unsuccessful)
    finally:
        for process in processes:
            if running:
                process.terminate()
            process.join()


def _body(work: Callable[[Any, int, Any], None], what: Any, index: int, messages: Any) -> None:
    work(what, index, messages)
    messages.put(_END)
