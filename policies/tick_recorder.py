"""Makes the trace of an episode from the ticks and decisions of a memory policy; it changes neither."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.tick_trace import TICKED, TickTrace, columns_of
from vlamem.memory.reasons import retrieved, retrieves, settings, why_abstained
from vlamem.policies.memory_policy import Decision, MemoryPolicy, Tick

Columns = dict[str, Any]
"""Values of a control step, by column."""


class TickColumns:
    """The values of one row at a control step, by column of a trace.

    Attributes:
        policy: whose columns these are.
        types: the columns of a trace of it, and their types.
        about: what they need to be read: of each memory what its decisions are held against, of the policy what
            proprioception and actions mean.
    """

    def __init__(self, policy: MemoryPolicy | None) -> None:
        """`policy` is None where a scripted expert acts."""
        self.policy = policy
        memories = () if policy is None else policy.memories
        self._memories = list(zip(_labels([m.spec.name for m in memories]), memories, strict=True))
        self.about: dict[str, Any] = {}
        if policy is not None:
            names = ("name", "size", "form", "mode", "unit")
            self.about = {
                "memories": {label: settings(m) for label, m in self._memories},
                "state": policy.spec.state,
                "actions": [{name: getattr(c, name) for name in names} for c in policy.spec.action.components],
            }
        self.types = columns_of({label: (m.spec.ticks, retrieves(m)) for label, m in self._memories})

    def ticked(self, tick: Tick, at: int) -> Columns:
        """Of a control step of the memories, of which the row is number `at`."""
        found = _times(tick.seconds, len(tick.rows)) | {
            "proprioception": tick.observation.moments[-1].proprioception[at]
        }
        for (label, _), out in zip(self._memories, tick.outs, strict=True):
            if out is not None:
                for name in TICKED:
                    found[f"{label}.{name}"] = getattr(out, name)[at].item()
        return found

    def planned(self, decision: Decision, at: int) -> Columns:
        """Of a plan, of which the row is number `at`."""
        seen = decision.tick.observation.moments[-1].proprioception[at]
        found = _times(decision.seconds, len(decision.chunks)) | {"proprioception": seen}
        found |= {"planned": True, "weight": decision.weight[at].item()}
        outs = decision.tick.outs or (None,) * len(self._memories)
        for (label, memory), proposal, out in zip(self._memories, decision.proposals, outs, strict=True):
            chunk, context = proposal.chunk_weight[at].item(), proposal.context_weight[at].item()
            offset = 0.0 if proposal.offset is None else np.abs(proposal.offset[at]).max().item()
            found |= {
                f"{label}.chunk_weight": chunk,
                f"{label}.context_weight": context,
                f"{label}.offset": offset,
            }
            found[f"{label}.abstained"] = "" if chunk or context or offset else why_abstained(memory, out, at)
            if chunk and proposal.chunk is not None:
                found[f"{label}.chunk"] = np.asarray(proposal.chunk[at], np.float32).ravel()
            segments = retrieved(memory, at)
            if segments is not None:
                found |= {
                    f"{label}.similarity": segments.similarity if np.isfinite(segments.similarity) else None,
                    f"{label}.spread": segments.spread,
                    f"{label}.failure": segments.failure,
                    f"{label}.retrieved": segments.used.tolist(),
                }
        return found


class TickRecorder:
    """The trace of one row's episode: `ticked` and `planned` note a control step, `acted` ends it."""

    def __init__(self, policy: MemoryPolicy | None, about: Mapping[str, Any]) -> None:
        """`policy` is None where a scripted expert acts; `about` goes into the trace."""
        self._columns = TickColumns(policy)
        self.trace = TickTrace(self._columns.types, about=self._columns.about | dict(about))
        self._step: Columns = {}
        self._clipped: list[float] = []

    def ticked(self, tick: Tick, at: int) -> None:
        """Notes a control step of the memories, of which the row is number `at`."""
        self._step |= self._columns.ticked(tick, at)

    def planned(self, decision: Decision, at: int) -> None:
        """Notes a plan, of which the row is number `at`."""
        self._step |= self._columns.planned(decision, at)
        self._clipped = [] if decision.clipped is None else decision.clipped[at].tolist()

    def acted(self, action: Float[np.ndarray, "A"], more: Mapping[str, Any]) -> None:
        """Notes the action that was executed, and `more` columns, and ends the control step."""
        rows = self.trace.rows
        step = {"step": len(rows), "planned": False, "command": action} | self._step | dict(more)
        if self._clipped:
            step["clipped"] = self._clipped.pop(0)
        rows.append(step)
        self._step = {}


def _times(seconds: Mapping[str, float], rows: int) -> Columns:
    """Times of a pass, divided over its rows."""
    return {f"{part}_ms": 1e3 * took / rows for part, took in seconds.items()}


def _labels(names: list[str]) -> list[str]:
    """Names without options that differ: a second "aura" is "aura-2"."""
    names = [name.partition("?")[0] for name in names]
    return [name if name not in names[:i] else f"{name}-{names[:i].count(name) + 1}" for i, name in enumerate(names)]
