"""Rollouts of a policy with a memory in which a demonstrator takes over now and then, and hands back.

They show what demonstrations do not: the states that the policy gets itself into, and what to do there. What a memory
is taught by are the demonstrator's own actions; the policy's are in the features that it reads. The demonstrator is the
suite's scripted expert, which takes over at random, as one does who cannot tell what the policy is about to do.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.memory.runner import MemoryRunner
from vlamem.memory.train.conditioning import Conditioned
from vlamem.memory.train.features import EpisodeTicks
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.corrections import conditioned, whole_chunks
from vlamem.policies.memory_policy import MemoryPolicy, Tick
from vlamem.policies.protocol import FrozenPolicy
from vlamem.sim.record.features import expert_chunks
from vlamem.sim.rollout.hooks import EpisodeHooks
from vlamem.sim.rollout.loop import EpisodeLoop
from vlamem.sim.rollout.row import Row, Start
from vlamem.sim.suites.disturbance import pushed
from vlamem.sim.suites.protocol import SuiteEnv

ACTOR = "corrected"
FIRST = 300_000
"""Number of the first episode: other initial states than those of demonstrations and of a policy's own rollouts."""
_POLICY, _DEMONSTRATOR = (8, 56), (24, 56)
"""Fewest and most control steps that each acts for."""
_EXECUTE = 8


class TakeOver(EpisodeHooks):
    """Lets the demonstrator act by turns with the policy, and keeps what a memory is taught by.

    Args:
        runner: of the policy.
        policy: that it runs.
        goals: sentences of everything that the suite asks for; the last wording of each is not used.
        rng: of the turns and of the samples.
        stride: control steps between two of which the conditioning is kept.
    """

    def __init__(
        self,
        runner: ChunkRunner,
        policy: FrozenPolicy,
        goals: Sequence[Sequence[str]],
        rng: np.random.Generator,
        stride: int,
    ) -> None:
        self._runner, self._policy, self._goals, self._rng, self._stride = runner, policy, goals, rng, stride
        self._place = {sentence: i for i, wordings in enumerate(goals) for sentence in wordings}
        self._turn = self._began = self._until = 0
        self.z: list[np.ndarray] = []
        self.goals: list[int] = []
        self.actions: list[np.ndarray] = []
        self.turns: list[int] = []
        """Of each control step; the policy has those of even number, the demonstrator the others."""
        self._kept: list[tuple[int, Observation]] = []

    def episode_began(self, row: Row) -> None:
        """The policy begins."""
        row.drawn = True
        self._until = int(self._rng.integers(*_POLICY))
        self._wording = int(self._rng.integers(max(1, len(self._goals[0]) - 1)))

    def before_tick(self, row: Row) -> None:
        """Who acts in this control step, and in which words the policy is told its task."""
        if row.steps == self._until:
            self._turn, self._began = self._turn + 1, row.steps
            self._until += int(self._rng.integers(*(_DEMONSTRATOR if self._turn % 2 else _POLICY)))
            self._runner.drop(np.array([row.index]))
        goal = self._place[row.env.instruction]
        self.goals.append(goal)
        self.turns.append(self._turn)
        wordings = self._goals[goal]
        assert row.seen is not None
        row.seen = replace(row.seen, instruction=(wordings[min(self._wording, max(0, len(wordings) - 2))],))

    def after_tick(self, row: Row, tick: Tick) -> None:
        """Keeps the feature, and what the policy read where the demonstrator acts."""
        assert tick.encoding is not None
        self.z.append(tick.encoding.z[0])
        if self._turn % 2 and (row.steps - self._began) % self._stride == 0:
            self._kept.append((row.steps, tick.observation))

    def act(self, row: Row, action: Float[np.ndarray, "A"]) -> Float[np.ndarray, "A"]:
        """The demonstrator's action where it acts."""
        if self._turn % 2:
            action = pushed(row.env.expert_action(), row.env.action_spec, (), row.steps)
        self.actions.append(action)
        return action

    def made(self) -> tuple[EpisodeTicks, Conditioned | None]:
        """The episode's columns, and what the policy read where a whole chunk was demonstrated; None where none was."""
        horizon = self._policy.spec.horizon
        turns = np.array(self.turns)
        chunks = expert_chunks(np.array(self.actions), [(int(turn), 0) for turn in turns], horizon)
        columns = EpisodeTicks(np.array(self.z), chunks, np.array([self.goals] * 2).T, np.zeros(len(turns), bool))
        whole = whole_chunks(turns % 2 == 1, horizon)
        kept = [(tick, seen) for tick, seen in self._kept if whole[tick]]
        if not kept:
            return columns, None
        # all observations at once: a pass of the policy costs as much for one row
        encoding = self._policy.encode(Observation.stack([seen for _, seen in kept]))
        ticks = np.array([tick for tick, _ in kept])
        return columns, conditioned(self._policy, encoding, ticks, turns % 2 == 1, chunks[ticks], self._rng)


def record_correction(
    env: SuiteEnv,
    task: str,
    goals: Sequence[Sequence[str]],
    policy: FrozenPolicy,
    memories: Sequence[MemoryRunner],
    episode: int,
    stride: int,
) -> tuple[EpisodeTicks, Conditioned | None, bool]:
    """One rollout of split "train" with a demonstrator that takes over, and whether it succeeded.

    `memories` are those that the policy acts with; they see every control step, whoever acts.
    """
    rng = stream(0, "teach", "correction", task, episode)
    runner = ChunkRunner(MemoryPolicy(policy, memories, encode_always=True), 1, min(_EXECUTE, policy.spec.horizon))
    hook = TakeOver(runner, policy, goals, rng, stride)
    env.render_on_step = False
    start = Start(task, episode, {"episode": episode, "split": "train", "wording": "training"}, rng)
    row = Row(0, env, start, policy.spec.cameras, policy.history)
    EpisodeLoop(runner, [hook]).play([row])
    return *hook.made(), row.success
