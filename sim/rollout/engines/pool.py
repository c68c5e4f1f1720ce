"""Work that is no episode of a run, spread over processes: series of a bench, whole streams, arms."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from vlamem.sim.rollout.engines.worker import THREADS


def spread[Part, Result](
    work: Callable[[Part], Result],
    parts: Sequence[Part],
    workers: int,
    begin: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
    fresh: bool = False,
) -> Iterator[tuple[Part, Result]]:
    """Each part with what `work` makes of it, in the order in which they are done, in new processes.

    Every process computes with one thread, so that results do not depend on how many there are.

    Args:
        work: a function at the top of a module.
        parts: of the work, which can be sent to a process.
        workers: processes at most; they begin with `begin(*given)`.
        fresh: a process of its own for each part.

    Raises what `work` raises, BrokenProcessPool when a process dies.
    """
    if not parts:
        return
    os.environ.update(THREADS)
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(parts))
    with ProcessPoolExecutor(count, context, begin, given, max_tasks_per_child=1 if fresh else None) as pool:
        waiting = {pool.submit(work, part): part for part in parts}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
