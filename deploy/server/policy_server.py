"""`PolicyServer`: a policy with memory behind a websocket, in openpi's protocol and vlamem's extension of it."""

import asyncio
import contextlib
import http
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin

import vlamem
from vlamem.deploy.server.admission import capped
from vlamem.deploy.server.batcher import Batcher, ServedPolicy
from vlamem.deploy.server.handler import MessageHandler
from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.metrics import CONTENT_TYPE, Metrics
from vlamem.deploy.server.observations import ObservationReader
from vlamem.deploy.server.options import ServeOptions
from vlamem.deploy.server.rate_limit import RateLimit
from vlamem.deploy.server.session_store import SessionStore
from vlamem.deploy.server.sessions import SessionTable
from vlamem.deploy.server.state import ServerState
from vlamem.deploy.server.tick_traces import TickTraces
from vlamem.deploy.server.traces import TraceStore
from vlamem.deploy.server.vla_eval import PATH as VLA_EVAL_PATH
from vlamem.deploy.server.vla_eval import VlaEvalHandler
from vlamem.deploy.wire import pack

log = logging.getLogger("vlamem.serve")
PROTOCOL = 1
_SWEEP_S = 5.0
_BESIDE = 32
"""Connections beside those of clients: handshakes, and who asks for figures."""


