"""The robot's line to its server: a thread that keeps a session alive, so that the control loop never waits for it.

A connection that is lost is made again for as long as it takes. What is sent over it, and sent again, and what comes
back, is in the outbox.
"""

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.messages import Frame, Reply
from vlamem.deploy.robot.outbox import LinkError, Outbox
from vlamem.deploy.wire import pack, unpack

_SAVE_AGAIN_S = 5.0
"""After it the token and the labels are written again to a disk that took nothing."""


@dataclass(frozen=True)
class LinkOptions:
    """How the server is reached.

    Attributes:
        server: ws:// or wss:// address.
        session: name of the session; without `state` something is drawn behind it, since no one can resume it.
        state: folder for the session's token and for labels; None keeps nothing over a restart.
        api_key: shown to the server, or None.
        authority: PEM file of the certificate authority, where the system's do not do.
        reply_s: a server that has not answered a frame for this long is left and looked for again. A greeting is given
            a quarter of it, and twice as long after each that stayed without an answer, up to the whole: one that the
            network lost costs a robot that holds still as little as it can.
        backlog: frames that are kept while there is no server; beyond it the oldest are lost, and counted.
        window: frames that may be under way at once.

    Raises ValueError for an address of another kind.
    """

    server: str
    session: str
    state: Path | None = None
    api_key: str | None = None
    authority: Path | None = None
    reply_s: float = 2.0
    backlog: int = 400
    window: int = 16

    def __post_init__(self) -> None:
        scheme, sign, rest = self.server.partition("://")
        if scheme not in ("ws", "wss") or not sign or not rest:
            raise ValueError(f"server '{self.server}': expected ws://HOST:PORT, or wss://HOST:PORT with TLS")


@dataclass(frozen=True)
class JoinedSession:
    """What the server said when it was reached first: its metadata, and where the session is.

    Attributes:
        metadata: version, limits, the policy's spec.
        episode: of the session, 0 before its first.
        step: last step of it that the memory has obs, -1 before the first.
        restored: whether the session was there already.
        ended: whether that episode is over, as the server or this robot knows.
    """

    metadata: dict[str, Any]
    episode: int
    step: int
    restored: bool
    ended: bool = False

    @property
    def unfinished(self) -> bool:
        """Whether this process finds an episode that was interrupted, with frames in its memory."""
        return self.restored and self.step >= 0 and not self.ended


class _ConnectionLost(Exception):  # noqa: N818  # it is the usual end of a connection, not an error
    """The connection is of no more use."""


