"""policies/memory_policy.py with one memory, over every shipped policy."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from memory_cases import Recalling, aura_for
from memory_policy_cases import Wide, noise_for, observations

from vlamem.core.seeding import stream
from vlamem.memory.runner import INJECTIONS, InjectOptions
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memory_policy import MemoryPolicy, Tick
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy


@pytest.fixture(scope="module", params=["wide", "tiny"])
def policy(request: pytest.FixtureRequest) -> FrozenPolicy:
    """Every policy that ships, and a test policy that follows whatever is proposed."""
    return Wide() if request.param == "wide" else load_policy(find_policy(request.param))


def test_without_a_memory_the_plan_is_the_bare_policys_bit_for_bit(policy: FrozenPolicy) -> None:
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    wrapped = MemoryPolicy(policy, rows=2)
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(obs), noise))
    assert not wrapped.ticks
    assert wrapped.state_bytes == 0
    assert wrapped.state(0) == {}


@pytest.mark.parametrize("inject", INJECTIONS)
def test_confidence_below_the_threshold_leaves_the_policy_bit_for_bit(policy: FrozenPolicy, inject: Any) -> None:
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec, 2, inject=inject, abstain_below=1.0)], 2)
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(obs), noise))


@pytest.mark.parametrize("inject", INJECTIONS)
def test_a_memory_that_is_sure_changes_the_plan(policy: FrozenPolicy, inject: Any) -> None:
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec, 2, inject=inject, abstain_below=0.0)], 2)
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    assert not np.array_equal(chunk, policy.sample(policy.encode(obs), noise))


@pytest.mark.parametrize("inject", ["context", "both"])
def test_a_trusted_residual_is_injected_whole_whatever_the_confidence(inject: Any) -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec, inject=inject, abstain_below=0.0)])
    tick = wrapped.observe(observations(policy, 1))
    assert tick.encoding is not None
    (proposed,), (out,) = wrapped.propose(tick, tick.encoding), tick.outs
    assert out is not None
    assert 0 < out.confidence[0] < 0.99
    np.testing.assert_array_equal(proposed.context_weight, [1.0])
    np.testing.assert_array_equal(proposed.context, out.context)
    assert (proposed.chunk is None) == (inject == "context")


def test_a_learned_chunk_leaves_the_sampler_the_part_of_the_flow_that_the_policy_asks_for() -> None:
    policy = Wide()
    out = aura_for(policy.spec).step(noise_for(policy, 1)[:, 0, :1].repeat(19, 1), np.array([0]))
    sure = out._replace(confidence=np.array([0.95], np.float32))
    options = InjectOptions("chunk")
    assert options.proposal(sure, 0.2).chunk_weight == np.float32(0.8)
    assert options.proposal(sure, 0.0).chunk_weight == np.float32(0.95)
    assert options.proposal(sure, 0.2).context is None


def test_reset_of_one_row_leaves_the_others(policy: FrozenPolicy) -> None:
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec, 3, "always")], 3)
    for i in range(3):
        wrapped.observe(observations(policy, 3, f"tick {i}"))
    before = [wrapped.state(row) for row in range(3)]
    assert all(np.abs(state["W"]).max() > 0 for state in before)
    wrapped.reset(np.array([False, True, False]))
    for row in (0, 2):
        for name, array in wrapped.state(row).items():
            np.testing.assert_array_equal(array, before[row][name])
    assert not wrapped.state(1)["W"].any()
    wrapped.reset()
    assert not any(wrapped.state(row)["W"].any() for row in range(3))


@pytest.mark.parametrize("gate", ["learned", "periodic"])
def test_a_batch_equals_single_rows(gate: str) -> None:
    policy, options = Wide(), {"inject": "both", "abstain_below": 0.0}
    together = MemoryPolicy(policy, [aura_for(policy.spec, 3, gate, 0.5, **options)], 3)
    single = [MemoryPolicy(policy, [aura_for(policy.spec, 1, gate, 0.5, **options)]) for _ in range(3)]
    noise, exact = noise_for(policy, 3), gate == "learned"  # JAX rounds by the size of a batch

    def same(found: Any, wanted: Any) -> None:
        assert np.array_equal(found, wanted) if exact else np.allclose(found, wanted, rtol=1e-4, atol=1e-4)

    for i in range(4):
        obs = observations(policy, 3, f"tick {i}")
        chunks = together.plan(together.observe(obs), noise)
        for row in range(3):
            alone = single[row].plan(single[row].observe(obs.rows([row])), noise[row : row + 1])
            same(chunks[row : row + 1], alone)
    for row in range(3):
        same(together.state(row)["W"], single[row].state(0)["W"])


def test_a_saved_row_goes_on_as_it_would_have() -> None:
    policy = Wide()
    first, second = (MemoryPolicy(policy, [aura_for(policy.spec, gate="always")]) for _ in range(2))
    first.observe(observations(policy, 1, "a"))
    second.restore(0, first.state(0))
    for wrapped in (first, second):
        wrapped.observe(observations(policy, 1, "b"))
    np.testing.assert_array_equal(first.state(0)["W"], second.state(0)["W"])
    kept = first.state(0)
    for wrong in ({"h": np.zeros(3)}, {"W": kept["W"]}, kept | {"h": np.zeros(3)}, kept | {"b": np.zeros(3)}):
        with pytest.raises(ValueError, match="does not fit"):
            first.restore(0, wrong)
    np.testing.assert_array_equal(first.state(0)["W"], kept["W"])


def test_the_memory_ticks_at_every_control_step_also_inside_a_chunk() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec, gate="always")])
    player = ChunkRunner(wrapped, 1, 4)
    player.reset(np.array([True]), [stream(0, "n")])
    states = []
    for i in range(4):
        tick = player.observe(observations(policy, 1, f"tick {i}"))
        if player.due().size:
            assert i == 0
            player.plan(player.due(), tick)
        player.pop()
        states.append(wrapped.state(0)["W"])
    assert all(not np.array_equal(a, b) for a, b in pairwise(states))


def test_a_write_cuts_the_running_chunk_short_when_asked_to() -> None:
    policy = Wide()
    for replan, due in ((False, []), (True, [0])):
        wrapped = MemoryPolicy(policy, [aura_for(policy.spec, gate="always", replan_on_write=replan)])
        player = ChunkRunner(wrapped, 1, 4)
        player.reset(np.array([True]), [stream(0, "n")])
        player.plan(player.due(), player.observe(observations(policy, 1)))
        player.pop()
        player.observe(observations(policy, 1))
        assert player.due().tolist() == due


def test_outputs_of_a_step_are_left_alone_by_later_steps() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec, gate="always")])
    (out,) = wrapped.observe(observations(policy, 1, "a")).outs
    assert out is not None
    kept = [None if x is None else np.array(x) for x in out]
    wrapped.observe(observations(policy, 1, "b"))
    for before, now in zip(kept, out, strict=True):
        assert before is None if now is None else np.array_equal(before, now)


def test_state_bytes_of_aura_are_4224() -> None:
    assert MemoryPolicy(Wide(), [aura_for(Wide().spec)]).state_bytes == 4224


def test_controls_that_run_in_jax_give_what_the_tick_gives() -> None:
    policy = Wide()
    ticked = MemoryPolicy(policy, [aura_for(policy.spec, gate="always")])
    every = MemoryPolicy(policy, [aura_for(policy.spec, gate="periodic", rate=1.0)])
    for i in range(3):
        obs = observations(policy, 1, f"tick {i}")
        one, other = ticked.observe(obs), every.observe(obs)
    assert one.outs[0] is not None
    assert other.outs[0] is not None
    np.testing.assert_allclose(one.outs[0].context, other.outs[0].context, rtol=1e-3, atol=1e-4)
    assert other.wrote.all()


def test_a_tick_that_has_not_seen_a_row_cannot_plan_it() -> None:
    policy = Wide()
    player = ChunkRunner(MemoryPolicy(policy, [aura_for(policy.spec, 2)], 2), 2, 4)
    player.reset(np.array([True, True]), [stream(0, "a"), stream(0, "b")])
    tick = player.observe(observations(policy, 1), np.array([0]))
    with pytest.raises(ValueError, match="row 1 was not observed"):
        player.plan(np.array([1]), tick)


def test_a_plan_without_the_ticks_that_a_memory_needs_is_refused() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec)])
    with pytest.raises(ValueError, match="memory 'aura' was not ticked before this plan"):
        wrapped.plan(Tick(np.array([0]), observations(policy, 1)), noise_for(policy, 1))
    with pytest.raises(ValueError, match="2 observations for rows \\[0\\]"):
        wrapped.observe(observations(policy, 2))
    with pytest.raises(ValueError, match="'recalling' does not tick"):
        Recalling(policy.spec, 0.0, 0.0).step(np.zeros((1, 16), np.float32), np.array([0]))
