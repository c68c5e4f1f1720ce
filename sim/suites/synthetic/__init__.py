"""Synthetic streams with known answers: what a memory keeps, and when it should have written, are both known."""

from vlamem.sim.suites.synthetic.events import EventConfig, event_streams
from vlamem.sim.suites.synthetic.recall import RecallConfig, recall_streams
from vlamem.sim.suites.synthetic.stream import KINDS, Kind, Streams, Vocabulary, key_of, vocabulary
from vlamem.sim.suites.synthetic.surprise import SurpriseConfig, surprise_streams

__all__ = [
    "KINDS",
    "EventConfig",
    "Kind",
    "RecallConfig",
    "Streams",
    "SurpriseConfig",
    "Vocabulary",
    "event_streams",
    "key_of",
    "recall_streams",
    "surprise_streams",
    "vocabulary",
]
