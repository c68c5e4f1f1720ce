"""What a policy would have planned had its memory not seen some control steps, by playing an episode again.

The recorded commands are executed, so that everything but the memory is as it was.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.policies.memory_policy import Decision, State, Tick
from vlamem.policies.tick_recorder import TickColumns
from vlamem.sim.rollout.config import PlanError, RolloutConfig
from vlamem.sim.rollout.episode import Player
from vlamem.sim.rollout.hooks import EpisodeHooks
from vlamem.sim.rollout.row import Row


@dataclass(frozen=True)
class Replanned:
    """A plan of an episode that was played again.

    Attributes:
        chunk: [H, A], within the bounds of the action spec.
        columns: of its trace.
    """

    chunk: Float[np.ndarray, "H A"]
    columns: dict[str, Any]


def config_of(run: Path, configuration: Mapping[str, Any]) -> RolloutConfig:
    """The configuration of a recorded run, as one that plays here, without records.

    Raises PlanError for a run of a memory that has learned since, or one whose configuration is not of this version.
    """
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in configuration.items()
    }
    here: dict[str, Any] = {"out": run, "workers": 0, "video": 0, "watchdog_s": 60.0, "retry_errors": False}
    try:
        config = RolloutConfig(**given | here | {"trace": False, "batch": 1})
    except TypeError as error:
        raise PlanError(f"{run} cannot be played again: its configuration is of another version ({error})") from error
    if config.learns:
        raise PlanError(
            f"{run} cannot be played again: its memory of {' '.join(config.memory)} has learned from later episodes"
        )
    return config


def replan(
    config: RolloutConfig,
    task: str,
    episode: int,
    commands: Sequence[Sequence[float]],
    plan: int,
    unseen: Collection[int] = (),
) -> Replanned:
    """The plan made at step `plan` of an episode whose commands were these, where memory saw no step in `unseen`.

    Raises PlanError where nothing is planned at that step, and what `Player` raises.
    """
    hook = _Unseen(commands, plan, frozenset(unseen))
    player = Player(replace(config, tasks=(task,), episodes=episode + 1), lambda: None, [hook])
    try:
        hook.columns = TickColumns(player.policy)
        record = player.play(task, episode)
    finally:
        player.close()
    if record.error is not None:
        raise PlanError(f"{task} {episode} of {config.out} cannot be played again: {record.error}")
    if hook.found is None:
        raise PlanError(f"nothing is planned at step {plan} of {task} {episode} when it is played again")
    return hook.found


class _Unseen(EpisodeHooks):
    """Gives a memory back what it held before each step that it is not to see, and keeps one plan."""

    def __init__(self, commands: Sequence[Sequence[float]], plan: int, unseen: frozenset[int]) -> None:
        self._commands, self._plan, self._without = commands, plan, unseen
        self.columns = TickColumns(None)
        self.found: Replanned | None = None
        self._before: State = {}

    def before_tick(self, row: Row) -> None:
        """Keeps what the memory holds."""
        policy = self.columns.policy
        if row.steps in self._without and policy is not None:
            self._before = policy.state(row.index)

    def after_tick(self, row: Row, tick: Tick) -> None:
        """Gives it back."""
        policy = self.columns.policy
        if row.steps in self._without and policy is not None:
            policy.restore(row.index, self._before)

    def planned(self, row: Row, at: int, decision: Decision) -> None:
        """Ends the episode at the plan that was asked for."""
        if row.steps == self._plan:
            self.found = Replanned(np.array(decision.chunks[at]), self.columns.planned(decision, at))
            row.progress["outcome"], row.ended = "failure", True  # the record is not used

    def act(self, row: Row, action: Float[np.ndarray, "A"]) -> Float[np.ndarray, "A"]:
        """The recorded command."""
        return np.asarray(self._commands[row.steps], np.float32)
