"""A suite and a policy with a clock around each part, to say where an episode's time goes.

Given to the rollout as --suite and --policy of one's own, so that what is timed is what a rollout does.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.suites.protocol import Cue, Recorder, SuiteEnv, TaskInfo
from vlamem.sim.suites.registry import load_suite

PARTS = ("physics", "render", "encode", "sample")
SECONDS: dict[str, float] = defaultdict(float)
"""Time of each part since `begin`, in this process."""
_TIMED = {"policy": "tiny", "suite": "tabletop"}


def begin(policy: str, suite: str) -> None:
    """Sets the clocks to 0; `policy` and `suite` are what clocks are put around, as in `--policy` and `--suite`."""
    SECONDS.clear()
    _TIMED.update(policy=policy, suite=suite)


def _timed(part: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    began = time.perf_counter()
    done = work(*arguments, **options)
    SECONDS[part] += time.perf_counter() - began
    return done


class TimedPolicy:
    """A frozen policy; encode and sample are timed."""

    def __init__(self, policy: FrozenPolicy) -> None:
        self._policy, self.spec = policy, policy.spec
        self.history, self.lowest_start = policy.history, policy.lowest_start

    def encode(self, obs: Observation) -> Encoding:
        """The policy's, timed; a feature that is only read when a memory asks for it is in no part."""
        found: Encoding = _timed("encode", self._policy.encode, obs)
        return found

    def sample(self, encoding: Encoding, noise: np.ndarray, proposal: Proposal | None = None) -> np.ndarray:
        """The policy's, timed."""
        found: np.ndarray = _timed("sample", self._policy.sample, encoding, noise, proposal)
        return found

    def context_of(self, instruction: list[str]) -> np.ndarray:
        """The policy's."""
        return self._policy.context_of(instruction)


class TimedEnv:
    """An environment; a step without images is physics, an observation is rendering."""

    def __init__(self, env: SuiteEnv) -> None:
        self._env = env
        self.action_spec, self.control_hz = env.action_spec, env.control_hz

    @property
    def render_on_step(self) -> bool:
        """The environment's."""
        return self._env.render_on_step

    @render_on_step.setter
    def render_on_step(self, wanted: bool) -> None:
        self._env.render_on_step = wanted

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The environment's."""
        return self._env.reset(options=options)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """The environment's, timed."""
        found: tuple[dict[str, Any], float, bool, bool, dict[str, Any]] = _timed("physics", self._env.step, action)
        return found

    def observe(self) -> dict[str, Any]:
        """The environment's, timed."""
        found: dict[str, Any] = _timed("render", self._env.observe)
        return found

    @property
    def instruction(self) -> str:
        """The environment's."""
        return self._env.instruction

    def cue(self) -> Cue | None:
        """The environment's."""
        return self._env.cue()

    def expert_action(self) -> np.ndarray:
        """The environment's."""
        return self._env.expert_action()

    def close(self) -> None:
        """The environment's."""
        self._env.close()


class TimedSuite:
    """The suite named by `begin`, with clocks."""

    @property
    def name(self) -> str:
        """The suite's."""
        return _TIMED["suite"]

    @property
    def tasks(self) -> Mapping[str, TaskInfo]:
        """The suite's."""
        return load_suite(self.name).tasks

    @property
    def recorder(self) -> Recorder:
        """The suite's."""
        return load_suite(self.name).recorder

    def goals(self) -> tuple[tuple[str, ...], ...]:
        """The suite's."""
        return load_suite(self.name).goals()

    def make(self, task: str, **options: Any) -> TimedEnv:
        """The suite's environment with a clock."""
        return TimedEnv(load_suite(self.name).make(task, **options))


SUITE = TimedSuite()


def policy() -> TimedPolicy:
    """The policy named by `begin`, with a clock."""
    return TimedPolicy(load_policy(find_policy(_TIMED["policy"])))
