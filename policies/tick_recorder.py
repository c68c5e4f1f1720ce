"""Makes the trace of an episode from the ticks and decisions of a memory policy; it changes neither."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.tick_trace import TICKED, TickTrace, columns_of
from vlamem.memory.reasons import retrieved, retrieves, why_abstained
from vlamem.policies.memory_policy import Decision, MemoryPolicy, Tick


class TickRecorder:
    """The trace of one row's episode: `ticked` and `planned` note a control step, `acted` ends it."""

    def __init__(self, policy: MemoryPolicy | None, about: Mapping[str, Any]) -> None:
        """`policy` is None where a scripted expert acts; `about` goes into the trace."""
        memories = () if policy is None else policy.memories
        self._memories = list(zip(_labels([m.spec.name for m in memories]), memories, strict=True))
        columns = columns_of({label: (m.spec.ticks, retrieves(m)) for label, m in self._memories})
        self.trace = TickTrace(columns, about=dict(about))
        self._step: dict[str, Any] = {}
        self._clipped: list[float] = []

    def ticked(self, tick: Tick, at: int) -> None:
        """Notes a control step of the memories, of which the row is number `at`."""
        self._note_times(tick.seconds, len(tick.rows))
        for (label, _), out in zip(self._memories, tick.outs, strict=True):
            if out is not None:
                for name in TICKED:
                    self._step[f"{label}.{name}"] = getattr(out, name)[at].item()

    def planned(self, decision: Decision, at: int) -> None:
        """Notes a plan, of which the row is number `at`."""
        self._note_times(decision.seconds, len(decision.chunks))
        self._step |= {"planned": True, "weight": decision.weight[at].item()}
        self._clipped = [] if decision.clipped is None else decision.clipped[at].tolist()
        outs = decision.tick.outs or (None,) * len(self._memories)
        for (label, memory), proposal, out in zip(self._memories, decision.proposals, outs, strict=True):
            chunk, context = proposal.chunk_weight[at].item(), proposal.context_weight[at].item()
            offset = 0.0 if proposal.offset is None else np.abs(proposal.offset[at]).max().item()
            self._step |= {
                f"{label}.chunk_weight": chunk,
                f"{label}.context_weight": context,
                f"{label}.offset": offset,
            }
            self._step[f"{label}.abstained"] = "" if chunk or context or offset else why_abstained(memory, out, at)
            found = retrieved(memory, at)
            if found is not None:
                self._step |= {
                    f"{label}.similarity": found.similarity if np.isfinite(found.similarity) else None,
                    f"{label}.spread": found.spread,
                    f"{label}.failure": found.failure,
                    f"{label}.retrieved": found.used.tolist(),
                }

    def acted(self, action: Float[np.ndarray, "A"], more: Mapping[str, Any]) -> None:
        """Notes the action that was executed, and `more` columns, and ends the control step."""
        rows = self.trace.rows
        step = {"step": len(rows), "planned": False, "command": action} | self._step | dict(more)
        if self._clipped:
            step["clipped"] = self._clipped.pop(0)
        rows.append(step)
        self._step = {}

    def _note_times(self, seconds: Mapping[str, float], rows: int) -> None:
        """Times of a pass are divided over its rows."""
        for part, took in seconds.items():
            self._step[f"{part}_ms"] = 1e3 * took / rows


def _labels(names: list[str]) -> list[str]:
    """Names without options that differ: a second "aura" is "aura-2"."""
    names = [name.partition("?")[0] for name in names]
    return [name if name not in names[:i] else f"{name}-{names[:i].count(name) + 1}" for i, name in enumerate(names)]
