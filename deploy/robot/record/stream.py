"""Messages between a controller and its recording process, over a connection of two sockets of one machine."""

import socket
from typing import Any

from vlamem.deploy.wire import WireLimits, pack, unpack

_WIRE = WireLimits(bytes=256 << 20)
"""Of a frame: pictures of several cameras are larger than what a network should carry."""


def send(connection: socket.socket, body: Any) -> None:
    """Sends a message; waits while the other end takes none. Raises OSError when that has gone, WireError as `pack`."""
    data = pack(body)
    connection.sendall(len(data).to_bytes(8, "little"))
    connection.sendall(data)


def receive(connection: socket.socket) -> Any:
    """The next message; None when the other end has gone, also in the middle of one. Raises WireError."""
    size = _exactly(connection, 8)
    data = None if size is None else _exactly(connection, int.from_bytes(size, "little"))
    return None if data is None else unpack(data, _WIRE)


def _exactly(connection: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        try:
            got = connection.recv_into(view[at:])
        except ConnectionResetError:
            return None
        if not got:
            return None
        at += got
    return data
