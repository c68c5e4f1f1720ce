"""What a memory's tick costs beside a plan: p50, p95 and p99 of both for each of several frozen policies."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, label_of, load_policy
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import Percentiles, percentiles

WARM = 5
"""Ticks and plans before the clock starts."""


@dataclass(frozen=True)
class Cost:
    """Times of one frozen policy, one row at a time.

    Attributes:
        name: as the page calls it.
        feature: size of the memory's feature.
        tick: reading the feature of an observation, which a memory asks for at every control step.
        plan: a chunk from an observation, without a memory.
    """

    name: str
    feature: int
    tick: Percentiles
    plan: Percentiles

    @property
    def share(self) -> float:
        """Median tick over median plan."""
        return self.tick.p50 / self.plan.p50


def measure(policy: FrozenPolicy, name: str, rounds: int) -> Cost:
    """Times `rounds` ticks and plans in turn, after a warm-up, each on pixels that were not seen before."""
    spec, draw = policy.spec, stream(0, "throughput", name)
    shape = (1, spec.image_size, spec.image_size, 3)
    ticks: list[float] = []
    plans: list[float] = []
    for _ in range(WARM + rounds):
        images = {camera: draw.integers(0, 256, shape, dtype=np.uint8) for camera in spec.cameras}
        state = draw.uniform(-0.5, 0.5, (1, spec.proprioception_size)).astype(np.float32)
        seen = Observation(images, state, ("touch the red block",))
        noise = draw.standard_normal((1, spec.horizon, spec.action.size), dtype=np.float32)
        began = time.perf_counter()
        _ = policy.encode(seen).z
        middle = time.perf_counter()
        policy.sample(policy.encode(seen), noise)
        ticks.append(1e3 * (middle - began))
        plans.append(1e3 * (time.perf_counter() - middle))
    return Cost(name, spec.feature_size, percentiles(ticks[WARM:]), percentiles(plans[WARM:]))


def cost_of(policy: str, rounds: int) -> Cost:
    """The cost of a policy by name. Raises what `find_policy` and `load_policy` raise."""
    return measure(load_policy(find_policy(policy)), label_of(policy), rounds)


def figures_of(costs: Sequence[Cost]) -> dict[str, Figure]:
    """Median tick and plan [ms] of each policy, and what share of a plan a tick is."""
    found = {}
    for cost in costs:
        found[f"tick_ms_{cost.name}"] = Figure(cost.tick.p50, cost.tick.n)
        found[f"plan_ms_{cost.name}"] = Figure(cost.plan.p50, cost.plan.n)
        found[f"tick_share_{cost.name}"] = Figure(cost.share, cost.tick.n)
    return found
