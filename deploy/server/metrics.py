"""Figures of a running server for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from vlamem.core.proposal import Proposal
from vlamem.deploy.server.batcher import Decision

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters, gauges and histograms of one server, in a registry of their own."""

    def __init__(
        self, sessions: Callable[[], int], connected: Callable[[], int], queue_age: Callable[[], float]
    ) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.decision = Histogram(
            "vlamem_decision_seconds", "Frame received to chunk sent.", registry=r, buckets=_SECONDS
        )
        self.tick = Histogram(
            "vlamem_tick_seconds", "Frame received to acknowledged, no plan.", registry=r, buckets=_SECONDS
        )
        self.forward = Histogram("vlamem_forward_seconds", "One forward pass.", registry=r, buckets=_SECONDS)
        self.waited = Histogram("vlamem_queue_seconds", "Frame waiting for its pass.", registry=r, buckets=_SECONDS)
        self.rows = Histogram("vlamem_batch_rows", "Rows of a pass.", registry=r, buckets=(1, 2, 4, 8, 16, 32, 64))
        self.ticks = Counter("vlamem_ticks", "Frames that memory saw.", registry=r)
        self.writes = Counter("vlamem_writes", "Frames that the gate let into memory.", registry=r)
        self.hits = Counter("vlamem_retrieval_hits", "Plans for which success memory proposed.", registry=r)
        self.abstentions = Counter("vlamem_retrieval_abstentions", "Plans for which it abstained.", registry=r)
        self.duplicates = Counter("vlamem_duplicates", "Frames that came again.", registry=r)
        self.labels = Counter("vlamem_labels", "Labels acknowledged.", ["outcome"], registry=r)
        self.errors = Counter("vlamem_errors", "Messages answered by an error.", ["code"], registry=r)
        self.closed = Counter("vlamem_connections_closed", "Connections closed by the server.", ["why"], registry=r)
        for name, text, read in (
            ("vlamem_sessions", "Sessions held.", sessions),
            ("vlamem_sessions_connected", "Sessions with a connection.", connected),
            ("vlamem_queue_age_seconds", "Age of the oldest frame that waits.", queue_age),
        ):
            Gauge(name, text, registry=r).set_function(read)
        Gauge("vlamem_gate_rate", "Writes a frame since the start.", registry=r).set_function(self._gate_rate)
        self._seen = self._written = 0

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A figure that `read` gives when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def decided(self, decision: Decision, seconds: float) -> None:
        """One frame was answered, `seconds` after it came."""
        (self.tick if decision.chunk is None else self.decision).observe(seconds)
        self.waited.observe(decision.waited_s)
        self.forward.observe(decision.took_s)
        self.rows.observe(decision.rows)
        self.ticks.inc()
        self._seen += 1
        if decision.wrote:
            self.writes.inc()
            self._written += 1

    def retrieved(self, proposal: Proposal) -> None:
        """Success memory answered."""
        found = int((proposal.chunk_weight > 0).sum())
        self.hits.inc(found)
        self.abstentions.inc(len(proposal) - found)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gate_rate(self) -> float:
        return self._written / self._seen if self._seen else 0.0
