"""What a memory's tick costs beside a plan: p50, p95 and p99 of both for each of several frozen policies."""

import time
from dataclasses import dataclass

import numpy as np

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, label_of, load_policy
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import Percentiles, percentiles

_WARM = 5


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
    for _ in range(_WARM + rounds):
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
    return Cost(name, spec.feature_size, percentiles(ticks[_WARM:]), percentiles(plans[_WARM:]))


def cost_of(policy: str, rounds: int) -> Cost:
    """The cost of a policy by name. Raises what `find_policy` and `load_policy` raise."""
    return measure(load_policy(find_policy(policy)), label_of(policy), rounds)


def figures_of(costs: list[Cost]) -> dict[str, Figure]:
    """Median tick and plan [ms] of each policy, and what share of a plan a tick is."""
    found = {}
    for cost in costs:
        found[f"tick_ms_{cost.name}"] = Figure(cost.tick.p50, cost.tick.n)
        found[f"plan_ms_{cost.name}"] = Figure(cost.plan.p50, cost.plan.n)
        found[f"tick_share_{cost.name}"] = Figure(cost.share, cost.tick.n)
    return found


def section(costs: list[Cost]) -> list[str]:
    """The page's lines."""
    lines = [
        "## A memory's tick beside a plan",
        "",
        "At control steps between two plans a memory needs the policy's feature alone: the vision tower, or the part",
        "of it that the tap needs, and nothing behind it. A plan is the whole forward pass without a memory. One row",
        f"at a time, one after the other, after {_WARM} of each. The policies of tests/lerobot_cases.py are lerobot's",
        "own classes at small sizes with random weights: their times say nothing of a trained policy's, and in a large",
        "one the part behind the vision tower is a larger part of the whole.",
        "",
        "| policy | feature | tick p50 / p95 / p99 ms | plan p50 / p95 / p99 ms | tick / plan |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cost in costs:
        tick, plan = (f"{p.p50:.2f} / {p.p95:.2f} / {p.p99:.2f}" for p in (cost.tick, cost.plan))
        lines.append(f"| {cost.name} | {cost.feature} | {tick} | {plan} | {cost.share:.2f} |")
    return lines
