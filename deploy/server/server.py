"""`PolicyServer`: a policy with memory behind a websocket, in openpi's protocol and vlamem's extension of it."""

import asyncio
import contextlib
import hmac
import http
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

import vlamem
from vlamem.deploy.server import vla_eval
from vlamem.deploy.server.batcher import Batcher, ServedPolicy
from vlamem.deploy.server.conversation import Conversation
from vlamem.deploy.server.labels import LabelDesk
from vlamem.deploy.server.metrics import CONTENT_TYPE, Metrics
from vlamem.deploy.server.observations import ObservationReader
from vlamem.deploy.server.persistence import SessionStore
from vlamem.deploy.server.sessions import Rate, SessionLimits, SessionTable
from vlamem.deploy.server.state import Desk
from vlamem.deploy.server.traces import Spool
from vlamem.deploy.wire import DEFAULT_LIMITS, WireLimits, pack

log = logging.getLogger("vlamem.serve")
PROTOCOL = 1
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SWEEP_S = 5.0


@dataclass(frozen=True)
class ServeOptions:
    """How a server listens.

    Attributes:
        host, port: where; port 0 takes a free one.
        api_key: that clients must show; required unless host is the machine itself.
        certificate, private_key: PEM files for TLS, both or none.
        sessions: bounds.
        wire: limits of a message.
        wait_s: longest wait of a frame for those of other sessions.
        connections: at a time.
        execute: actions of a chunk that a vla-eval client gets before the next plan.
        rename: names of observation entries, theirs to ours.
        seed: of the policy's noise.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    sessions: SessionLimits = field(default_factory=SessionLimits)
    wire: WireLimits = DEFAULT_LIMITS
    wait_s: float = 0.002
    connections: int = 128
    execute: int = 8
    rename: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.api_key:
            raise ValueError(
                f"host {self.host} is reachable from elsewhere: give --api-key-file, or listen on 127.0.0.1"
            )
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("TLS needs both a certificate and its private key: give --tls-cert and --tls-key")


class PolicyServer:
    """Serves one policy with memory to many robots.

    Args:
        policy: with as many rows as there may be sessions.
        options: how it listens.
        store: where sessions are kept over a restart; None keeps none.
        labels, spool: where labels and episodes go; None refuses labels.
        about: of the served files, told to clients (names and hashes).
        encode: the frozen policy's `encode`, where a spool wants keys that no memory computes.

    Raises ValueError when the policy has fewer rows than sessions are allowed.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        options: ServeOptions | None = None,
        store: SessionStore | None = None,
        labels: LabelDesk | None = None,
        spool: Spool | None = None,
        about: Mapping[str, str] | None = None,
        encode: Any = None,
    ) -> None:
        self.options = options or ServeOptions()
        table = SessionTable(self.options.sessions, policy.rows)
        batcher = Batcher(policy, self.options.wait_s, policy.rows, lambda: max(1, table.connected), encode)
        self.metrics = Metrics(lambda: len(table), lambda: table.connected, lambda: batcher.oldest_s)
        reader = ObservationReader(policy.spec, self.options.rename)
        self.desk = Desk(policy, table, batcher, reader, self.metrics, store, labels, spool, self.options)
        self._metadata = {
            "vlamem": {
                "type": "metadata",
                "protocol": PROTOCOL,
                "version": vlamem.__version__,
                "fingerprint": policy.spec.fingerprint,
                "spec": json.loads(json.dumps(asdict(policy.spec))),
                "limits": {
                    "message_bytes": self.options.wire.bytes,
                    "rate_hz": self.options.sessions.rate_hz,
                    "sessions": self.options.sessions.count,
                    "idle_s": self.options.sessions.idle_s,
                },
                "serves": dict(about or {}),
            }
        }
        self._connections = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listens while the context is open; gives the port. Raises OSError when it is taken."""
        self.desk.batcher.start()
        sweeper = asyncio.create_task(self._sweep())
        try:
            async with serve(
                self._handle,
                self.options.host,
                self.options.port,
                ssl=self._tls(),
                compression=None,
                max_size=self.options.wire.bytes,
                max_queue=4,
                origins=[None],  # a browser sends an origin: no web page may drive a robot
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
            await self.desk.close()

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
        if not self._may_enter(request.headers):
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "an API key is needed: Authorization: Api-Key KEY\n"
            )
        if path == "/metrics":
            body = self.metrics.text()
            headers = Headers({"Content-Type": CONTENT_TYPE, "Content-Length": str(len(body))})
            return Response(200, "OK", headers, body)
        if self._connections >= self.options.connections:
            self.metrics.closed.labels("full").inc()
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    def _may_enter(self, headers: Headers) -> bool:
        key = self.options.api_key
        if not key:
            return True
        scheme, _, shown = (headers.get("Authorization") or "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode(), key.encode())
        return right and scheme.lower() in ("api-key", "bearer")

    async def _handle(self, ws: ServerConnection) -> None:
        limits, self._connections = self.options.sessions, self._connections + 1
        conversation = Conversation(self.desk, ws)
        harness = vla_eval.Harness(conversation) if _path(ws) == vla_eval.PATH else None
        rate = Rate(limits.rate_hz, limits.burst, time.monotonic())
        try:
            if harness is None:
                await self._send(ws, pack(self._metadata))
            async for raw in ws:
                if pause := rate.take(time.monotonic()):
                    await _closed_or_after(ws, pause)
                answer = await (conversation if harness is None else harness).answer(raw)
                if answer is not None:
                    await self._send(ws, answer)
                if conversation.errors > limits.errors:
                    self.metrics.closed.labels("errors").inc()
                    await ws.close(1008, "too many messages were wrong")
        except ConnectionClosed as ending:
            log.debug("%s has gone (%s): its session waits for it to come back", ws.remote_address, ending)
        except TimeoutError:
            self.metrics.closed.labels("not reading").inc()
            log.warning("%s does not read: disconnected", ws.remote_address)
            ws.transport.abort()
        finally:
            self._connections -= 1
            conversation.leave()

    async def _send(self, ws: ServerConnection, data: bytes | str) -> None:
        async with asyncio.timeout(self.options.sessions.send_s):
            await ws.send(data)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(_SWEEP_S, self.options.sessions.idle_s))
            self.desk.sweep(time.monotonic())


async def _closed_or_after(ws: ServerConnection, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ws.wait_closed()


def _path(ws: ServerConnection) -> str:
    return ws.request.path.partition("?")[0].rstrip("/") if ws.request is not None else ""
