"""Signals that end a verb: Ctrl-C, SIGTERM, and a terminal that is closed."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TERMINATION_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Not every system has the last."""


@contextmanager
def on_termination(end: Callable[[int], None]) -> Iterator[None]:
    """Calls `end` with the number of SIGTERM or SIGHUP in place of its default; an ignored one (nohup) stays so."""
    taken = [s for s in TERMINATION_SIGNALS[1:] if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, lambda number, frame: end(number)) for s in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