class Link:
    """See the module. The methods from `begin` to `label` are for the control thread and never wait for a server."""

    def __init__(self, options: LinkOptions, events: EventLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.options, self._events = options, events
        self._outbox = Outbox(options.session, options.state, options.backlog, options.window, events, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._unsaved: asyncio.Event | None = None
        self._closing = False
        self._joined = threading.Event()
        self._reached = False
        self._handshake_s = options.reply_s / 4
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self.joined: JoinedSession | None = None
        self.connected = False
        self.failure: str | None = None
        """Why the link has ended for good; None while it lives."""

    def start(self, timeout_s: float = 30.0) -> JoinedSession:
        """Reaches the server for the first time. Raises LinkError when it cannot be reached or does not want us."""
        self._thread.start()
        if not self._joined.wait(timeout_s):
            why = self._trouble or "it does not answer"
            self.close()
            raise LinkError(f"no server at {self.options.server} within {timeout_s:g} s: {why}")
        if self.failure is not None or self.joined is None:
            self.close()
            raise LinkError(f"{self.options.server}: {self.failure}")
        return self.joined

    def close(self) -> None:
        """Ends the connection; the session stays at the server for a while."""
        self._closing = True
        self._notify()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    def begin(self, episode: int) -> None:
        """A new episode: what comes back for the one before is forgotten; what was not sent of it still goes out."""
        self._outbox.begin(episode)
        self._notify()

    def end(self, episode: int) -> None:
        """An episode has ended: its labels may be carried out, and no later process goes on with it."""
        self._outbox.end(episode)
        self._notify()

    def send(self, frame: Frame) -> None:
        """One control step's frame."""
        self._outbox.add(frame)
        self._notify()

    def poll(self) -> list[Reply]:
        """What has come back since the last call."""
        return self._outbox.poll()

    def label(self, episode: int, outcome: Literal["success", "failure"], source: str = "operator") -> str:
        """Labels an episode; the label's id appears in `acknowledged` when the server has it on disk.

        Waits for the robot's own disk, and keeps no one else waiting meanwhile. Raises OSError when it is full.
        """
        name = self._outbox.label(episode, outcome, source)
        self._notify()
        return name

    @property
    def acknowledged(self) -> list[str]:
        """Labels that the server has on disk."""
        return self._outbox.acknowledged

    @property
    def unacknowledged(self) -> int:
        """Labels that the server has not confirmed."""
        return self._outbox.unacknowledged

    @property
    def trouble(self) -> str | None:
        """Why there is no server, or what it refuses, in a line for the operator; None when there is nothing."""
        return self.failure or self._trouble or self._outbox.trouble

    @property
    def drained(self) -> bool:
        """Whether the server has confirmed every frame and end, and confirmed or refused every label."""
        return self._outbox.drained

    @property
    def waiting(self) -> int:
        """Frames that the server has not confirmed."""
        return self._outbox.waiting

    # The thread -------------------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        loop, wake, unsaved = self._loop, self._wake, self._unsaved
        if loop is not None and wake is not None and unsaved is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)
                if self._outbox.unsaved:
                    loop.call_soon_threadsafe(unsaved.set)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._wake, self._unsaved = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        saver = asyncio.create_task(self._save_changes(self._unsaved))
        try:
            await self._reconnect()
        finally:
            saver.cancel()
            await asyncio.gather(saver, return_exceptions=True)
            if self._outbox.unsaved:
                await self._save()

    async def _save_changes(self, unsaved: asyncio.Event) -> None:
        """Beside the frames: a slow disk keeps none of them waiting."""
        while True:
            await unsaved.wait()
            unsaved.clear()
            if not await self._save():
                await asyncio.sleep(_SAVE_AGAIN_S)

    async def _save(self) -> bool:
        try:
            await asyncio.to_thread(self._outbox.save)
        except OSError as error:
            self._events.note("not_saved", why=str(error))
            return False
        return True

    async def _reconnect(self) -> None:
        assert self._wake is not None
        pause = 0.05
        while not self._closing:
            try:
                await self._serve_connection()
                pause = 0.05
            except LinkError as error:
                self.failure = str(error)
                self._events.note("link_ended", why=self.failure)
                self._joined.set()
                return
            except Exception as error:  # whatever a server says or a network does, the robot looks for it again
                why = f"{type(error).__name__}: {error}"
                if self._reached:
                    pause = 0.05
                    self._events.note("server_lost", why=why)
                elif why != self._trouble:
                    self._events.note("no_server", why=why)
                self._trouble = why
            with contextlib.suppress(TimeoutError):
                self._wake.clear()
                await asyncio.wait_for(self._until_closing(), pause)
            pause = min(0.4, pause * 1.6)

    async def _until_closing(self) -> None:
        while not self._closing:
            await asyncio.sleep(0.02)

    async def _serve_connection(self) -> None:
        """One connection, until it is lost."""
        options, self._reached = self.options, False
        headers = {"Authorization": f"Api-Key {options.api_key}"} if options.api_key else None
        context = None
        if options.server.startswith("wss://"):
            context = ssl.create_default_context(cafile=options.authority)
        try:
            ws = await connect(
                options.server,
                compression=None,
                additional_headers=headers,
                ssl=context,
                open_timeout=2,
                close_timeout=0.5,
                max_size=8 << 20,
                ping_interval=5,
                ping_timeout=10,
                proxy=None,
            )
        except InvalidHandshake as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 401 and self.joined is None:
                known = "wants an API key" if options.api_key is None else "has another API key than the one given"
                raise LinkError(f"the server {known}: give the file of its key, --api-key-file") from error
            raise
        try:
            restored = await self._handshake(ws)
            self.connected = self._reached = True
            self._trouble = None
            self._events.note("connected", restored=restored)
            reader = asyncio.create_task(self._read(ws))
            writer = asyncio.create_task(self._write(ws))
            done, rest = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            for task in done:
                task.result()
        finally:
            self.connected = False
            if self._closing:
                await ws.close()
            else:
                ws.transport.abort()

    async def _handshake(self, ws: ClientConnection) -> bool:
        """`_join`, with the patience that earlier tries have left."""
        try:
            restored = await self._join(ws)
        except TimeoutError:
            self._handshake_s = min(self.options.reply_s, 2 * self._handshake_s)
            raise
        self._handshake_s = self.options.reply_s / 4
        return restored

    async def _request(self, ws: ClientConnection, body: dict[str, Any]) -> dict[str, Any]:
        await ws.send(pack({"vlamem": body}))
        return await self._receive_head(ws)

    async def _receive_head(self, ws: ClientConnection) -> dict[str, Any]:
        async with asyncio.timeout(self._handshake_s):
            message = _message(await ws.recv())
        head = message.get("vlamem") if isinstance(message, dict) else None
        if not isinstance(head, dict):
            raise LinkError("this server does not speak vlamem's protocol: is it 'vlamem serve'?")
        return head

    async def _join(self, ws: ClientConnection) -> bool:
        """Says hello; whether the session was there already."""
        metadata = await self._receive_head(ws)
        if metadata.get("type") != "metadata" or metadata.get("protocol") != 1:
            raise LinkError(f"the server speaks protocol {metadata.get('protocol')!r}, this robot speaks 1: update one")
        if self.joined is not None and metadata["fingerprint"] != self.joined.metadata["fingerprint"]:
            raise LinkError("the server has another policy now: stop, and start the robot again")
        answer = await self._request(ws, self._outbox.hello())
        if answer["type"] == "error" and answer["code"] == "state" and self._outbox.token:
            raise LinkError(f"{answer['message']}: another --state of the robot does so (error {answer['id']})")
        if answer["type"] == "error" and answer["code"] in ("unknown", "taken") and self._outbox.token:
            self._events.note("session_lost", why=answer["message"])
            answer = await self._request(ws, self._outbox.hello(fresh=True))
        if answer["type"] == "error":
            if self.joined is None and answer["code"] in ("taken", "state", "message"):
                raise LinkError(f"{answer['message']} (error {answer['id']})")
            raise _ConnectionLost(answer["message"])
        restored = bool(answer["restored"])
        self._outbox.joined(answer, first=self.joined is None)
        await self._save()
        if self.joined is None:
            ended = 0 < answer["episode"] <= self._outbox.ended
            self.joined = JoinedSession(metadata, answer["episode"], answer["step"], restored, ended)
            self._joined.set()
        return restored

    async def _write(self, ws: ClientConnection) -> None:
        assert self._wake is not None
        while not self._closing:
            self._wake.clear()
            while (data := self._outbox.next()) is not None:
                await ws.send(data)
            if self._outbox.overdue(self.options.reply_s):  # looked for at every frame: a loop that runs sleeps never
                raise _ConnectionLost("the server does not answer")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.options.reply_s / 4)

    async def _read(self, ws: ClientConnection) -> None:
        async for raw in ws:
            message = _message(raw)
            head = message.get("vlamem") if isinstance(message, dict) else None
            if not isinstance(head, dict):
                raise _ConnectionLost(f"the server said {str(message)[:200]}")
            try:
                self._handle(head, message)
            except (KeyError, TypeError, ValueError) as error:
                raise _ConnectionLost(
                    f"an answer makes no sense ({type(error).__name__}: {error}): {head}"[:300]
                ) from error
            self._notify()
        raise _ConnectionLost("the server closed the connection")

    def _handle(self, head: dict[str, Any], message: dict[str, Any]) -> None:
        kind = head.get("type")
        if kind in ("chunk", "tick"):
            self._outbox.confirm(head, message.get("actions"))
        elif kind == "episode":
            self._outbox.started(head["episode"])
        elif kind == "ended":
            self._outbox.confirm_end(head["episode"])
        elif kind == "labelled":
            self._outbox.acknowledge(head["label"])
        elif kind == "error":
            self._refused(head)

    def _refused(self, head: dict[str, Any]) -> None:
        self._events.note("refused", code=head.get("code"), id=head.get("id"), why=head.get("message"))
        code, seq, why = str(head.get("code")), head.get("seq"), str(head.get("message"))
        if code in ("taken", "full", "state") or (code == "episode" and isinstance(seq, int)):
            raise _ConnectionLost(why)
        if not isinstance(seq, int | str):
            raise _ConnectionLost(f"a message arrived damaged: {why}")
        self._outbox.refuse(seq, code, why)


def _message(raw: bytes | str) -> Any:
    if isinstance(raw, str):
        raise _ConnectionLost(f"the server said {raw[:200]}")
    return unpack(raw)
