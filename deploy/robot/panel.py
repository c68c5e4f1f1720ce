"""The operator's panel: keys in the terminal and a small HTTP page on this machine, for stop, go and labels."""

import contextlib
import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from typing import Any

from vlamem.deploy.robot.panel_http import PanelActions, PanelServer

KEYS = "space: stop   g: go   s: success   f: failure   q: quit"
TAKE_KEYS = "t: take the arm over   b: give it back"
"""With a teleoperator."""


class Panel:
    """Passes the operator's commands on; every call comes from a thread of the panel, never from the control loop.

    Args:
        stop, go: the controller's.
        label: takes "success" or "failure" and returns the label's id.
        status: what the page shows, as JSON values.
        quit_: ends the run.
        report: gets a line about each key or request that failed.
        take: whether a person takes the arm over with a teleoperator, or gives it back; None without one.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        go: Callable[[], None],
        label: Callable[[str], str],
        status: Callable[[], dict[str, Any]],
        quit_: Callable[[], None],
        report: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
        take: Callable[[bool], None] | None = None,
    ) -> None:
        self._stop, self._go, self._label, self._status, self._quit = stop, go, label, status, quit_
        self._report, self._take = report, take
        self._server: PanelServer | None = None
        self._closing = threading.Event()
        self._labels: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def serve(self, port: int) -> int:
        """Answers on 127.0.0.1, see PanelServer; gives the port, and `token` is what the operator shows."""
        actions = PanelActions(self._stop, self._go, self._label, self._status, self._report_failure, self._take)
        self._server = PanelServer(port, actions)
        threading.Thread(target=self._server.serve_forever, name="panel", daemon=True).start()
        return int(self._server.server_address[1])

    @property
    def token(self) -> str:
        """That the HTTP panel wants for what moves the arm or labels; "" before it answers."""
        return "" if self._server is None else self._server.token

    def press(self, key: str) -> None:
        """One key of the terminal; what it raises is reported."""
        try:
            if key == " ":
                self._stop()
            elif key == "g":
                self._go()
            elif key in "sf" and key:
                self._label("success" if key == "s" else "failure")
            elif key in "tb" and key and self._take is not None:
                self._take(key == "t")
            elif key == "q":
                self._quit()
        except Exception as error:  # one key's failure is not the next one's
            self._report_failure(f"key '{key}'", error)

    def listen(self) -> None:
        """Reads keys from the terminal in a thread; does nothing where there is none."""
        if sys.stdin.isatty():
            self.read(sys.stdin.fileno())

    def read(self, terminal: int) -> None:
        """Reads keys from a terminal's descriptor in a thread; labels, which wait for a disk, have another."""
        self._threads = [
            threading.Thread(target=self._read, args=(terminal,), name="keys", daemon=True),
            threading.Thread(target=self._work_on_labels, name="labels", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends both."""
        self._closing.set()
        self._labels.put(None)
        for thread in self._threads:
            thread.join(2)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _read(self, terminal: int) -> None:
        import termios
        import tty

        before = termios.tcgetattr(terminal)
        tty.setcbreak(terminal, termios.TCSADRAIN)  # a key that is waiting counts
        try:
            while not self._closing.is_set():
                if select.select([terminal], [], [], 0.1)[0]:
                    keys = os.read(terminal, 64).decode(errors="replace")
                    if not keys:
                        raise OSError("it has closed")
                    self._handle_keys(keys)
        except OSError as error:
            self._report_failure("the terminal, whose keys do nothing from now on,", error)
        finally:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)

    def _handle_keys(self, keys: str) -> None:
        """Handles keys that came at once: stop first, and a go that was pressed before it does not count."""
        stop = keys.rfind(" ")
        if stop >= 0:
            self.press(" ")
        for i, key in enumerate(keys):
            if key in "sf":
                self._labels.put(key)
            elif key != " " and not (key == "g" and i < stop):
                self.press(key)

    def _work_on_labels(self) -> None:
        while (key := self._labels.get()) is not None:
            self.press(key)

    def _report_failure(self, what: str, error: Exception) -> None:
        self._report(f"{what} failed: {type(error).__name__}: {error}")
