"""What a success memory costs: search in 100,000 segments, storing an episode, a decision with and without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.success import Episode, Layout, MemoryOptions, Origin, Segment, SuccessMemory
from vlamem.memory.success.retrieve import ExactIndex
from vlamem.memory.success.runner import SuccessRunner
from vlamem.policies.memory_policy import Decision
from vlamem.sim.bench.deployment.play import Kit, clock, play_trial
from vlamem.sim.rollout.row import Start
from vlamem.sim.suites.protocol import SuiteEnv

NEIGHBOURS = 16


@dataclass(frozen=True)
class Search:
    """Exact search of 16 in many segments: percentiles [ms], recall against brute force in double precision."""

    segments: int
    queries: int
    p50: float
    p99: float
    recall: float


def measure_search(
    segments: int,
    queries: int,
    size: int,
    seed: int = 0,
    decay: float | None = None,
    timer: Callable[[Callable[[], object]], float] = clock,
) -> Search:
    """Searches random unit vectors, for which no index can take a short cut, from states near some of them.

    With `decay` the variance falls by this factor from one direction to the next, as that of a policy's keys does, and
    queries are further such vectors. `timer` gives the milliseconds that a call takes.
    """
    draw = stream(seed, "search", segments, size)
    vectors = draw.standard_normal((segments, size), dtype=np.float32)
    noise = draw.standard_normal((queries, size), dtype=np.float32)
    if decay is None:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        asked = vectors[draw.integers(segments, size=queries)] + np.float32(0.1) * noise
    else:
        spread = (decay ** (np.arange(size) / 2)).astype(np.float32)
        vectors *= spread
        asked = noise * spread
    index = ExactIndex(size)
    index.add(vectors, np.arange(segments), np.zeros(segments, np.int64))
    for query in asked[:20]:
        index.search(query, NEIGHBOURS)
    times = [timer(lambda q=q: index.search(q, NEIGHBOURS)) for q in asked]  # type: ignore[misc]  # bound at once
    checked = asked[: min(queries, max(1, 10_000_000 // segments), 100)]
    true = _nearest(vectors, checked)
    found = sum(
        len(set(row.tolist()) & set(index.search(query, NEIGHBOURS)[0].tolist()))
        for row, query in zip(true, checked, strict=True)
    )
    p50, p99 = np.percentile(times, (50, 99))
    return Search(segments, queries, float(p50), float(p99), found / (NEIGHBOURS * len(checked)))


def _nearest(vectors: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Positions of the NEIGHBOURS nearest of each query, measured one by one in double precision."""
    distances = np.empty((len(asked), len(vectors)))
    wide = asked.astype(np.float64)
    for start in range(0, len(vectors), 65_536):
        block = vectors[start : start + 65_536].astype(np.float64)
        distances[:, start : start + len(block)] = (block**2).sum(axis=1) - 2 * wide @ block.T
    return np.asarray(np.argpartition(distances, NEIGHBOURS, axis=1)[:, :NEIGHBOURS])


def measure_commits(folder: Path, layout: Layout, episodes: int, segments: int, seed: int = 0) -> list[float]:
    """Milliseconds to store each of some episodes, durably, in a memory of 1,000 segments on this file system."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "commits.db"
    for old in folder.glob("commits.db*"):
        old.unlink()
    options = MemoryOptions(most_segments=1000)
    with SuccessMemory(path, Origin("bench", "bench", "bench", "bench"), layout, options) as memory:
        for i in range(-(-1000 // segments)):
            memory.commit(_episode(layout, i, segments, seed))
        return [memory.commit(_episode(layout, 10_000 + i, segments, seed)).milliseconds for i in range(episodes)]


def _episode(layout: Layout, number: int, segments: int, seed: int) -> Episode:
    draw = stream(seed, "commits", number)
    made = []
    for i in range(segments):
        key = draw.standard_normal(layout.key_size).astype(np.float32)
        state = draw.uniform(-0.2, 0.2, layout.proprioception_size).astype(np.float32)
        if layout.quaternion is not None:
            state[layout.quaternion : layout.quaternion + 4] = (1, 0, 0, 0)
        chunk = draw.uniform(-0.5, 0.5, (layout.horizon, layout.action_size)).astype(np.float32)
        made.append(Segment(i, i / segments, key / np.linalg.norm(key), state, chunk))
    return Episode(f"commit-{number}", "measure", "success", "predicate", 1.0, float(number), tuple(made))


@dataclass(frozen=True)
class DecisionTimes:
    """Milliseconds of each decision, the two ways in turn on the same observations.

    Attributes:
        bare: encode and sample.
        chain: encode, ask the memory, sample with its proposal.
        spoke: whether the memory did, of each.
        bare_sampling, steered_sampling: sampling alone, where the memory spoke.
    """

    bare: tuple[float, ...]
    chain: tuple[float, ...]
    spoke: tuple[bool, ...]
    bare_sampling: tuple[float, ...]
    steered_sampling: tuple[float, ...]

    def ratio(self, spoke: bool) -> float | None:
        """Median of chain over median of bare, where the memory spoke or where it was silent; None without any."""
        at = np.array(self.spoke, bool) == spoke
        return float(np.median(np.array(self.chain)[at]) / np.median(np.array(self.bare)[at])) if at.any() else None


def measure_decisions(env: SuiteEnv, kit: Kit, memory: SuccessRunner, states: Sequence[int]) -> DecisionTimes:
    """Plays trials with a filled memory, timing every decision both ways; the first three are warm-up."""
    rows: list[tuple[float, float, bool]] = []
    sampling: list[tuple[float, float]] = []

    def watch(decision: Decision) -> None:
        policy, observation, encoding = kit.policy, decision.tick.observation, decision.encoding
        shape = (1, policy.spec.horizon, policy.spec.action.size)
        noise = draw.standard_normal(shape, dtype=np.float32)

        def bare() -> None:
            policy.sample(policy.encode(observation), noise)

        def chain() -> None:
            seen = policy.encode(observation)
            policy.sample(seen, noise, memory.query(seen.key, observation.proprioception, observation.instruction))

        both = (clock(bare), clock(chain)) if len(rows) % 2 else (clock(chain), clock(bare))[::-1]
        spoke = bool(decision.weight[0] > 0)
        rows.append((both[0], both[1], spoke))
        if spoke:
            steered = clock(lambda: policy.sample(encoding, noise, decision.proposal))
            sampling.append((clock(lambda: policy.sample(encoding, noise)), steered))

    for state in states:
        draw = stream(kit.seed, "timing sampler", state)
        options = {"episode": state, "split": "test", "wording": "training"}
        play_trial(env, kit, memory, Start("timing", state, options, stream(kit.seed, "timing", state)), watch)
    kept, spoken = rows[3:], sampling[3:]
    return DecisionTimes(
        tuple(r[0] for r in kept),
        tuple(r[1] for r in kept),
        tuple(r[2] for r in kept),
        tuple(s[0] for s in spoken),
        tuple(s[1] for s in spoken),
    )
