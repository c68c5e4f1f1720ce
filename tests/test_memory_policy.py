"""policies/memory_policy.py and policies/fuse.py, over every shipped policy and several memories at once."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import point_mass
import pytest
from memory_cases import Recalling, aura_for, config_for, runner, save_gate

import vlamem
from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.memory.designs.aura import AuraConfig, HeadConfig
from vlamem.memory.registry import MemoryName, MemoryNameError, load_memory
from vlamem.memory.runner import INJECTIONS, InjectOptions
from vlamem.memory.weights import WeightsError, identity
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.fuse import fuse
from vlamem.policies.memories import SHIPPED
from vlamem.policies.memory_policy import MemoryPolicy, Tick
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy


class Wide(point_mass.PointPolicy):
    """The point-mass policy with features wide enough for a memory and a context that it follows."""

    def __init__(self) -> None:
        super().__init__(replace(point_mass.SPEC, feature_size=16, context_size=3))
        self.encoded: list[int] = []
        self.sampled: list[Proposal | None] = []

    def encode(self, obs: Observation) -> Encoding:
        self.encoded.append(len(obs))
        narrow = super().encode(obs)
        z = np.tile(narrow.z, (1, 8)) * np.arange(1, 17, dtype=np.float32)
        angle = narrow.z[:, 0]
        key = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
        return replace(narrow, z=z, key=key, context=np.zeros((len(z), 3), np.float32))

    def sample(self, encoding: Encoding, noise: Any, proposal: Proposal | None = None) -> Any:
        self.sampled.append(proposal)
        chunk = 0.5 * np.asarray(noise, np.float32)
        chunk[..., :2] += encoding.z[:, None, :2]
        if proposal is not None:
            w = proposal.context_weight[:, None, None]
            if proposal.context is not None:
                moved = chunk.copy()
                moved[..., :3] += w * proposal.context[:, None]
                chunk = np.where(w > 0, moved, chunk)
            w = proposal.chunk_weight[:, None, None]
            if proposal.chunk is not None:
                chunk = np.where(w > 0, (1 - w) * chunk + w * proposal.chunk, chunk)
        return chunk.astype(np.float32)

    def context_of(self, instruction: list[str]) -> Any:
        return np.array([[len(s), s.count("e"), 1.0] for s in instruction], np.float32)


def observations(policy: FrozenPolicy, rows: int, name: str = "obs") -> Observation:
    spec, draw = policy.spec, stream(0, name)
    size = (rows, spec.image_size, spec.image_size, 3)
    body = draw.uniform(-0.1, 0.3, (rows, spec.proprioception_size)).astype(np.float32)
    images = {c: draw.integers(0, 255, size, dtype=np.uint8) for c in spec.cameras}
    return Observation(images, body, ("touch the red block",) * rows)


def noise_for(policy: FrozenPolicy, rows: int) -> Any:
    size = (rows, policy.spec.horizon, policy.spec.action.size)
    return stream(0, "noise").standard_normal(size).astype(np.float32)


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
    tolerance = {} if exact else {"rtol": 1e-4, "atol": 1e-4}
    same: Any = np.testing.assert_array_equal if exact else np.testing.assert_allclose
    for i in range(4):
        obs = observations(policy, 3, f"tick {i}")
        chunks = together.plan(together.observe(obs), noise)
        for row in range(3):
            alone = single[row].plan(single[row].observe(obs.rows([row])), noise[row : row + 1])
            same(chunks[row : row + 1], alone, **tolerance)
    for row in range(3):
        same(together.state(row)["W"], single[row].state(0)["W"], **tolerance)


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


def test_what_a_step_said_is_left_alone_by_later_steps() -> None:
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


def test_a_gate_of_another_policy_is_refused_and_both_are_named(tmp_path: Path) -> None:
    policy = Wide()
    mine = identity(policy.spec, "a" * 64)
    path = save_gate(tmp_path / "gate.safetensors", config_for(policy.spec), mine)
    name = MemoryName.parse(f"aura:{path}")
    for sha256 in ("a" * 64, None):  # the policy's own weights need not be known
        assert load_memory(name, policy, sha256, 1).spec.feature_size == 19
    assert vlamem.wrap(policy, str(name)).ticks
    with pytest.raises(WeightsError, match="was trained for policy 'points'"):
        load_memory(name, policy, "b" * 64, 1)
    save_gate(path, config_for(policy.spec), replace(mine, normaliser="another"))
    with pytest.raises(WeightsError, match="was trained for policy 'points'"):
        load_memory(name, policy, "a" * 64, 1)
    with pytest.raises(WeightsError, match="features of size 19"):
        vlamem.wrap(point_mass.policy(), aura_for(policy.spec))


def test_a_memory_for_other_chunks_or_contexts_is_refused() -> None:
    policy = Wide()
    for head, complaint in (
        (HeadConfig(chunk=(4, 7), context=3), r"chunks of \(4, 7\)"),
        (HeadConfig(chunk=(8, 7), context=5), "contexts of size 5"),
    ):
        with pytest.raises(WeightsError, match=complaint):
            MemoryPolicy(policy, [runner(AuraConfig(16, head))])


def test_a_success_memory_is_opened_by_its_file_and_an_empty_one_abstains(tmp_path: Path) -> None:
    policy = Wide()
    wrapped = vlamem.wrap(policy, f"success:{tmp_path / 'success.db'}", rows=2)
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(obs), noise))
    assert (tmp_path / "success.db").exists()


def test_wrap_takes_names_and_runners_in_the_order_given(tmp_path: Path) -> None:
    policy = Wide()
    mine = Recalling(policy.spec, 0.5, 1.0)
    wrapped = vlamem.wrap(policy, [mine, f"success:{tmp_path / 'success.db'}"])
    assert [memory.spec.name for memory in wrapped.memories] == ["recalling", "success"]
    assert vlamem.wrap(policy, "none").memories == ()
    assert vlamem.wrap(policy, mine).memories == (mine,)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"aura": "shipped"}, r"'aura' any more: write memory='aura' or 'aura:FILE'"),
        ({"success": "s.db"}, "memory='success:FILE'"),
        ({"way": "chunk"}, r"memory='aura\?inject="),
        ({"abstain_below": 0.5}, r"memory='aura\?abstain_below="),
        ({"replan_on_write": True}, r"memory='aura\?replan_on_write=true'"),
        ({"gate": "x"}, "no argument 'gate': it takes policy, memory and rows"),
    ],
)
def test_arguments_of_wrap_that_changed_their_name_are_refused_by_the_new_one(given: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        vlamem.wrap(Wide(), **given)


@pytest.mark.parametrize(("chunk", "inject"), [(None, "chunk"), (None, "both"), ((8, 7), "context")])
def test_a_memory_is_not_injected_as_it_was_not_trained_to(chunk: Any, inject: Any) -> None:
    config = AuraConfig(16, HeadConfig(chunk=chunk, context=3 if chunk is None else 0))
    with pytest.raises(ValueError, match=f"proposes no {'chunk' if chunk is None else 'context'}"):
        runner(config, inject=inject)


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


@pytest.mark.parametrize(
    ("name", "message"),
    [("aura?inject=shout", "'shout': expected .*context"), ("aura?abstain_below=2", "0 to 1")],
)
def test_impossible_injections_are_refused(name: str, message: str) -> None:
    with pytest.raises(MemoryNameError, match=message):
        MemoryName.parse(name, SHIPPED)


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
