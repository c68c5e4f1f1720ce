"""The success memory as a kind of memory: `success:FILE[?most_segments=...&calibrated=...]`."""

from dataclasses import dataclass

from vlamem.memory.registry import MemoryKind, MemoryRequest
from vlamem.memory.success.memory import MemoryOptions
from vlamem.memory.success.runner import SuccessRunner, open_success

__all__ = ["SUCCESS", "SuccessOptions"]


@dataclass(frozen=True)
class SuccessOptions:
    """Options of `success`.

    Attributes:
        calibrated: whether the calibration that is stored with the memory is used.
        most_segments: capacity in segments of successes, and again of failures; none has no bound.
    """

    calibrated: bool = True
    most_segments: int | None = None

    def __post_init__(self) -> None:
        if self.most_segments is not None and self.most_segments < 1:
            raise ValueError(f"most_segments is {self.most_segments}: expected 1 or more, or none")


def load(request: MemoryRequest) -> SuccessRunner:
    """The success memory in a file, made when missing. Raises OriginError for one of another policy or robot."""
    options: SuccessOptions = request.options
    assert request.name.file is not None
    kept = MemoryOptions(calibrated=options.calibrated, most_segments=options.most_segments)
    return open_success(request.name.file, request.policy, request.weights_sha256, options=kept)


SUCCESS = MemoryKind(load, SuccessOptions, "database")
