"""Messages between a robot and its server: frames and the replies to them, and their bytes."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.protocol import RobotObservation, Vector
from vlamem.deploy.wire import pack


@dataclass
class Frame:
    """The observation of one policy step, for the server's memory.

    Attributes:
        episode, step: at which it was taken.
        observation: of the robot.
        instruction: the task as a sentence.
        plan: whether an action chunk is requested.
        executed: [A], the action executed before it; None when that is unknown.
        report: of the controller since the frame before: `mode`, and where there is something to say `limits`,
            `clipped`, `plan_ms`, `late_ms` (vlamem.core.tick_trace says what they are).
    """

    episode: int
    step: int
    observation: RobotObservation
    instruction: str
    plan: bool
    executed: Vector | None
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """The server's reply to a frame.

    Attributes:
        kind: "chunk", "tick" (no chunk was requested) or "refused".
        episode, step: of the frame.
        chunk: [H, A], or None.
        detail: of a refusal.
        arrived: [s on the monotonic clock].
        wrote: whether memory was written.
        gate: of the memory at this step, 0 to 1; None where the server does not say it: it had seen the frame before.
        confidence: of the memory at this step, 0 to 1.
        weight: of the proposal behind the chunk, 0 to 1; 0 without one.
    """

    kind: Literal["chunk", "tick", "refused"]
    episode: int
    step: int
    chunk: NDArray[np.float32] | None
    detail: str
    arrived: float
    wrote: bool = False
    gate: float | None = None
    confidence: float = 0.0
    weight: float = 0.0


@runtime_checkable
class LinkProtocol(Protocol):
    """What the controller needs of a link."""

    def begin(self, episode: int) -> None:
        """A new episode."""
        ...

    def send(self, frame: Frame) -> None:
        """A frame, without waiting."""
        ...

    def poll(self) -> list[Reply]:
        """The replies that have come, without waiting."""
        ...


def control_message(kind: str, seq: str, **what: Any) -> bytes:
    """A message without an observation; its reply names `seq`."""
    return pack({"vlamem": {"type": kind, "seq": seq} | what})


def frame_message(frame: Frame) -> bytes:
    """A frame as a message."""
    head: dict[str, Any] = {"type": "observe", "episode": frame.episode, "step": frame.step, "plan": frame.plan}
    head["seq"] = frame.episode << 32 | frame.step
    if frame.executed is not None:
        head["executed"] = [float(x) for x in frame.executed]
    if frame.report:
        head["report"] = frame.report
    body = {
        "images": dict(frame.observation.images),
        "proprioception": np.asarray(frame.observation.proprioception, np.float32),
    }
    return pack({"vlamem": head, "instruction": frame.instruction} | body)
