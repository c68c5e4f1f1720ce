"""The operator's panel by HTTP, on this machine alone: anyone here may stop the arm, and who has the token may do more.

A page of another site reaches this machine through the operator's browser, also under a name of its own that it lets
point here: the Host must be this machine's, and what moves the arm or labels needs the token. Slow and many clients
take neither the panel's threads for long nor a stop its time.
"""

import hmac
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_TIMEOUT_S = 5.0
_CONNECTIONS = 16
_BODY = 4096


@dataclass(frozen=True)
class PanelActions:
    """What the panel does: stop and go, a label by its outcome, the status as JSON values, a report of what failed, and
    whether a person takes the arm over with a teleoperator (None without one)."""

    stop: Callable[[], None]
    go: Callable[[], None]
    label: Callable[[str], str]
    status: Callable[[], dict[str, Any]]
    failed: Callable[[str, Exception], None]
    take: Callable[[bool], None] | None = None


class PanelServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1: GET /, POST /stop, /go, /label with {"outcome": ..}; where a person may take the arm over,
    POST /take and /give-back.

    Attributes:
        token: that all but /stop need, as "Authorization: Bearer TOKEN".
    """

    daemon_threads = True

    def __init__(self, port: int, actions: PanelActions) -> None:
        self.token = secrets.token_urlsafe(12)
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(("127.0.0.1", port), _handler(actions, self.token))

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a request, while there are not too many."""
        if not self._slots.acquire(blocking=False):
            return self.shutdown_request(request)
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The request in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that has gone or says nothing concerns no one."""


def _handler(actions: PanelActions, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S  # of each read

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the operator's terminal shows the run."""

        def _respond(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, action: Callable[[], dict[str, Any]]) -> None:
            """What an action gives, or why it gives nothing: the controller may stand still."""
            try:
                body = action()
            except Exception as error:
                return self._respond(503, {"error": str(error)})
            return self._respond(200, body)

        def _is_here(self) -> bool:
            """Whether the request names this machine; otherwise it is refused."""
            host = self.headers.get("Host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name in _HOSTS:
                return True
            self._respond(403, {"error": f"Host {host[:80]!r} is not this machine: expected 127.0.0.1 or localhost"})
            return False

        def do_GET(self) -> None:
            if self._is_here():
                self._answer(actions.status)

        def do_POST(self) -> None:
            if self.path == "/stop":  # before anything else: it waits for no body
                actions.stop()
                return self._respond(200, {"said": "stop"})
            if not self._is_here():
                return None
            if self.headers.get("Content-Type", "").partition(";")[0] != "application/json":
                return self._respond(415, {"error": "send Content-Type: application/json"})
            known = ["/go", "/label", *(["/take", "/give-back"] if actions.take is not None else [])]
            if self.path not in known:
                return self._respond(404, {"error": f"known: POST /stop, {', '.join(known)}"})
            scheme, _, shown = self.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), token.encode()):
                return self._respond(401, {"error": "send the token that was printed: Authorization: Bearer TOKEN"})
            if self.path == "/go":
                return self._answer(self._go)
            if self.path != "/label":
                return self._answer(self._take)
            return self._label(self._outcome())

        def _go(self) -> dict[str, Any]:
            actions.go()
            return {"said": "go"}

        def _take(self) -> dict[str, Any]:
            assert actions.take is not None
            actions.take(self.path == "/take")
            return {"said": self.path[1:]}

        def _outcome(self) -> object:
            length = self.headers.get("Content-Length") or "0"
            raw = self.rfile.read(min(int(length), _BODY)) if length.isdecimal() and len(length) < 10 else b""
            try:
                return json.loads(raw)["outcome"]
            except (ValueError, KeyError, TypeError, RecursionError):
                return None

        def _label(self, outcome: object) -> None:
            if outcome not in ("success", "failure"):
                return self._respond(400, {"error": 'expected {"outcome": "success"} or "failure"'})
            try:
                name = actions.label(str(outcome))
            except Exception as error:  # the operator has to know of a full disk
                actions.failed("the label", error)
                return self._respond(500, {"error": f"the label is not kept: {error}"})
            return self._respond(200, {"label": name})

    return Handler
