"""Success memory: verified successes on disk, retrieved as elite action priors for a frozen policy."""

from vlamem.memory.success.episode import Episode, Segment
from vlamem.memory.success.layout import ActionPart, EntryError, Layout, Origin, OriginError
from vlamem.memory.success.lifecycle.critic import CriticOptions, ProgressCritic, Told, train_critic
from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder, Trace
from vlamem.memory.success.lifecycle.verify import (
    CriticVerifier,
    OperatorVerifier,
    PredicateVerifier,
    Verdict,
    Verifier,
)
from vlamem.memory.success.lifecycle.writer import BackgroundWriter
from vlamem.memory.success.memory import Committed, MemoryOptions, SuccessMemory
from vlamem.memory.success.retrieve.calibration import Calibration, calibrate
from vlamem.memory.success.retrieve.prior import Prior, RetrieveOptions
from vlamem.memory.success.store.sqlite import (
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    SuccessStore,
)

__all__ = [
    "ActionPart", "BackgroundWriter", "Calibration", "Committed", "CriticOptions", "CriticVerifier", "EntryError",
    "Episode", "EpisodeRecorder", "Layout", "MemoryOptions", "OperatorVerifier", "Origin", "OriginError",
    "PredicateVerifier", "Prior", "ProgressCritic", "RetrieveOptions", "Segment", "StoreBusyError",
    "StoreDamagedError", "StoreError", "StoreFullError", "SuccessMemory", "SuccessStore", "Told", "Trace", "Verdict",
    "Verifier", "calibrate", "train_critic",
]  # fmt: skip
