"""Memories of a rollout by name: AURA-Mem, trained baselines, and oracles that are told by the simulator.

Controls take a memory apart while it is used: its content frozen after the cue, replaced by noise, or by what the
memory held in another episode.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import stream
from vlamem.memory.runner import AuraVoice, RowMemory, Said, Voice
from vlamem.memory.weights import TrainedFor
from vlamem.policies.memory_policy import SHIPPED_GATE, MemoryPolicy
from vlamem.policies.protocol import FrozenPolicy

Control = Literal["none", "freeze", "noise", "other"]
KINDS = ("none", "aura", "always", "random", "periodic", "baseline", "oracle", "first-observation")
WITH_FILE = ("aura", "always", "random", "periodic", "baseline")
ORACLES = ("oracle", "first-observation")


class MemoryNameError(ValueError):
    """A memory that a rollout does not know; the message says which there are."""


@dataclass(frozen=True)
class MemoryName:
    """`--memory` taken apart.

    Attributes:
        kind: one of KINDS.
        file: weights, for the kinds that have some.
    """

    kind: str
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "MemoryName":
        """From e.g. "none", "aura" (the shipped gate), "aura:FILE". Raises MemoryNameError."""
        kind, colon, file = text.partition(":")
        if kind not in KINDS:
            raise MemoryNameError(f"unknown memory '{text}': choose one of {', '.join(KINDS)}, aura:FILE for a gate")
        if colon and kind not in WITH_FILE:
            raise MemoryNameError(f"memory '{text}' takes no file: only {', '.join(WITH_FILE)} do")
        if kind == "baseline" and not file:
            raise MemoryNameError("memory 'baseline' needs its weights: baseline:FILE, of 'vlamem bench memory-panel'")
        path = (Path(file) if file else SHIPPED_GATE) if kind in WITH_FILE else None
        if path is not None and not path.is_file():
            raise MemoryNameError(f"memory '{text}' has no weights at {path}: train them with 'vlamem train-gate'")
        return cls(kind, path)

    @property
    def sha256(self) -> str | None:
        """Of the weights; None without a file."""
        if self.file is None:
            return None
        with self.file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()


def voice_of(name: MemoryName, policy: FrozenPolicy, used_with: TrainedFor, budget: float | None) -> Voice | None:
    """The recurrent memory that a rollout gives to a policy, None for "none".

    `budget` is a share of ticks that may write: the learned gate's threshold is moved to it, random and periodic hold
    it (a tenth where none is given). Raises WeightsError for weights of another policy, ValueError for a budget that a
    file does not know.
    """
    if name.kind == "none":
        return None
    if name.kind in ORACLES:
        return OracleVoice(policy, follow=name.kind == "oracle")
    assert name.file is not None
    if name.kind == "baseline":
        from vlamem.memory.baseline_files import load_baseline

        return load_baseline(name.file, used_with)
    voice = AuraVoice.load(name.file, used_with)
    if name.kind != "aura":
        return voice.with_gate(name.kind, rate=budget or 0.1)
    return voice if budget is None else voice.with_threshold_moved(_shift(voice, budget))


def _shift(voice: AuraVoice, budget: float) -> float:
    """By how much the gate's threshold moves for `budget`, between those that were measured after training."""
    metrics = voice.header.metrics if voice.header else {}
    known = {float(k.rpartition("@")[2]): v for k, v in metrics.items() if k.startswith("threshold_shift@")}
    if not known:
        raise ValueError("this gate's file says nothing of other budgets: train it again with 'vlamem train-gate'")
    rates = sorted(known)
    if not rates[0] <= budget <= rates[-1]:
        raise ValueError(f"budget {budget} is outside {rates[0]} to {rates[-1]}, which this gate was measured for")
    return float(np.interp(np.log(budget), np.log(rates), [known[r] for r in rates]))


class OracleVoice:
    """Says what the simulator knows: the residual from what the policy is told to the sentence that tells the answer.

    With `follow` at every tick; without, what was so when the cue ended, as one who saw only that.
    """

    def __init__(self, policy: FrozenPolicy, follow: bool) -> None:
        self._policy, self._follow = policy, follow
        self.feature_size = policy.spec.feature_size
        self.context_size = policy.spec.context_size
        self.chunk_shape: tuple[int, int] | None = None
        self._rows: list[_OracleRow] = []

    def row(self) -> RowMemory:
        """A row that is silent until told."""
        self._rows.append(_OracleRow())
        return self._rows[-1]

    def tell(self, env: Any, index: int) -> None:
        """Takes the answer of this moment from a row's environment; to be called before each tick."""
        task = env.task
        row = self._rows[index]
        own, told = task.goal(False), task.goal(True)
        known = task.now >= getattr(task, "cue_end", 0)
        if not self._follow and (row.residual is not None or not known):
            return
        if own == told:
            row.residual = None
            return
        now, then = self._policy.context_of([env.instruction, told.sentence(0)])
        row.residual = np.asarray(then - now, np.float32)


@dataclass
class _OracleRow:
    """What the oracle said last."""

    residual: Float[np.ndarray, "C"] | None = None

    def reset(self) -> None:
        self.residual = None

    def tick(self, feature: Float[np.ndarray, "D"]) -> Said:
        return Said(float(self.residual is not None), None, self._said, False, 0.0, 0.0)

    @property
    def _said(self) -> Float[np.ndarray, "C"] | None:
        return self.residual

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        if state:
            raise ValueError("an oracle has no state to restore")


class MemoryControl:
    """Takes a memory apart from the end of the cue on; what it does depends on (task, episode) alone."""

    def __init__(self, kind: Control, policy: MemoryPolicy, task: str, episode: int, seed: int) -> None:
        self._kind, self._policy = kind, policy
        self._noise = stream(seed, "memory control", task, episode)
        self.other: dict[str, np.ndarray] | None = None
        self._frozen: dict[str, np.ndarray] | None = None
        self._done = False

    def before(self, env: Any) -> None:
        """To be called before each tick."""
        if self._kind == "none" or not getattr(env.task, "cue_over", True):
            return
        state = self._policy.state(0)
        if self._kind == "freeze":
            self._frozen = self._frozen or state
            self._policy.restore(0, self._frozen)
        elif self._kind == "noise":
            loud = {
                name: (x.std() * self._noise.standard_normal(x.shape)).astype(x.dtype) if x.dtype.kind == "f" else x
                for name, x in state.items()
            }
            self._policy.restore(0, loud)
        elif not self._done:
            assert self.other is not None
            self._policy.restore(0, self.other)
            self._done = True
