"""The success memory as a kind of memory: `success:FILE[?commit=...&verifier=...&most_segments=...]`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vlamem.memory.registry import MemoryKind, MemoryRequest
from vlamem.memory.success import (
    Calibration,
    CriticVerifier,
    MemoryOptions,
    PredicateVerifier,
    ProgressCritic,
    ResidualOptions,
    RetrieveOptions,
    TrustAll,
    Verifier,
)
from vlamem.memory.success.runner import SuccessRunner, open_success

__all__ = ["SUCCESS", "SuccessOptions"]


@dataclass(frozen=True)
class SuccessOptions:
    """Options of `success`.

    Attributes:
        prior: elite, what succeeded in a state like this one; or residual, one correction of every command that is
            learned from verified trials and holds in states that were never seen.
        explore: trials that are played to learn a residual prior, 80 in a rollout that is not told; a server tries
            nothing out unless it is told.
        commit: whether a rollout stores each episode that was verified; false only asks the memory. A server stores
            what its operators label, whatever this says.
        verifier: who says of a rollout's episode whether it succeeded: the environment, a learned critic, or none,
            which takes every episode for a success and is for comparisons alone.
        critic: file of the critic, for verifier=critic.
        failures: whether the critic's failures are stored, and failures looked at.
        calibrated: whether the calibration that is stored with the memory is used.
        calibration: file of a calibration that a memory without one is given, as 'vlamem memory calibrate' makes it.
        threshold: similarity below which a stored state is not like this one, where no calibration says it.
        neighbours: K, states that are looked at.
        consistency: whether candidates must agree as trajectories.
        most_segments: capacity in segments of successes, and again of failures; none has no bound.
        eviction: name of the policy that chooses what goes when it is full: utility, fifo or random.
    """

    prior: Literal["elite", "residual"] = "elite"
    explore: int | None = None
    commit: bool = True
    verifier: Literal["environment", "critic", "none"] = "environment"
    critic: Path | None = None
    failures: bool = True
    calibrated: bool = True
    calibration: Path | None = None
    threshold: float | None = None
    neighbours: int = RetrieveOptions.neighbours
    consistency: bool = True
    most_segments: int | None = None
    eviction: str = "utility"

    def __post_init__(self) -> None:
        if self.most_segments is not None and self.most_segments < 0:
            raise ValueError(f"most_segments is {self.most_segments}: expected 0 or more, or none")
        if (self.verifier == "critic") != (self.critic is not None):
            raise ValueError("verifier=critic and critic=FILE belong together: give both or neither")
        if self.explore is not None and self.prior != "residual":
            raise ValueError(f"explore is {self.explore}, and prior is {self.prior}: only prior=residual explores")
        for name in ("critic", "calibration"):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name} is {path}, which is not a file")
        self.kept()

    def kept(self) -> MemoryOptions:
        """How the memory is kept. Raises ValueError for a value out of range."""
        retrieve = RetrieveOptions(neighbours=self.neighbours, consistency=self.consistency, failures=self.failures)
        if self.threshold is not None:
            retrieve = replace(retrieve, threshold=self.threshold)
        return MemoryOptions(
            retrieve,
            prior=self.prior,
            residual=ResidualOptions() if self.explore is None else ResidualOptions(explore=self.explore),
            calibrated=self.calibrated,
            most_segments=self.most_segments,
            eviction=self.eviction,
        )

    def verifies(self) -> Verifier:
        """The verifier. Raises what reading the critic's file raises."""
        if self.critic is not None:
            return CriticVerifier(ProgressCritic.load(self.critic), failures=self.failures)
        return TrustAll() if self.verifier == "none" else PredicateVerifier()


def load(request: MemoryRequest) -> SuccessRunner:
    """The success memory in a file, made when missing. Raises OriginError for one of another policy or robot."""
    options: SuccessOptions = request.options
    assert request.name.file is not None
    file, policy, sha256 = request.name.file, request.policy, request.weights_sha256
    opened = open_success(file, policy, sha256, options=options.kept(), verifier=options.verifies())
    opened.explore_asked = options.explore is not None
    if options.calibration is not None and opened.memory.calibration is None:
        opened.memory.recalibrate(Calibration.from_json(options.calibration.read_text(encoding="utf-8")))
    return opened


SUCCESS = MemoryKind(load, SuccessOptions, "database", learns=lambda options: options.commit)
