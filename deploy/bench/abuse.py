"""Clients that no one wants: malformed messages, many at once, one that never reads; and a look for leaks meanwhile."""

import asyncio
import contextlib
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from vlamem.core.seeding import stream
from vlamem.deploy.wire import WireError, pack, unpack

TOLERANCE = 2e-3
"""Largest difference between a gate's figure in a batch with others and alone: kernels differ by batch size."""


@dataclass(frozen=True)
class Leaks:
    """Sessions that ran at the same time, against the same frames alone.

    Attributes:
        sessions: compared.
        refused: clients that found no place.
        different: sessions whose gate decided otherwise than alone.
        largest: difference of a gate's or surprise's figure.
    """

    sessions: int
    refused: int
    different: int
    largest: float


def malformed(rng: np.random.Generator, good: bytes) -> bytes:
    """One message that is wrong in some way."""
    kind = int(rng.integers(7))
    if kind == 0:
        return rng.bytes(int(rng.integers(1, 400)))
    if kind == 1:
        return good[: int(rng.integers(1, len(good)))]
    if kind == 2:
        broken = bytearray(good)
        for at in rng.integers(0, min(len(good), 300), 4):
            broken[at] = int(rng.integers(256))
        return bytes(broken)
    if kind == 3:
        return b"\x91" * int(rng.integers(20, 5000))
    if kind == 4:
        return b"\xdd\x7f\xff\xff\xff" + rng.bytes(20)
    if kind == 5:
        head = {"type": ["observe", "label", "hello", "episode_start", "x" * 30][int(rng.integers(5))]}
        return pack({"vlamem": head | {"episode": [-1, "one", 1 << 40, None][int(rng.integers(4))]}})
    return pack({"vlamem": {"type": "observe", "episode": 1, "step": 0}, "images": {"agentview": np.zeros((1, 1, 3))}})


async def _open(uri: str) -> ClientConnection:
    ws = await connect(uri, compression=None, proxy=None, max_size=8 << 20, open_timeout=60)
    await ws.recv()
    return ws


async def send_malformed(uri: str, count: int, good: bytes, seed: int) -> tuple[int, int]:
    """Sends `count` wrong messages; gives how many were answered, and how many ended their connection instead."""
    rng = stream(seed, "malformed")
    answered = ended = sent = 0
    while sent < count:
        ws = await _open(uri)
        try:
            for _ in range(min(40, count - sent)):
                sent += 1
                await ws.send(malformed(rng, good))
                async with asyncio.timeout(60):
                    await ws.recv()
                answered += 1
        except ConnectionClosed:
            ended += 1
        finally:
            ws.transport.abort()
    return answered, ended


def frames(spec: dict[str, Any], client: int, steps: int, seed: int) -> list[dict[str, Any]]:
    """What one client shows: noise of its own, so that every memory becomes another."""
    rng, size = stream(seed, "leaks", client), spec["image_size"]
    return [
        {
            "images": {c: rng.integers(0, 256, (size, size, 3)).astype(np.uint8) for c in spec["cameras"]},
            "proprioception": rng.uniform(-0.3, 0.3, spec["proprioception_size"]).astype(np.float32),
            "instruction": "touch the red cube",
        }
        for _ in range(steps)
    ]


async def _gates_of(uri: str, shown: list[dict[str, Any]]) -> list[tuple[float, float]] | None:
    """Gate and surprise of every frame; None when there is no place."""
    ws = await _open(uri)
    gates = []
    try:
        await ws.send(pack({"vlamem": {"type": "episode_start", "episode": 1}}))
        for step, frame in enumerate([None, *shown], -1):
            if frame is not None:
                await ws.send(pack(frame | {"vlamem": {"type": "observe", "episode": 1, "step": step, "plan": False}}))
            async with asyncio.timeout(120):
                head = unpack(await _bytes(ws))["vlamem"]
            if head["type"] == "error":
                if head["code"] == "full":
                    return None
                raise RuntimeError(f"a proper frame was refused: {head}")
            if frame is not None:
                gates.append((head["gate"], head["surprise"]))
    finally:
        await ws.close()
    return gates


async def _bytes(ws: ClientConnection) -> bytes:
    raw = await ws.recv()
    if isinstance(raw, str):
        raise WireError(raw)
    return raw


async def look_for_leaks(uri: str, spec: dict[str, Any], clients: int, steps: int, seed: int) -> Leaks:
    """`clients` at once, then each of those that found a place alone; a memory that saw another's frame differs."""
    shown = [frames(spec, c, steps, seed) for c in range(clients)]
    together = await asyncio.gather(*(_gates_of(uri, f) for f in shown))
    different, sessions, largest = 0, 0, 0.0
    for mine, f in zip(together, shown, strict=True):
        if mine is None:
            continue
        alone = await _gates_of(uri, f)
        while alone is None:  # the one before has just left
            await asyncio.sleep(0.05)
            alone = await _gates_of(uri, f)
        gap = float(np.abs(np.array(mine) - np.array(alone)).max())
        sessions, largest, different = sessions + 1, max(largest, gap), different + (gap > TOLERANCE)
    return Leaks(sessions, clients - sessions, different, largest)


async def never_read(uri: str, seconds: float, good: bytes) -> bool:
    """Asks and never reads; True when the server ended it within `seconds`."""
    ws = await connect(uri, compression=None, proxy=None, max_queue=1)
    ws.transport.pause_reading()
    try:
        async with asyncio.timeout(seconds):
            while True:
                await ws.send(good)
    except (ConnectionClosed, WebSocketException):
        return True
    except TimeoutError:
        return False
    finally:
        ws.transport.abort()


def healthy(port: int) -> bool:
    """Whether /healthz answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
        return bool(answer.status == 200)
    return False
