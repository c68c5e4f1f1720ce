"""What can be done beside an episode without a loop of its own: methods that the loop calls, which do nothing here.

A hook of one's own is a subclass of EpisodeHooks whose constructor takes a HookContext. It is one line in HOOKS, or is
named by its path, package.module:CLASS, in the `hooks` of a rollout; each worker makes its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vlamem.core.registry import Registry
from vlamem.policies.memory_policy import Decision, MemoryPolicy, Tick

if TYPE_CHECKING:
    from vlamem.sim.rollout.config import RolloutConfig
    from vlamem.sim.rollout.row import Row


class EpisodeHooks:
    """What a hook may do; a method that is not overridden does nothing.

    What a hook raises ends the episode as an error, but for DiskFullError, which ends the run.
    """

    in_rehearsal = False
    """Whether it also takes part in an episode that is played for another's sake, such as the donor of `swap`."""

    def before_reset(self, row: "Row") -> None:
        """An episode is about to begin in a row whose environment still stands where the last one ended."""

    def episode_began(self, row: "Row") -> None:
        """The environment, the memories and the action queue of a row were reset."""

    def before_tick(self, row: "Row") -> None:
        """Each control step, before memories and policy: `row.seen` is what they will see, where they want it."""

    def after_tick(self, row: "Row", tick: Tick) -> None:
        """Each control step of memories that tick; `tick` has this row among others."""

    def planned(self, row: "Row", at: int, decision: Decision) -> None:
        """A chunk was planned for a row; it is number `at` of the decision."""

    def act(self, row: "Row", action: Float[np.ndarray, "A"]) -> Float[np.ndarray, "A"]:
        """The action that is executed in place of the policy's or the expert's."""
        return action

    def stepped(self, row: "Row", action: Float[np.ndarray, "A"], info: dict[str, Any]) -> None:
        """One control step was made; `row.full` is still what was seen before it."""

    def episode_ended(self, row: "Row") -> None:
        """The task ended the episode; what is put into `row.progress` goes into its record. Not after an error."""

    def close(self) -> None:
        """No more episodes are played."""


@dataclass(frozen=True)
class HookContext:
    """What a hook is made of.

    Attributes:
        config: of the run.
        policy: that plays, with its memories; None for a scripted expert.
        rehearse: plays an episode in a row, up to where a function of the row says so, for another's sake: without
            hooks but those that say `in_rehearsal`, and without a record.
    """

    config: "RolloutConfig"
    policy: MemoryPolicy | None
    rehearse: Callable[["Row", int, Callable[["Row"], bool]], None]


HookFactory = Callable[[HookContext], EpisodeHooks]
HOOKS: Registry[HookFactory] = Registry(
    "hook",
    {
        "camera-noise": "vlamem.sim.rollout.camera:CameraNoise",
        "state-ablation": "vlamem.sim.rollout.ablations:StateAblation",
        "oracle": "vlamem.sim.rollout.oracles:OracleLook",
        "video": "vlamem.sim.rollout.camera:Video",
        "learn": "vlamem.sim.rollout.traces:LearnFromEpisodes",
        "trace": "vlamem.sim.rollout.tick_traces:TraceTicks",
    },
)
"""Hooks in the order in which they are called; those above are used where the options of a run ask for them."""
register = HOOKS.register
