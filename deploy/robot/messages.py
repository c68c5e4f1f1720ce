"""What goes over a robot's line and comes back: frames, their answers, and the bytes of either."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.protocol import RobotObservation, Vector
from vlamem.deploy.wire import pack


@dataclass
class Frame:
    """One control step on its way to memory."""

    episode: int
    step: int
    observation: RobotObservation
    instruction: str
    plan: bool
    executed: Vector | None


@dataclass(frozen=True)
class Reply:
    """What the server control_message of a frame.

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


def control_message(kind: str, seq: str, **what: Any) -> bytes:
    """A message without an observation; its answer names `seq`."""
    return pack({"vlamem": {"type": kind, "seq": seq} | what})


def frame_message(frame: Frame) -> bytes:
    """A frame's message."""
    head: dict[str, Any] = {"type": "observe", "episode": frame.episode, "step": frame.step, "plan": frame.plan}
    head["seq"] = frame.episode << 32 | frame.step
    if frame.executed is not None:
        head["executed"] = [float(x) for x in frame.executed]
    body = {
        "images": dict(frame.observation.images),
        "proprioception": np.asarray(frame.observation.proprioception, np.float32),
    }
    return pack({"vlamem": head, "instruction": frame.instruction} | body)
