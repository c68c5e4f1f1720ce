"""What a success memory costs a decision: processor time with and without it, on the same observations in turn."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.success.runner import SuccessRunner
from vlamem.policies.memory_policy import Decision, MemoryPolicy
from vlamem.sim.bench.deployment.play import Kit, play_trial
from vlamem.sim.rollout.row import Start
from vlamem.sim.suites.protocol import SuiteEnv

_WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """Milliseconds of processor time of each decision: bare, and with the memory."""

    bare: tuple[float, ...]
    memory: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median with the memory over median without."""
        return float(np.median(self.memory) / np.median(self.bare))


def processor_ms(call: Callable[[], object]) -> float:
    """Milliseconds of processor time that a call takes, which other processes hardly change."""
    began = time.process_time()
    call()
    return 1e3 * (time.process_time() - began)


def measure_decisions(env: SuiteEnv, kit: Kit, memory: SuccessRunner, states: Sequence[int]) -> Cost:
    """Plays trials with a filled memory and makes every decision again both ways; the first three are warm-up."""
    alone, joined = MemoryPolicy(kit.policy), MemoryPolicy(kit.policy, (memory,))
    spec = kit.policy.spec
    rows: list[tuple[float, float]] = []

    def watch(decision: Decision) -> None:
        noise = draw.standard_normal((1, spec.horizon, spec.action.size), dtype=np.float32)
        seen = decision.tick.observation

        def planned(policy: MemoryPolicy) -> float:
            return processor_ms(lambda: policy.plan(policy.observe(seen), noise))

        first, second = (alone, joined) if len(rows) % 2 else (joined, alone)
        times = {id(policy): planned(policy) for policy in (first, second)}
        rows.append((times[id(alone)], times[id(joined)]))

    for state in states:
        draw = stream(kit.seed, "timing sampler", state)
        options = {"episode": state, "split": "test", "wording": "training"}
        play_trial(env, kit, memory, Start("timing", state, options, stream(kit.seed, "timing", state)), watch)
    kept = rows[_WARM_UP:]
    return Cost(tuple(r[0] for r in kept), tuple(r[1] for r in kept))
