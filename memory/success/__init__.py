"""Success memory: verified successes in a durable store, retrieved as elite action priors for a frozen policy."""

from vlamem.memory.success.experience.episode import Episode, Segment
from vlamem.memory.success.experience.layout import ActionPart, EntryError, Layout, Origin, OriginError
from vlamem.memory.success.experience.records import Committed
from vlamem.memory.success.experience.trace import EncodedObservation, Trace, Verdict
from vlamem.memory.success.lifecycle.critic import CriticOptions, LabelledEpisode, ProgressCritic, train_critic
from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder
from vlamem.memory.success.lifecycle.verify import (
    CriticVerifier,
    OperatorVerifier,
    PredicateVerifier,
    TrustAll,
    Verifier,
)
from vlamem.memory.success.lifecycle.writer import BackgroundWriter
from vlamem.memory.success.memory import MemoryOptions, SuccessMemory
from vlamem.memory.success.retrieve.calibration import Calibration, calibrate
from vlamem.memory.success.retrieve.prior import Prior, RetrieveOptions
from vlamem.memory.success.retrieve.residual import Residual, ResidualOptions
from vlamem.memory.success.store import (
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    SuccessStore,
    open_store,
)

__all__ = [
    "ActionPart",
    "BackgroundWriter",
    "Calibration",
    "Committed",
    "CriticOptions",
    "CriticVerifier",
    "EncodedObservation",
    "EntryError",
    "Episode",
    "EpisodeRecorder",
    "LabelledEpisode",
    "Layout",
    "MemoryOptions",
    "OperatorVerifier",
    "Origin",
    "OriginError",
    "PredicateVerifier",
    "Prior",
    "ProgressCritic",
    "Residual",
    "ResidualOptions",
    "RetrieveOptions",
    "Segment",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "SuccessMemory",
    "SuccessStore",
    "Trace",
    "TrustAll",
    "Verdict",
    "Verifier",
    "calibrate",
    "open_store",
    "train_critic",
]
