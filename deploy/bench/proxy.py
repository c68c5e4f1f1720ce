"""A bad network between robot and server: it stalls, and duplicates, reorders and truncates what the robot sends."""

import asyncio
import contextlib
import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import WebSocketException


@dataclass
class Badness:
    """How bad it is now; may be changed at any time.

    Attributes:
        stalled: nothing passes.
        duplicate, reorder, truncate: chance of each for a frame, 0 to 1.
    """

    stalled: bool = False
    duplicate: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0


class Proxy:
    """Runs in a thread; `counts` says what it did."""

    def __init__(self, upstream: str, rng: np.random.Generator) -> None:
        self._upstream, self._rng = upstream, rng
        self.badness = Badness()
        self.counts: Counter[str] = Counter()
        self.port = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy", daemon=True)

    def start(self) -> int:
        """Gives the port."""
        self._thread.start()
        self._ready.wait(30)
        return self.port

    def close(self) -> None:
        """Ends it."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(
            self._relay, "127.0.0.1", 0, compression=None, max_size=8 << 20, ping_interval=None, close_timeout=0.2
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    async def _relay(self, robot: ServerConnection) -> None:
        try:
            server = await connect(
                self._upstream, compression=None, max_size=8 << 20, ping_interval=None, proxy=None, close_timeout=0.2
            )
        except (OSError, WebSocketException):
            robot.transport.abort()  # the server is down: so is the line
            return
        tasks = [asyncio.create_task(self._there(robot, server)), asyncio.create_task(self._back(server, robot))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.transport.abort()
        robot.transport.abort()

    async def _pass(self) -> None:
        while self.badness.stalled:
            await asyncio.sleep(0.005)

    async def _there(self, robot: ServerConnection, server: ClientConnection) -> None:
        held: bytes | None = None
        with contextlib.suppress(WebSocketException):
            async for raw in robot:
                data = raw if isinstance(raw, bytes) else raw.encode()
                await self._pass()
                bad, draw = self.badness, self._rng.random(3)
                if draw[2] < bad.truncate:
                    self.counts["truncated"] += 1
                    data = data[: int(len(data) * self._rng.random())]
                if held is None and draw[1] < bad.reorder:
                    self.counts["reordered"] += 1
                    held = data
                    continue
                await server.send(data)
                if held is not None:
                    await server.send(held)
                    held = None
                if draw[0] < bad.duplicate:
                    self.counts["duplicated"] += 1
                    await server.send(data)

    async def _back(self, server: ClientConnection, robot: ServerConnection) -> None:
        with contextlib.suppress(WebSocketException):
            async for raw in server:
                await self._pass()
                await robot.send(raw)