class PolicyServer:
    """Serves one policy with memory to many robots.

    Args:
        policy: with as many rows as there may be sessions.
        options: how it listens.
        store: where sessions are kept over a restart; None keeps none.
        labels, traces: where labels and the traces of episodes go; None refuses labels.
        about: names and hashes of the served files, for clients.
        encode: the frozen policy's `encode`, where traces need keys that no memory computes.
        used, offset: segments of success memory behind a chunk, and what it adds to it; see Batcher.
        ticks: where traces of every control step go; None writes none.

    Raises ValueError when the policy has fewer rows than sessions are allowed.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        options: ServeOptions | None = None,
        store: SessionStore | None = None,
        labels: LabelQueue | None = None,
        traces: TraceStore | None = None,
        about: Mapping[str, str] | None = None,
        encode: Any = None,
        used: Any = None,
        ticks: TickTraces | None = None,
        offset: Any = lambda: None,
    ) -> None:
        self.options = options or ServeOptions()
        self._keys = self.options.known_keys
        table = SessionTable(self.options.sessions, policy.rows, self._keys.driving, self._key_of)
        active, traced = (lambda: max(1, table.connected)), ticks is not None
        batcher = Batcher(policy, self.options.wait_s, policy.rows, active, encode, used, traced, offset)
        self.metrics = Metrics(lambda: len(table), lambda: table.connected, lambda: batcher.oldest_s)
        reader = ObservationReader(policy.spec, self.options.rename)
        parts = store, labels, traces, self.options, ticks
        self.state = ServerState(policy, table, batcher, reader, self.metrics, *parts)
        self._metadata = {
            "vlamem": {
                "type": "metadata",
                "protocol": PROTOCOL,
                "version": vlamem.__version__,
                "fingerprint": policy.spec.fingerprint,
                "spec": json.loads(json.dumps(asdict(policy.spec))),
                "history": policy.history,
                "frames": "every control step" if policy.history > 1 or policy.ticks else "plans",
                "limits": {
                    "message_bytes": self.options.wire.bytes,
                    "rate_hz": self.options.sessions.rate_hz,
                    "sessions": self.options.sessions.count,
                    "idle_s": self.options.sessions.idle_s,
                },
                "serves": dict(about or {}),
            }
        }
        if labels is not None:
            self.metrics.watch("vlamem_labels_pending", "Labels that wait for their turn.", lambda: len(labels.pending))
            self.metrics.watch("vlamem_labels_failing", "Labels that are tried again.", lambda: len(labels.failing))
            self.metrics.watch("vlamem_labels_dead", "Labels that were given up.", lambda: labels.dead)
            self.metrics.watch("vlamem_labels_damaged", "Lines that could not be read.", lambda: labels.damaged)
            self.metrics.watch("vlamem_labels_quarantined", "Labels to review.", lambda: len(labels.quarantined))
        if traces is not None:
            self.metrics.watch("vlamem_trace_bytes_pinned", "That labels wait for.", lambda: traces.pinned_bytes)
        if ticks is not None:
            self.metrics.watch("vlamem_traces_failed", "Traces that could not be written.", lambda: ticks.failed)
        if store is not None:
            self.metrics.watch("vlamem_disk_free_bytes", "Of the state folder.", lambda: self.state.free_bytes)
        self.follow: Callable[[], object] = lambda: None
        """Called off the loop now and then: takes over what other processes have stored in a memory that is served."""
        self._connections = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listens while the context is open; gives the port. Raises OSError when it is taken."""
        self.state.batcher.start()
        sweeper = asyncio.create_task(self._sweep())
        try:
            async with serve(
                self._handle,
                self.options.host,
                self.options.port,
                ssl=self._tls(),
                compression=None,
                max_size=self.options.wire.bytes,
                max_queue=2,
                open_timeout=self.options.handshake_s,
                create_connection=capped(
                    self.options.connections + _BESIDE, lambda: self.metrics.closed.labels("half open").inc()
                ),
                origins=[None, *map(Origin, self.options.origins)],  # browsers send one: no page drives a robot unasked
                process_request=self._http,
                ping_interval=20,
                ping_timeout=20,
                close_timeout=2,
                logger=logging.getLogger("vlamem.serve.websockets"),
            ) as server:
                yield next(iter(server.sockets)).getsockname()[1]
        finally:
            sweeper.cancel()
            await asyncio.gather(sweeper, return_exceptions=True)
            await self.state.close()

    def _key_of(self, ws: ServerConnection) -> int | None:
        """Which key a client has shown; None without keys."""
        return None if ws.request is None else self._keys.number_of(ws.request.headers.get("Authorization"))

    def _tls(self) -> ssl.SSLContext | None:
        if self.options.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.options.certificate, self.options.private_key)
        return context

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self.options.origins:
            return connection.respond(
                http.HTTPStatus.FORBIDDEN,
                f"origin {origin[:200]} is not allowed: start the server with --allow-origin {origin[:200]}, or send "
                "no Origin header\n",
            )
        role = self._keys.role_of(request.headers.get("Authorization"))
        if role is None:
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "an API key is needed: Authorization: Api-Key KEY\n"
            )
        if path == "/readyz":
            problems = self.state.problems()
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if problems else http.HTTPStatus.OK
            return connection.respond(status, "\n".join(problems or ["OK"]) + "\n")
        if path == "/metrics":
            body = self.metrics.text()
            headers = Headers({"Content-Type": CONTENT_TYPE, "Content-Length": str(len(body))})
            return Response(200, "OK", headers, body)
        if role == "reader":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "this key is a reader's: it gets /metrics alone\n")
        if self._connections >= self.options.connections:
            self.metrics.closed.labels("full").inc()
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def _handle(self, ws: ServerConnection) -> None:
        limits, self._connections = self.options.sessions, self._connections + 1
        role = self._keys.role_of(ws.request.headers.get("Authorization") if ws.request is not None else None)
        handler = MessageHandler(self.state, ws, role or "robot")
        vla_eval = VlaEvalHandler(handler) if _path(ws) == VLA_EVAL_PATH else None
        rate = RateLimit(limits.rate_hz, limits.burst, time.monotonic())
        try:
            if vla_eval is None:
                await self._send(ws, pack(self._metadata))
            async for raw in ws:
                if pause := rate.take(time.monotonic()):
                    await _closed_or_after(ws, pause)
                answer = await (handler if vla_eval is None else vla_eval).answer(raw)
                if answer is not None:
                    await self._send(ws, answer)
                if handler.errors > limits.errors:
                    self.metrics.closed.labels("errors").inc()
                    await ws.close(1008, "too many messages were wrong")
        except ConnectionClosed as ending:
            log.debug("%s disconnected (%s): its session is kept for it", ws.remote_address, ending)
        except TimeoutError:
            self.metrics.closed.labels("not reading").inc()
            log.warning("%s does not read: disconnected", ws.remote_address)
            ws.transport.abort()
        finally:
            self._connections -= 1
            handler.disconnected()

    async def _send(self, ws: ServerConnection, data: bytes | str) -> None:
        async with asyncio.timeout(self.options.sessions.send_s):
            await ws.send(data)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(_SWEEP_S, self.options.sessions.idle_s))
            self.state.sweep(time.monotonic())
            try:
                await asyncio.to_thread(self.follow)
            except Exception:  # a busy or damaged file: what is in memory is served on
                log.exception("what others have stored could not be taken over")


async def _closed_or_after(ws: ServerConnection, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ws.wait_closed()


def _path(ws: ServerConnection) -> str:
    return ws.request.path.partition("?")[0].rstrip("/") if ws.request is not None else ""
