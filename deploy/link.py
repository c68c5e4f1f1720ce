"""The robot's line to its server: a thread that keeps a session alive, so that the control loop never waits for it.

Frames are sent in order and kept until the server has seen them; after a lost connection they are sent again, and the
server leaves out those that it knows. What comes back is polled. Labels are on disk here until the server has them on
disk there.
"""

import asyncio
import contextlib
import json
import os
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from vlamem.deploy.events import EventLog
from vlamem.deploy.robot import Seen, Vector
from vlamem.deploy.wire import WireError, pack, unpack


class LinkError(RuntimeError):
    """A server that cannot be used, whatever is tried; the message says why and the mend."""


@dataclass(frozen=True)
class LinkOptions:
    """How the server is reached.

    Attributes:
        server: ws:// or wss:// address.
        session: name of the session; without `state` something is drawn behind it, since no one can resume it.
        state: folder for the session's token and for labels; None keeps nothing over a restart.
        api_key: shown to the server, or None.
        authority: PEM file of the certificate authority, where the system's do not do.
        reply_s: a server that has not answered a frame for this long is left and looked for again.
        backlog: frames that are kept while there is no server; beyond it the oldest are lost, and counted.
        window: frames that may be under way at once.
    """

    server: str
    session: str
    state: Path | None = None
    api_key: str | None = None
    authority: Path | None = None
    reply_s: float = 2.0
    backlog: int = 400
    window: int = 16


@dataclass
class Frame:
    """One control step on its way to memory."""

    episode: int
    step: int
    seen: Seen
    instruction: str
    plan: bool
    executed: Vector | None


@dataclass(frozen=True)
class Reply:
    """What the server said of a frame.

    Attributes:
        kind: "chunk", "tick" (no chunk was asked for) or "refused".
        episode, step: of the frame.
        chunk: [H, A], or None.
        detail: of a refusal.
        arrived: [s on the monotonic clock].
        wrote: whether memory was written.
    """

    kind: Literal["chunk", "tick", "refused"]
    episode: int
    step: int
    chunk: NDArray[np.float32] | None
    detail: str
    arrived: float
    wrote: bool = False


@dataclass(frozen=True)
class Joined:
    """What the server said when it was reached first: its metadata, and where the session is."""

    metadata: dict[str, Any]
    episode: int
    step: int
    restored: bool


class _Lost(Exception):  # noqa: N818  # it is the usual end of a connection, not an error
    """The connection is of no more use."""


