"""One connection of a robot to its server: the handshake that joins a session, then frames and replies."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.outbox import LinkError, Outbox
from vlamem.deploy.wire import pack, unpack


@dataclass(frozen=True)
class JoinedSession:
    """The server's metadata, and where the session is, when it is joined.

    Attributes:
        metadata: version, limits, the policy's spec.
        episode: of the session, 0 before its first.
        step: last step of it that the memory has, -1 before the first.
        restored: whether the session existed already.
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


class ConnectionLost(Exception):  # noqa: N818  # it is the usual end of a connection, not an error
    """The connection has to be closed; the message says why."""


class Connection:
    """A websocket that joins the outbox's session and then sends its messages.

    Args:
        ws: open.
        outbox: of the session.
        events: gets what the server refuses.
        reply_s: longest wait for the reply to a frame.
        expected: fingerprint of the policy that the first connection found; None on the first.
        save: puts on disk what the outbox is to keep, before it is sent.
    """

    def __init__(
        self,
        ws: ClientConnection,
        outbox: Outbox,
        events: EventLog,
        reply_s: float,
        expected: str | None,
        save: Callable[[], Awaitable[object]],
    ) -> None:
        self._ws, self._outbox, self._events, self._reply_s = ws, outbox, events, reply_s
        self._expected, self._save = expected, save

    async def join(self, timeout_s: float) -> JoinedSession:
        """Joins the session; each reply may take `timeout_s`.

        Raises LinkError when trying again is of no use, ConnectionLost or TimeoutError when it may be.
        """
        first = self._expected is None
        metadata = await self._receive_head(timeout_s)
        if metadata.get("type") != "metadata" or metadata.get("protocol") != 1:
            raise LinkError(f"the server uses protocol {metadata.get('protocol')!r}, this robot uses 1: update one")
        if not first and metadata["fingerprint"] != self._expected:
            raise LinkError("the server has another policy now: stop, and start the robot again")
        answer = await self._hello(timeout_s)
        if answer["type"] == "error" and answer["code"] == "fenced":
            raise LinkError(f"{answer['message']} (error {answer['id']})")
        if answer["type"] == "error" and answer["code"] in ("state", "damaged") and self._outbox.token:
            raise LinkError(f"{answer['message']}: another --state of the robot does so (error {answer['id']})")
        if answer["type"] == "error" and answer["code"] in ("unknown", "taken") and self._outbox.token:
            self._events.note("session_lost", why=answer["message"])
            answer = await self._hello(timeout_s, fresh=True)
        if answer["type"] == "error":
            if first and answer["code"] in ("taken", "state", "damaged", "role", "message"):
                raise LinkError(f"{answer['message']} (error {answer['id']})")
            raise ConnectionLost(answer["message"])
        self._outbox.joined(answer, first=first)
        ended = 0 < answer["episode"] <= self._outbox.ended
        return JoinedSession(metadata, answer["episode"], answer["step"], bool(answer["restored"]), ended)

    async def exchange(self, wake: asyncio.Event, closing: Callable[[], bool], notify: Callable[[], None]) -> None:
        """Sends and receives until `closing`; `wake` is set when there is more to send, `notify` called at replies.

        Raises ConnectionLost, and what the websocket raises.
        """
        reader = asyncio.create_task(self._read(notify))
        writer = asyncio.create_task(self._write(wake, closing))
        done, rest = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in done:
            task.result()

    async def _hello(self, timeout_s: float, fresh: bool = False) -> dict[str, Any]:
        hello = self._outbox.hello(fresh)
        if self._outbox.unsaved:
            await self._save()
        return await self._request(hello | self._outbox.fence, timeout_s)

    async def _request(self, body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        await self._ws.send(pack({"vlamem": body}))
        return await self._receive_head(timeout_s)

    async def _receive_head(self, timeout_s: float) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            message = _message(await self._ws.recv())
        head = message.get("vlamem") if isinstance(message, dict) else None
        if not isinstance(head, dict):
            raise LinkError("this server does not use vlamem's protocol: is it 'vlamem serve'?")
        return head

    async def _write(self, wake: asyncio.Event, closing: Callable[[], bool]) -> None:
        while not closing():
            wake.clear()
            while (data := self._outbox.next()) is not None:
                await self._ws.send(data)
            if self._outbox.overdue(self._reply_s):  # checked at every frame: while a loop runs this never sleeps
                raise ConnectionLost("the server does not answer")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), self._reply_s / 4)

    async def _read(self, notify: Callable[[], None]) -> None:
        async for raw in self._ws:
            message = _message(raw)
            head = message.get("vlamem") if isinstance(message, dict) else None
            if not isinstance(head, dict):
                raise ConnectionLost(f"the server sent {str(message)[:200]}")
            try:
                self._handle(head, message)
            except (KeyError, TypeError, ValueError) as error:
                raise ConnectionLost(
                    f"a reply makes no sense ({type(error).__name__}: {error}): {head}"[:300]
                ) from error
            notify()
        raise ConnectionLost("the server closed the connection")

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
        if code in ("taken", "full", "state", "damaged", "role") or (code == "episode" and isinstance(seq, int)):
            raise ConnectionLost(why)
        if not isinstance(seq, int | str):
            raise ConnectionLost(f"a message arrived damaged: {why}")
        self._outbox.refuse(seq, code, why)


def _message(raw: bytes | str) -> Any:
    if isinstance(raw, str):
        raise ConnectionLost(f"the server sent {raw[:200]}")
    return unpack(raw)
