"""From an ended episode to stored segments: recorder, verifiers, critic, capacity, writer."""

from vlamem.memory.success.lifecycle.capacity import EvictionPolicy, UsageCounts, victims
from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder, verified_episode
from vlamem.memory.success.lifecycle.stages import EVICTIONS, VERIFIERS
from vlamem.memory.success.lifecycle.verify import (
    CriticVerifier,
    OperatorVerifier,
    PredicateVerifier,
    TrustAll,
    Verifier,
)
from vlamem.memory.success.lifecycle.writer import BackgroundWriter

__all__ = [
    "EVICTIONS",
    "VERIFIERS",
    "BackgroundWriter",
    "CriticVerifier",
    "EpisodeRecorder",
    "EvictionPolicy",
    "OperatorVerifier",
    "PredicateVerifier",
    "TrustAll",
    "UsageCounts",
    "Verifier",
    "verified_episode",
    "victims",
]
