"""sim/record/corrections.py: rollouts of a policy with a memory in which a demonstrator takes over now and then."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vlamem.core.observation import Observation
from vlamem.memory.train.conditioning import read_conditioning
from vlamem.memory.train.features import EpisodeTicks, Features
from vlamem.policies.choice import contradiction
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.record.corrections import ACTOR, FIRST, record_correction
from vlamem.sim.record.demonstrations import DemonstrationCollection, collect_here
from vlamem.sim.suites.tabletop import SUITE
from vlamem.sim.suites.tabletop.env import TabletopEnv

TASK = "recall_colour"


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    made = SUITE.make(TASK)
    yield made
    made.close()


def correction(env: TabletopEnv, episode: int) -> tuple[EpisodeTicks, np.ndarray, np.ndarray]:
    source = find_policy("tiny")
    policy = load_policy(source)
    memories = load_memories(parse_memories(("aura",)), policy, source.sha256, 1)
    ticks, rows, _ = record_correction(env, TASK, SUITE.goals(), policy, memories, episode, 2)
    assert rows is not None
    return ticks, rows.tick, rows.disagreement


def test_the_same_episode_is_recorded_the_same_whatever_came_before(env: TabletopEnv) -> None:
    first = correction(env, FIRST)
    correction(env, FIRST + 1)
    again = correction(env, FIRST)
    for name in ("z", "chunk", "goal", "asked"):
        np.testing.assert_array_equal(getattr(first[0], name), getattr(again[0], name), err_msg=name)
    for one, other in zip(first[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_kept_is_the_demonstrators_alone(env: TabletopEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = np.array([0, 0, 0, 0, 0, 0, 0.125])  # it stands still
    monkeypatch.setattr(TabletopEnv, "expert_action", lambda self: marked)
    ticks, kept, _ = correction(env, FIRST)
    assert len(kept) > 5
    assert (ticks.chunk[kept] == marked).all()
    others = np.setdiff1d(np.arange(len(ticks.z)), kept)
    assert (ticks.chunk[others][:, 0] != marked).any(axis=1).sum() > 5  # the policy acted too
    assert kept.min() >= 8  # first of all
    assert (ticks.goal[:, 0] == ticks.goal[:, 1]).all()
    assert not ticks.asked.any()


def test_a_demonstrator_who_contradicts_the_policy_makes_a_moment_of_choice(env: TabletopEnv) -> None:
    policy = load_policy(find_policy("tiny"))
    env.reset(options={"episode": 0})
    seen = env.observe()
    obs = Observation(
        {name: seen[name][None] for name in policy.spec.cameras}, seen["proprioception"][None], (seen["instruction"],)
    )
    encoding = policy.encode(obs)
    noise = np.random.default_rng(0).standard_normal((1, policy.spec.horizon, 7), dtype=np.float32)
    own = policy.sample(encoding, noise)
    away = own.copy()
    away[..., :3] -= np.sign(own[..., :3].sum(1, keepdims=True))
    rng = np.random.default_rng(1)
    assert contradiction(policy, encoding, away, rng)[0] > 5 * contradiction(policy, encoding, own, rng)[0]


def test_a_recording_of_corrections_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def record(count: int) -> Features:
        collect_here(DemonstrationCollection("tiny", {}, tmp_path, corrections={TASK: count}, memory="aura"))
        return Features(tmp_path / "worker-0")

    first = record(1)
    assert [(e.task, e.episode, e.actor) for e in first.episodes] == [(TASK, FIRST, ACTOR)]
    assert "aura" in first.meta.memory
    before = first.ticks(first.episodes[0]).z.copy()
    both = record(2)
    assert [e.episode for e in both.episodes] == [FIRST, FIRST + 1]
    np.testing.assert_array_equal(both.ticks(both.episodes[0]).z, before)
    assert all(len(read_conditioning(tmp_path / "worker-0", e).tick) for e in both.episodes)