class Link:
    """See the module. `begin`, `send`, `label` and `poll` are for the control thread and never wait."""

    def __init__(self, options: LinkOptions, events: EventLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.options, self._events, self._clock = options, events, clock
        self._frames: deque[Frame] = deque()
        self._sent = 0
        self._oldest_sent = 0.0
        self._replies: deque[Reply] = deque()
        self._episode = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._closing = False
        self._joined = threading.Event()
        self._fatal: str | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self.joined: Joined | None = None
        self.connected = False
        self._saved = self._load()
        self._name = options.session if options.state else f"{options.session}-{uuid.uuid4().hex[:8]}"
        self._labels: dict[str, dict[str, Any]] = self._saved.get("labels", {})
        self._labels_sent: set[str] = set()
        self.acknowledged: list[str] = []

    def start(self, timeout_s: float = 30.0) -> Joined:
        """Reaches the server for the first time. Raises LinkError when it cannot be reached or does not want us."""
        self._thread.start()
        if not self._joined.wait(timeout_s):
            why = self._fatal or "it does not answer"
            self.close()
            raise LinkError(f"no server at {self.options.server} within {timeout_s:g} s: {why}")
        if self._fatal is not None or self.joined is None:
            self.close()
            raise LinkError(f"{self.options.server}: {self._fatal}")
        return self.joined

    def close(self) -> None:
        """Ends the connection; the session stays at the server for a while."""
        self._closing = True
        self._poke()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    def begin(self, episode: int) -> None:
        """A new episode: what was not sent of the one before is forgotten, and so is what comes back for it."""
        with self._lock:
            self._episode = episode
            self._frames.clear()
            self._replies.clear()
            self._sent = 0
        self._poke()

    def send(self, frame: Frame) -> None:
        """One control step's frame."""
        with self._lock:
            if len(self._frames) >= self.options.backlog:
                self._frames.popleft()
                self._sent = max(0, self._sent - 1)
                self._events.note("frame_lost", step=frame.step)
            self._frames.append(frame)
        self._poke()

    def poll(self) -> list[Reply]:
        """What has come back since the last call."""
        with self._lock:
            found = list(self._replies)
            self._replies.clear()
        return found

    def label(self, episode: int, outcome: Literal["success", "failure"], source: str = "operator") -> str:
        """Labels an episode; the label's id appears in `acknowledged` when the server has it on disk."""
        name = uuid.uuid4().hex
        with self._lock:
            self._labels[name] = {"label": name, "episode": episode, "outcome": outcome, "source": source}
            self._save()
        self._events.note("label", label=name, outcome=outcome, episode=episode)
        self._poke()
        return name

    @property
    def unacknowledged(self) -> int:
        """Labels that the server has not confirmed."""
        return len(self._labels)

    @property
    def waiting(self) -> int:
        """Frames that the server has not confirmed."""
        return len(self._frames)

    # The thread -------------------------------------------------------------------------------------------------------

    def _poke(self) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        pause = 0.05
        while not self._closing:
            try:
                await self._once()
                pause = 0.05
            except LinkError as error:
                self._fatal = str(error)
                self._joined.set()
                return
            except (OSError, TimeoutError, WebSocketException, WireError, _Lost) as error:
                if self.joined is None:
                    self._fatal = f"{type(error).__name__}: {error}"
                if self.connected:
                    pause = 0.05
                    self._events.note("server_lost", why=f"{type(error).__name__}: {error}")
            self.connected = False
            with contextlib.suppress(TimeoutError):
                self._wake.clear()
                await asyncio.wait_for(self._until_closing(), pause)
            pause = min(0.4, pause * 1.6)

    async def _until_closing(self) -> None:
        while not self._closing:
            await asyncio.sleep(0.02)

    async def _once(self) -> None:
        """One connection, until it is lost."""
        options = self.options
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
                raise LinkError("the server wants an API key: give --api-key-file") from error
            raise
        try:
            await self._join(ws)
            self.connected = True
            self._events.note("connected", restored=self._restored)
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

    async def _ask(self, ws: ClientConnection, body: dict[str, Any]) -> dict[str, Any]:
        await ws.send(pack({"vlamem": body}))
        return await self._head(ws)

    async def _head(self, ws: ClientConnection) -> dict[str, Any]:
        async with asyncio.timeout(self.options.reply_s):
            message = _message(await ws.recv())
        head = message.get("vlamem") if isinstance(message, dict) else None
        if not isinstance(head, dict):
            raise LinkError("this server does not speak vlamem's protocol: is it 'vlamem serve'?")
        return head

    async def _join(self, ws: ClientConnection) -> None:
        metadata = await self._head(ws)
        if metadata.get("type") != "metadata" or metadata.get("protocol") != 1:
            raise LinkError(f"the server speaks protocol {metadata.get('protocol')!r}, this robot speaks 1: update one")
        if self.joined is not None and metadata["fingerprint"] != self.joined.metadata["fingerprint"]:
            raise LinkError("the server has another policy now: stop, and start the robot again")
        token = self._saved.get("token")
        hello = {"type": "hello", "session": self._saved.get("session", self._name)}
        answer = await self._ask(ws, hello | ({"token": token} if token else {}))
        if answer["type"] == "error" and answer["code"] in ("unknown", "state", "taken") and token:
            self._events.note("session_lost", why=answer["message"])
            fresh = f"{self.options.session}-{uuid.uuid4().hex[:8]}"
            answer = await self._ask(ws, {"type": "hello", "session": fresh})
        if answer["type"] == "error":
            if self.joined is None and answer["code"] in ("taken", "state", "message"):
                raise LinkError(f"{answer['message']} (error {answer['id']})")
            raise _Lost(answer["message"])
        self._restored = bool(answer["restored"])
        self._saved["session"] = answer["session"]
        if "token" in answer:
            self._saved["token"] = answer["token"]
        with self._lock:
            self._save()
            if self.joined is None:
                self._episode = answer["episode"]
            self._sent = 0
            self._labels_sent.clear()
            for frame in list(self._frames)[:-1]:
                frame.plan = False  # a chunk of that moment would come too late
        if self.joined is None:
            self.joined = Joined(metadata, answer["episode"], answer["step"], self._restored)
            self._joined.set()
        self._begun = answer["episode"]

    async def _write(self, ws: ClientConnection) -> None:
        assert self._wake is not None
        while not self._closing:
            self._wake.clear()
            while (data := self._next()) is not None:
                await ws.send(data)
            try:
                await asyncio.wait_for(self._wake.wait(), self.options.reply_s / 4)
            except TimeoutError:
                late = self._sent and self._clock() - self._oldest_sent > self.options.reply_s
                if late:
                    raise _Lost("the server does not answer") from None

    def _next(self) -> bytes | None:
        with self._lock:
            if self._begun != self._episode and self._episode:
                self._begun = self._episode
                return pack({"vlamem": {"type": "episode_start", "episode": self._episode}})
            for name, body in self._labels.items():
                if name not in self._labels_sent and body["episode"] <= self._begun:
                    self._labels_sent.add(name)
                    return pack({"vlamem": {"type": "label"} | body})
            if self._sent >= min(len(self._frames), self.options.window):
                return None
            frame = self._frames[self._sent]
            if self._sent == 0:
                self._oldest_sent = self._clock()
            self._sent += 1
        head: dict[str, Any] = {"type": "observe", "episode": frame.episode, "step": frame.step, "plan": frame.plan}
        head["seq"] = frame.episode << 32 | frame.step
        if frame.executed is not None:
            head["executed"] = [float(x) for x in frame.executed]
        body = {"images": dict(frame.seen.images), "proprioception": np.asarray(frame.seen.proprioception, np.float32)}
        return pack({"vlamem": head, "instruction": frame.instruction} | body)

    async def _read(self, ws: ClientConnection) -> None:
        async for raw in ws:
            message = _message(raw)
            head = message.get("vlamem") if isinstance(message, dict) else None
            if not isinstance(head, dict):
                raise _Lost(f"the server said {str(message)[:200]}")
            kind = head.get("type")
            if kind in ("chunk", "tick"):
                self._confirm(head, message.get("actions"))
            elif kind == "labelled":
                with self._lock:
                    if self._labels.pop(head["label"], None) is not None:
                        self.acknowledged.append(head["label"])
                        self._save()
                self._events.note("label_acknowledged", label=head["label"])
            elif kind == "error":
                self._refused(head)
        raise _Lost("the server closed the connection")

    def _confirm(self, head: dict[str, Any], chunk: Any) -> None:
        now = self._clock()
        with self._lock:
            if head["episode"] != self._episode:
                return  # of an episode that is over
            self._forget_until(head["step"], now)
            actions = None if chunk is None else np.asarray(chunk, np.float32)
            kind: Literal["chunk", "tick"] = "tick" if actions is None else "chunk"
            self._replies.append(Reply(kind, head["episode"], head["step"], actions, "", now, bool(head.get("wrote"))))
        self._poke()

    def _refused(self, head: dict[str, Any]) -> None:
        self._events.note("refused", code=head.get("code"), id=head.get("id"), why=head.get("message"))
        if head.get("code") in ("taken", "full", "episode", "state"):
            raise _Lost(str(head.get("message")))
        seq = head.get("seq")
        if not isinstance(seq, int):
            raise _Lost(f"a message arrived damaged: {head.get('message')}")
        step, now = seq & 0xFFFFFFFF, self._clock()
        with self._lock:
            if seq >> 32 != self._episode:
                return
            self._forget_until(step, now)
            self._replies.append(Reply("refused", self._episode, step, None, str(head.get("message")), now))
        self._poke()

    def _forget_until(self, step: int, now: float) -> None:
        while self._frames and self._frames[0].step <= step and self._sent:
            self._frames.popleft()
            self._sent -= 1
        self._oldest_sent = now

    # What outlives the process ----------------------------------------------------------------------------------------

    def _load(self) -> dict[str, Any]:
        if self.options.state is None or not (path := self.options.state / "link.json").exists():
            return {}
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise LinkError(f"{path} is damaged ({error}): remove it to begin a new session") from error
        return saved if isinstance(saved, dict) else {}

    def _save(self) -> None:
        """Called under the lock; what it writes changes with a session or a label, not with a frame."""
        self._saved["labels"] = self._labels
        if self.options.state is None:
            return
        self.options.state.mkdir(parents=True, exist_ok=True)
        path = self.options.state / "link.json"
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it holds a token
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(self._saved, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def _message(raw: bytes | str) -> Any:
    if isinstance(raw, str):
        raise _Lost(f"the server said {raw[:200]}")
    return unpack(raw)
