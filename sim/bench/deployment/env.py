"""Where trials are played: a suite's environment, in the tabletop suite under a shift."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlamem.core.spec import ActionSpec
from vlamem.sim.suites.protocol import Cue, SuiteEnv
from vlamem.sim.suites.tabletop.shift import Shift


@runtime_checkable
class DeployedEnv(SuiteEnv, Protocol):
    """A SuiteEnv that knows the shift it is under."""

    shift: Shift

    def change(self, shift: Shift) -> None:
        """Puts another shift in place of this one; takes full effect at the next `reset`."""
        ...


class UnshiftedEnv:
    """An environment of any suite as it is; a DeployedEnv that stays without a shift."""

    def __init__(self, env: SuiteEnv) -> None:
        self.env = env
        self.action_spec: ActionSpec = env.action_spec
        self.control_hz = env.control_hz
        self.render_on_step = env.render_on_step = False
        self.shift = Shift()

    def change(self, shift: Shift) -> None:
        """Raises ValueError for a shift: they are made of the tabletop's model."""
        if shift != Shift():
            raise ValueError(f"shift {shift.kind!r} is of the tabletop suite: this environment has none")

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; `options` as the suite takes them."""
        self.env.render_on_step = self.render_on_step
        return self.env.reset(options=options)

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step."""
        return self.env.step(action)

    def observe(self) -> dict[str, Any]:
        """The whole observation of this moment, images included."""
        return self.env.observe()

    @property
    def instruction(self) -> str:
        """The sentence of this moment."""
        return self.env.instruction

    def cue(self) -> Cue | None:
        """What the task hides at this moment."""
        return self.env.cue()

    def expert_action(self) -> Float[np.ndarray, "A"]:
        """The scripted expert's action."""
        return self.env.expert_action()

    def close(self) -> None:
        """Frees the simulation."""
        self.env.close()
