"""The operator's panel: keys in the terminal and a small HTTP page on this machine, for stop, go and labels."""

import contextlib
import json
import select
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEYS = "space: stop   g: go   s: success   f: failure   q: quit"


class Panel:
    """Passes the operator's word on; every call comes from a thread of the panel, never from the control loop.

    Args:
        stop, go: the controller's.
        label: takes "success" or "failure" and returns the label's id.
        status: what the page shows, as JSON values.
        quit_: ends the run.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        go: Callable[[], None],
        label: Callable[[str], str],
        status: Callable[[], dict[str, Any]],
        quit_: Callable[[], None],
    ) -> None:
        self._stop, self._go, self._label, self._status, self._quit = stop, go, label, status, quit_
        self._server: ThreadingHTTPServer | None = None
        self._closing = threading.Event()
        self._keys: threading.Thread | None = None

    def serve(self, port: int) -> int:
        """Answers on 127.0.0.1: GET /, POST /stop, /go, /label with {"outcome": ..}; gives the port.

        A page of another site cannot label or start motion: those two want Content-Type application/json.
        """
        panel = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """The operator's terminal has better things to show."""

            def _say(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self._say(200, panel._status())

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length") or "0"
                raw = self.rfile.read(min(int(length), 4096)) if length.isdigit() else b""
                if self.path == "/stop":
                    panel._stop()
                    return self._say(200, {"said": "stop"})
                if self.headers.get("Content-Type", "").partition(";")[0] != "application/json":
                    return self._say(415, {"error": "send Content-Type: application/json"})
                if self.path == "/go":
                    panel._go()
                    return self._say(200, {"said": "go"})
                if self.path == "/label":
                    try:
                        outcome = json.loads(raw)["outcome"]
                    except (ValueError, KeyError, TypeError):
                        outcome = None
                    if outcome not in ("success", "failure"):
                        return self._say(400, {"error": 'expected {"outcome": "success"} or "failure"'})
                    return self._say(200, {"label": panel._label(outcome)})
                return self._say(404, {"error": "known: POST /stop, /go, /label"})

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, name="panel", daemon=True).start()
        return int(self._server.server_address[1])

    def press(self, key: str) -> None:
        """One key of the terminal."""
        if key == " ":
            self._stop()
        elif key == "g":
            self._go()
        elif key in "sf" and key:
            self._label("success" if key == "s" else "failure")
        elif key == "q":
            self._quit()

    def listen(self) -> None:
        """Reads keys from the terminal in a thread; does nothing where there is none."""
        if sys.stdin.isatty():
            self._keys = threading.Thread(target=self._read, name="keys", daemon=True)
            self._keys.start()

    def close(self) -> None:
        """Ends both."""
        self._closing.set()
        if self._keys is not None:
            self._keys.join(2)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _read(self) -> None:
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            while not self._closing.is_set():
                if select.select([sys.stdin], [], [], 0.1)[0]:
                    self.press(sys.stdin.read(1))
        finally:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
