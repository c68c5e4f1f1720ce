"""How much longer a robot waits for its replies while others do their loudest."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from websockets.asyncio.client import connect

from vlamem.deploy.wire import pack, unpack

_NEIGHBOURS = 4
_PERIOD_S = 0.1


async def _ask(uri: str, spec: dict[str, Any], count: int) -> list[float]:
    """Time of each reply [ms] to frames of a robot that keeps to its rate."""
    size = spec["image_size"]
    frame = {
        "images": {name: np.zeros((size, size, 3), np.uint8) for name in spec["cameras"]},
        "proprioception": np.zeros(spec["proprioception_size"], np.float32),
        "instruction": "touch the red cube",
    }
    async with connect(uri, compression=None, proxy=None, open_timeout=60) as ws:
        await ws.recv()
        await ws.send(pack({"vlamem": {"type": "episode_start", "episode": 1}}))
        await ws.recv()
        times = []
        for step in range(count):
            head = {"type": "observe", "episode": 1, "step": step, "plan": step % 4 == 0}
            began = time.monotonic()
            await ws.send(pack(frame | {"vlamem": head}))
            await ws.recv()
            times.append(1e3 * (time.monotonic() - began))
            await asyncio.sleep(max(0.0, _PERIOD_S - (time.monotonic() - began)))
        return times


async def _shout(uri: str) -> None:
    """Messages of nearly the largest size, as fast as they are taken; a closed connection is opened again."""
    loud = pack({"vlamem": {"type": "observe"}, "x": np.zeros(7 << 20, np.uint8)})
    while True:
        try:
            async with connect(uri, compression=None, proxy=None, open_timeout=60) as ws:
                await ws.recv()
                while True:
                    await ws.send(loud)
                    await ws.recv()
        except Exception:  # whatever became of it, it comes back
            await asyncio.sleep(0.05)


async def _both(uri: str, count: int) -> tuple[list[float], list[float]]:
    async with connect(uri, compression=None, proxy=None, open_timeout=60) as ws:
        spec = unpack(await ws.recv())["vlamem"]["spec"]  # type: ignore[arg-type]  # it is binary
    await _ask(uri, spec, 5)
    alone = await _ask(uri, spec, count)
    loud = [asyncio.create_task(_shout(uri)) for _ in range(_NEIGHBOURS)]
    try:
        await asyncio.sleep(0.5)
        return alone, await _ask(uri, spec, count)
    finally:
        for task in loud:
            task.cancel()
        await asyncio.gather(*loud, return_exceptions=True)


def beside_neighbours(uri: str, count: int) -> tuple[float, float]:
    """p99 of a robot's replies alone, and beside neighbours [ms]."""
    alone, beside = asyncio.run(_both(uri, count))
    return _p99(alone), _p99(beside)


def _p99(times: Sequence[float]) -> float:
    return float(np.percentile(times, 99))
