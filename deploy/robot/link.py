"""The robot's link to its server: a thread that keeps a session alive, so that the control loop never waits for it.

A connection that is lost is opened again for as long as it takes. Messages that are to be sent, or sent again, and
replies are in the outbox.
"""

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from vlamem.deploy.robot.connection import Connection, JoinedSession
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.messages import Frame, Reply
from vlamem.deploy.robot.outbox import LinkError, Outbox
from vlamem.deploy.robot.state_lock import StateLock

_SAVE_AGAIN_S = 5.0
"""After it the token and the labels are written again to a disk that took nothing."""


@dataclass(frozen=True)
class LinkOptions:
    """How the server is reached.

    Attributes:
        server: ws:// or wss:// address.
        session: name of the session; without `state` a random suffix is added, since no one can resume it.
        state: folder for the session's token and for labels; None keeps nothing over a restart.
        api_key: sent to the server, or None.
        authority: PEM file of the certificate authority, where the system's do not suffice.
        reply_s: after so long without a reply to a frame the connection is closed and opened again. A handshake may
            take a quarter of it, and twice as long after each that got no reply, up to the whole: one that the network
            lost costs a waiting robot as little time as possible.
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


class Link:
    """A session at a server; the methods from `begin` to `label` are for the control thread and never wait for it.

    Raises LinkError when another controller has the folder `state`, or it is damaged.
    """

    def __init__(self, options: LinkOptions, events: EventLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.options, self._events = options, events
        self._state_lock = None if options.state is None else StateLock(options.state)
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
        """Reaches the server for the first time. Raises LinkError when it cannot be reached or refuses the session."""
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
        if self._state_lock is not None:
            self._state_lock.release()

    def begin(self, episode: int) -> None:
        """A new episode: replies to the one before are dropped; what was not sent of it is still sent."""
        self._outbox.begin(episode)
        self._notify()

    def end(self, episode: int) -> None:
        """An episode has ended: its labels may be processed, and no later process resumes it."""
        self._outbox.end(episode)
        self._notify()

    def send(self, frame: Frame) -> None:
        """Queues a frame."""
        self._outbox.add(frame)
        self._notify()

    def poll(self) -> list[Reply]:
        """The replies since the last call."""
        return self._outbox.poll()

    def label(self, episode: int, outcome: Literal["success", "failure"], source: str = "operator") -> str:
        """Labels an episode; the label's id appears in `acknowledged` when the server has it on disk.

        Waits for the robot's own disk; no other method waits meanwhile. Raises OSError when it is full.
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
        """Why there is no connection, or what the server refuses, in a line for the operator; None without either."""
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
        """Saves in a thread of its own, so that frames do not wait for a slow disk."""
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
            except Exception as error:  # whatever a server or a network does, the robot connects again
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
        assert self._wake is not None
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
        expected = None if self.joined is None else self.joined.metadata["fingerprint"]
        connection = Connection(ws, self._outbox, self._events, options.reply_s, expected, self._save)
        try:
            joined = await self._join(connection)
            self.connected = self._reached = True
            self._trouble = None
            self._events.note("connected", restored=joined.restored)
            await connection.exchange(self._wake, lambda: self._closing, self._notify)
        finally:
            self.connected = False
            if self._closing:
                await ws.close()
            else:
                ws.transport.abort()

    async def _join(self, connection: Connection) -> JoinedSession:
        """Joins the session, with the patience that earlier tries have left; what it is then is saved."""
        try:
            joined = await connection.join(self._handshake_s)
        except TimeoutError:
            self._handshake_s = min(self.options.reply_s, 2 * self._handshake_s)
            raise
        self._handshake_s = self.options.reply_s / 4
        await self._save()
        if self.joined is None:
            self.joined = joined
            self._joined.set()
        return joined
