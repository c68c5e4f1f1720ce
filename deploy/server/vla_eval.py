"""vla-eval's model-server protocol on the path /vla-eval of a server; memory sees every frame, inside a chunk too.

A message is msgpack {type, payload, seq, timestamp}; arrays carry text marks, images come as PNG or JPEG or raw. Memory
is one session a connection and empty at every episode_start.
"""

import asyncio
import io
import time
from collections import deque
from typing import Any

import numpy as np

import vlamem
from vlamem.core.spec import ActionComponent, PolicySpec
from vlamem.deploy.server.handler import MessageHandler
from vlamem.deploy.server.observations import ObservationError
from vlamem.deploy.wire import WireError, pack, unpack

PATH = "/vla-eval"
PROTOCOL = 1
_FORMATS = {
    ("xyz", "delta"): "delta_xyz",
    ("xyz", "absolute"): "absolute_xyz",
    ("axis_angle", "delta"): "axis_angle",
    ("axis_angle", "absolute"): "axis_angle",
    ("gripper", "absolute"): "binary_close_positive",
}
_NAMES = {"translation": "position"}


class VlaEvalHandler:
    """Answers the messages of one vla-eval client, through the same sessions and batches as every other client."""

    def __init__(self, handler: MessageHandler) -> None:
        self._handler = handler
        self._state = handler.state
        self._queue: deque[np.ndarray[Any, Any]] = deque()

    async def answer(self, raw: bytes | str) -> bytes | None:
        """The reply to one message, None for those that have none."""
        seq = 0
        try:
            if isinstance(raw, str):
                raise WireError("a text message: expected msgpack")
            message = await self._handler.unpack(raw)
            if not isinstance(message, dict) or not isinstance(message.get("payload"), dict):
                raise WireError("expected a map of type, payload, seq and timestamp")
            seq = message.get("seq", 0) if type(message.get("seq")) is int else 0
            kind, payload = message.get("type"), message["payload"]
            if kind == "hello":
                return _message("hello", self._hello(), seq)
            if kind == "episode_start":
                await self._start()
                return None
            if kind == "observation":
                return _message("action", {"actions": await self._act(payload)}, seq)
            if kind in ("episode_end", "error"):
                self._queue.clear()
                return None
            raise WireError(f"message type {str(kind)[:40]!r} is unknown")
        except Exception as error:  # whatever it was, the client gets a reply
            text = self._handler.error_reply(error, extended=False)
            return _message("error", {"error": text}, seq)

    def _hello(self) -> dict[str, Any]:
        spec = self._state.policy.spec
        return {
            "harness_version": f"vlamem {vlamem.__version__}",
            "protocol_version": PROTOCOL,
            "model_server": f"vlamem {spec.name}",
            "capabilities": {},
            "action_spec": {_NAMES.get(c.name, c.name): _dim_spec(c) for c in spec.action.components},
            "observation_spec": _observations(spec),
        }

    async def _start(self) -> None:
        self._queue.clear()
        session = await self._handler.require_session()
        async with self._handler.holding(session):
            await self._state.begin(session, session.episode + 1)

    async def _act(self, payload: dict[Any, Any]) -> np.ndarray[Any, Any]:
        session = await self._handler.require_session()
        obs = await asyncio.to_thread(self._state.reader.read, payload, _decode)
        async with self._handler.holding(session):
            if session.episode == 0:
                await self._state.begin(session, 1)
            decision = await self._state.observe(session, session.step + 1, obs, plan=not self._queue)
        if decision.chunk is not None:
            self._queue.extend(decision.chunk[: self._state.options.execute])
        return self._queue.popleft()


def _message(kind: str, payload: dict[str, Any], seq: int) -> bytes:
    return pack({"type": kind, "payload": _plain(payload), "seq": seq, "timestamp": time.time()})


def _plain(value: Any) -> Any:
    """Arrays with text marks, as vla-eval reads them."""
    if isinstance(value, np.ndarray):
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _decode(image: Any, size: tuple[int, int]) -> Any:
    """An image as an array, decoded only when its header has the height and width; what is not encoded stays as it is.

    Raises WireError for one that is damaged, ObservationError for one of another size.
    """
    if not isinstance(image, dict) or "__image__" not in image:
        return image
    form, data, shape = image.get("format"), image.get("data"), image.get("shape")
    if not isinstance(data, bytes):
        raise WireError("an image's data is not bytes")
    if form == "raw":
        return unpack(pack({b"__ndarray__": True, b"data": data, b"dtype": "|u1", b"shape": shape}))
    if form not in ("png", "jpeg"):
        raise WireError(f"image format {str(form)[:20]!r}: expected png, jpeg or raw")
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=(form.upper(),)) as opened:
            if (opened.height, opened.width) != size:
                raise ObservationError(
                    f"an image {opened.height} pixels high and {opened.width} wide, expected {size[0]} high and "
                    f"{size[1]} wide: resize it first"
                )
            return np.asarray(opened.convert("RGB"))
    except ObservationError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise WireError(f"a damaged {form} image ({type(error).__name__})") from error


def _dim_spec(part: ActionComponent) -> dict[str, Any]:
    form = _FORMATS.get((part.form, part.mode), part.form)
    return {"name": part.name, "dims": part.size, "format": form, "range": [part.low, part.high]}


def _observations(spec: PolicySpec) -> dict[str, Any]:
    found: dict[str, Any] = {c: {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"} for c in spec.cameras}
    found["state"] = {"name": "state", "dims": spec.proprioception_size, "format": "raw"}
    found["language"] = {"name": "language", "dims": 0, "format": "language"}
    return found
