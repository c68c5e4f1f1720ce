"""How many connections a server holds, counted from their first byte on: before a key, a handshake or a message."""

import asyncio
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State


def capped(most: int, closed: Callable[[], None]) -> type[ServerConnection]:
    """A connection of which a server holds at most `most`; `closed` is called for each that has to go.

    One too many closes the oldest that has not said who it is, be that itself: who connects and says nothing keeps no
    one out, and who drives a robot stays.
    """
    held: dict[ServerConnection, asyncio.BaseTransport] = {}

    class Capped(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            held[self] = transport
            if len(held) > most:
                waiting = (connection for connection in held if connection.protocol.state is State.CONNECTING)
                oldest = next(waiting, self)
                closed()
                gone = held.pop(oldest)
                if isinstance(gone, asyncio.Transport):
                    gone.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            held.pop(self, None)
            super().connection_lost(exc)

    return Capped
