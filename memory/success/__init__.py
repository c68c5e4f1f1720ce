"""Success memory: verified successes on disk, retrieved as elite action priors for a frozen policy."""

from vlamem.memory.success.calibration import Calibration, calibrate
from vlamem.memory.success.critic import CriticOptions, ProgressCritic, Told, train_critic
from vlamem.memory.success.episode import Episode, Segment
from vlamem.memory.success.layout import ActionPart, EntryError, Layout, Origin, OriginError
from vlamem.memory.success.memory import Committed, MemoryOptions, SuccessMemory
from vlamem.memory.success.recorder import EpisodeRecorder, Trace
from vlamem.memory.success.retrieve import Prior, RetrieveOptions
from vlamem.memory.success.store import (
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    SuccessStore,
)
from vlamem.memory.success.verify import CriticVerifier, OperatorVerifier, PredicateVerifier, Verdict, Verifier
from vlamem.memory.success.writer import BackgroundWriter

__all__ = [
    "ActionPart", "BackgroundWriter", "Calibration", "Committed", "CriticOptions", "CriticVerifier", "EntryError",
    "Episode", "EpisodeRecorder", "Layout", "MemoryOptions", "OperatorVerifier", "Origin", "OriginError",
    "PredicateVerifier", "Prior", "ProgressCritic", "RetrieveOptions", "Segment", "StoreBusyError",
    "StoreDamagedError", "StoreError", "StoreFullError", "SuccessMemory", "SuccessStore", "Told", "Trace", "Verdict",
    "Verifier", "calibrate", "train_critic",
]  # fmt: skip
