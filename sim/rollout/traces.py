"""Hooks that keep what happens in an episode as a trace, and let memories learn from it when it has ended."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.memory.runner import LearnsFromEpisodes
from vlamem.memory.success import EpisodeRecorder, StoreFullError, Trace
from vlamem.policies.memory_policy import Decision
from vlamem.policies.protocol import FrozenPolicy
from vlamem.sim.results.episodes import DiskFullError, EpisodeLog
from vlamem.sim.rollout.config import run_identity
from vlamem.sim.rollout.hooks import EpisodeHooks, HookContext
from vlamem.sim.rollout.row import Row
from vlamem.sim.rollout.trials import identity_of


class EpisodeTracer(EpisodeHooks):
    """Keeps the trace of each row's episode: what the policy saw at its decisions and at the end, and every action."""

    def __init__(self, policy: FrozenPolicy, recorder: Callable[[], EpisodeRecorder]) -> None:
        """`policy` encodes the last observation, which no decision is made on; `recorder` makes one for a row."""
        self._policy, self._recorder = policy, recorder
        self._recorders: dict[int, EpisodeRecorder] = {}

    def episode_began(self, row: Row) -> None:
        """Begins the row's trace."""
        recorder = self._recorders[row.index] = self._recorder()
        instruction = row.progress["instruction"]
        recorder.begin(instruction, self.identity(row), self.meaning(instruction))

    def planned(self, row: Row, at: int, decision: Decision) -> None:
        """Notes the decision."""
        seen, encoding = decision.tick.observation, decision.encoding
        added = None if decision.proposal is None else decision.proposal.offset
        offset = np.zeros(decision.chunks.shape[2]) if added is None else added[at].mean(axis=0)
        self._recorders[row.index].observe(
            encoding.key[at], _newest(seen.proprioception[at]), decision.chunks[at], self.used(decision, at), offset
        )

    def stepped(self, row: Row, action: Float[np.ndarray, "A"], info: dict[str, Any]) -> None:
        """Notes the action."""
        self._recorders[row.index].act(action)

    def episode_ended(self, row: Row) -> None:
        """Notes how it ended, which is what a critic must see, and hands the trace over."""
        row.look(True)
        assert row.seen is not None
        encoding = self._policy.encode(row.seen)
        recorder = self._recorders.pop(row.index)
        recorder.observe(encoding.key[0], _newest(row.seen.proprioception[0]))
        self.traced(row, recorder.trace())

    def identity(self, row: Row) -> str:
        """What the episode is called."""
        return f"{row.task}/{row.episode}"

    def meaning(self, instruction: str) -> Float[np.ndarray, "C"] | None:
        """The policy's vector of the sentence, where the trace is to have it."""
        return None

    def used(self, decision: Decision, at: int) -> np.ndarray | None:
        """Ids of stored segments behind row `at` of a decision."""
        return None

    def traced(self, row: Row, trace: Trace) -> None:
        """Takes the trace of an episode that has ended."""


def _newest(proprioception: np.ndarray) -> np.ndarray:
    """The last of several observations that a policy reads at once."""
    return proprioception[-1] if proprioception.ndim > 1 else proprioception


class MemoryTracer(EpisodeTracer):
    """Traces for one memory, which stores what its verifier allows; the record has the verdict and what it holds."""

    def __init__(self, policy: FrozenPolicy, memory: LearnsFromEpisodes, run: str) -> None:
        """`run` is the name under which the episodes of this run are stored."""
        super().__init__(policy, lambda: memory.recorder)
        self._memory, self._run = memory, run

    def identity(self, row: Row) -> str:
        """Unique over runs, so that what a stopped run stored can be told apart."""
        return identity_of(self._run, row.task, row.episode)

    def meaning(self, instruction: str) -> Float[np.ndarray, "C"]:
        """The memory's."""
        return self._memory.meaning(instruction)

    def used(self, decision: Decision, at: int) -> np.ndarray:
        """The memory's, of its last proposal."""
        return self._memory.used(at)

    def traced(self, row: Row, trace: Trace) -> None:
        """Judges and stores. Raises DiskFullError when the disk is full."""
        verdict = self._memory.verify(trace, row.success)
        began = time.perf_counter()
        try:
            self._memory.observe_episode(trace, verdict)
        except StoreFullError as error:
            raise DiskFullError(str(error)) from error
        row.wall_clock["commit_ms"] = round(1e3 * (time.perf_counter() - began), 3)
        row.progress |= {"verdict": verdict.outcome, "segments": self._memory.segments}


class LearnFromEpisodes(EpisodeHooks):
    """Has the memories of a rollout learn; what a stopped run stored without writing it down is taken back."""

    def __init__(self, context: HookContext) -> None:
        """Raises PlanError when there is no run folder yet."""
        config, policy = context.config, context.policy
        memories = () if policy is None else policy.memories
        run = run_identity(config)
        written = EpisodeLog(config.out / "episodes.jsonl").read()
        kept = {identity_of(run, r.task, r.episode) for r in written if r.outcome != "error"}
        self._tracers = []
        for name, memory in zip(config.memories(), memories, strict=True):
            if name.learns:
                if not isinstance(memory, LearnsFromEpisodes):
                    raise TypeError(f"memory '{name}' says that it learns and has no observe_episode: give it one")
                memory.retract(run, kept)
                assert policy is not None
                self._tracers.append(MemoryTracer(policy.policy, memory, run))

    def episode_began(self, row: Row) -> None:
        """Begins the traces."""
        for tracer in self._tracers:
            tracer.episode_began(row)

    def planned(self, row: Row, at: int, decision: Decision) -> None:
        """Notes the decision."""
        for tracer in self._tracers:
            tracer.planned(row, at, decision)

    def stepped(self, row: Row, action: Float[np.ndarray, "A"], info: dict[str, Any]) -> None:
        """Notes the action."""
        for tracer in self._tracers:
            tracer.stepped(row, action, info)

    def episode_ended(self, row: Row) -> None:
        """Has the memories learn."""
        for tracer in self._tracers:
            tracer.episode_ended(row)
