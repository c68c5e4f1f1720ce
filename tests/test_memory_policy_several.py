"""policies/memory_policy.py and policies/fuse.py with several memories at once."""

import numpy as np
import pytest
from memory_cases import Recalling, aura_for
from memory_policy_cases import Wide, noise_for, observations

from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.fuse import fuse
from vlamem.policies.memory_policy import MemoryPolicy, Tick


def test_a_partly_due_batch_is_encoded_once() -> None:
    policy = Wide()
    for memories in ([], [aura_for(policy.spec, 3)]):
        wrapped = MemoryPolicy(policy, memories, 3)
        obs, noise = observations(policy, 3), noise_for(policy, 3)
        whole = wrapped.plan(wrapped.observe(obs), noise)
        wrapped.reset()
        policy.encoded.clear()
        tick = wrapped.observe(obs)
        part = wrapped.plan(tick.of(np.array([2, 0])), noise[[2, 0]])
        assert policy.encoded == ([3] if memories else [2])
        np.testing.assert_array_equal(part, whole[[2, 0]])


def test_a_part_of_a_tick_keeps_the_answers_of_its_rows() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, [Recalling(policy.spec, 0.0, 0.0), aura_for(policy.spec, 3)], 3)
    tick = wrapped.observe(observations(policy, 2), np.array([2, 0]))
    part = tick.of(np.array([0]))
    assert part.observation.instruction == tick.observation.instruction[1:]
    np.testing.assert_array_equal(part.surprise, tick.surprise[1:])
    assert part.outs[0] is None
    assert len(part.confidence) == 1
    assert tick.of(np.array([2, 0])) is tick


def test_what_several_memories_propose_is_fused_and_sampled_once() -> None:
    policy = Wide()
    aura = aura_for(policy.spec, 2, abstain_below=0.0)
    wrapped = MemoryPolicy(
        policy, [aura, Recalling(policy.spec, 0.25, 0.5, 0.0), Recalling(policy.spec, -0.5, 0.25, 0.75)], 2
    )
    assert wrapped.ticks
    tick = wrapped.observe(observations(policy, 2))
    chunk = wrapped.plan(tick, noise_for(policy, 2))
    (fused,) = policy.sampled
    assert fused is not None
    np.testing.assert_array_equal(fused.chunk_weight, [0.5, 0.75])
    np.testing.assert_array_equal(fused.chunk[:, 0, 0], [0.25, -0.5])
    np.testing.assert_array_equal(fused.context_weight, [1.0, 1.0])
    np.testing.assert_array_equal(fused.context, tick.outs[0].context)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(tick.observation), noise_for(policy, 2), fused))


def test_memories_that_all_abstain_are_the_bare_policy() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(
        policy, [Recalling(policy.spec, 0.25, 0.0, 0.0), aura_for(policy.spec, 2, abstain_below=1.0)], 2
    )
    wrapped.plan(wrapped.observe(observations(policy, 2)), noise_for(policy, 2))
    assert policy.sampled == [None]


def test_memories_that_only_answer_a_plan_cost_no_encoding_in_between() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, [Recalling(policy.spec, 0.25, 0.5)])
    player = ChunkRunner(wrapped, 1, 4)
    player.reset(np.array([True]), [stream(0, "n")])
    for i in range(4):
        tick = player.observe(observations(policy, 1, f"tick {i}"))
        if player.due().size:
            player.plan(player.due(), tick)
        player.pop()
    assert policy.encoded == [1]


def test_two_memories_with_a_state_keep_theirs_apart() -> None:
    policy = Wide()

    def both() -> MemoryPolicy:
        return MemoryPolicy(
            policy,
            [
                aura_for(policy.spec, gate="always"),
                Recalling(policy.spec, 0.0, 0.0),
                aura_for(policy.spec, gate="never"),
            ],
        )

    first, second = both(), both()
    first.observe(observations(policy, 1, "a"))
    state = first.state(0)
    assert sorted(state) == ["0.W", "0.b", "2.W", "2.b"]
    assert first.state_bytes == 2 * 4224
    assert state["0.W"].any()
    assert not state["2.W"].any()
    second.restore(0, state)
    for wrapped in (first, second):
        wrapped.observe(observations(policy, 1, "b"))
    for name, array in first.state(0).items():
        np.testing.assert_array_equal(second.state(0)[name], array)
    alone = MemoryPolicy(policy, [aura_for(policy.spec, gate="always"), Recalling(policy.spec, 0.0, 0.0)])
    assert sorted(alone.state(0)) == ["W", "b"]
    with pytest.raises(ValueError, match=r"does not fit memories that carry \['W', 'b'\]"):
        alone.restore(0, state)


def test_the_largest_figures_of_several_memories_are_a_ticks_own() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, [aura_for(policy.spec, 2, "never"), aura_for(policy.spec, 2, "always")], 2)
    tick = wrapped.observe(observations(policy, 2))
    assert tick.wrote.all()
    outs = [out for out in tick.outs if out is not None]
    np.testing.assert_array_equal(tick.surprise, np.maximum(outs[0].surprise, outs[1].surprise))
    nothing = Tick(np.array([0, 1]), observations(policy, 2))
    assert not nothing.wrote.any()
    assert nothing.gate.shape == (2,)


def test_fusing_takes_the_surest_of_each_kind_with_its_own_weight() -> None:
    chunk, context = np.ones((3, 2, 1), np.float32), np.ones((3, 4), np.float32)
    recurrent = Proposal.of_context(context, [0.8, 0.6, 0.9])
    elite = Proposal.of_chunk(chunk, [0.4, 0.9, 0.0])
    fused = fuse([recurrent, elite])
    assert fused is not None
    np.testing.assert_allclose(fused.chunk_weight, [0.4, 0.9, 0.0])
    np.testing.assert_allclose(fused.context_weight, [0.8, 0.6, 0.9])
    np.testing.assert_array_equal(fused.context, context)
    assert fuse([]) is None
    assert fuse([Proposal.of_chunk(chunk, np.zeros(3))]) is None
    other = Proposal.of_chunk(2 * chunk, [0.5, 0.95, 0.1])
    surest = fuse([elite, other])
    assert surest is not None
    np.testing.assert_allclose(surest.chunk[:, 0, 0], [2, 2, 2])
    np.testing.assert_allclose(surest.chunk_weight, [0.5, 0.95, 0.1])
    assert surest.context is None
    tied = fuse([Proposal.of_chunk(chunk, [0.4] * 3), Proposal.of_chunk(2 * chunk, [0.4] * 3)])
    assert tied is not None
    np.testing.assert_array_equal(tied.chunk, chunk)
