"""A thread beside the control loop that brings the arm to rest when the loop does not, and serves the operator's stop.

The loop may hang in a camera, a bus or a disk. The watchdog waits for none of these: it has a deadline of its own. It
is a thread of the controller's process, so that it cannot help where the whole process stands still (SIGSTOP, swap, an
extension that keeps the interpreter's lock): the guard's process does (guard_process). It is no emergency stop:
docs/deploy.md says what an arm needs besides.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

Reason = Literal["late", "stop"]
"""late: the loop made no round; stop: it did not carry out the operator's stop."""


class Watchdog:
    """Calls `rest` when no round was made for `deadline_s`, or a stop was not carried out within `stop_s`.

    It calls it again every `again_s` until the loop is back. All methods may be called from any thread.

    Args:
        rest: brings the arm to rest; called from the watchdog's thread.
        deadline_s: without a round.
        stop_s: from a stop to the round that carries it out.
        again_s: between two calls.
        clock: monotonic [s].
    """

    def __init__(
        self,
        rest: Callable[[Reason], None],
        deadline_s: float,
        stop_s: float,
        again_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest, self._clock = rest, clock
        self._deadline_s, self._stop_s, self._again_s = deadline_s, stop_s, again_s
        self._round_at = self._called_at = -float("inf")
        self._stop_at: float | None = None
        self._stopping = threading.Lock()  # of `_stop_at`, for the loop and the operator
        self._wake, self._ending = threading.Event(), threading.Event()

    def rounded(self, halted: bool, began: float | None = None) -> None:
        """The loop made a round; `halted`: it carried out the operator's stop, unless that came after the round
        `began`, which is now when not given."""
        now = self._clock()
        with self._stopping:
            if halted and self._stop_at is not None and self._stop_at <= (now if began is None else began):
                self._stop_at = None
        self._round_at = now

    def stop(self) -> None:
        """The operator said stop: a round is to carry it out from now on."""
        with self._stopping:
            if self._stop_at is None:  # a key that is held down puts nothing off
                self._stop_at = self._clock()
        self._wake.set()

    def go(self) -> None:
        """The operator took the stop back."""
        with self._stopping:
            self._stop_at = None

    def check(self) -> bool:
        """Calls `rest` if it is time to; whether it did."""
        now, stop_at = self._clock(), self._stop_at
        unserved = stop_at is not None and now - stop_at > self._stop_s
        if not unserved and now - self._round_at <= self._deadline_s:
            return False
        if now - self._called_at < self._again_s:
            return False
        self._called_at = now
        self._rest("stop" if unserved else "late")
        return True

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watches in a thread while the context is open; the first round is due from now on."""
        self._round_at = self._clock()
        self._ending.clear()
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._wake.set()
            thread.join(1)  # a driver that hangs keeps it

    def _watch(self) -> None:
        every_s = min(self._deadline_s, self._stop_s) / 4
        while not self._ending.is_set():
            self._wake.wait(every_s)
            self._wake.clear()
            if not self._ending.is_set():
                self.check()
