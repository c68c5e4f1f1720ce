"""policies/memory_policy.py, policies/speak.py and policies/voices.py, over every shipped policy."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import point_mass
import pytest

import vlamem
from vlamem.core.observation import Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.memory.designs.aura import AuraConfig, HeadConfig, TrainedFor, save_weights
from vlamem.memory.designs.aura.step import AuraMemory
from vlamem.memory.protocol import flatten
from vlamem.memory.runner import AuraVoice, identity
from vlamem.memory.weights import Header, WeightsError
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.fuse import WAYS, SpeakOptions, fuse
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy


class Wide(point_mass.PointPolicy):
    """The point-mass policy with features wide enough for a memory and a context that it listens to."""

    def __init__(self) -> None:
        super().__init__(replace(point_mass.SPEC, feature_size=16, context_size=3))

    def encode(self, obs: Observation) -> Any:
        narrow = super().encode(obs)
        z = np.tile(narrow.z, (1, 8)) * np.arange(1, 17, dtype=np.float32)
        angle = narrow.z[:, 0]
        key = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
        return replace(narrow, z=z, key=key, context=np.zeros((len(z), 3), np.float32))

    def sample(self, encoding: Any, noise: Any, proposal: Proposal | None = None) -> Any:
        chunk = 0.5 * np.asarray(noise, np.float32)
        chunk[..., :2] += encoding.z[:, None, :2]
        if proposal is not None:
            c = proposal.confidence[:, None, None]
            if proposal.context is not None:
                told = chunk.copy()
                told[..., :3] += c * proposal.context[:, None]
                chunk = np.where(c > 0, told, chunk)
            if proposal.chunk is not None:
                chunk = np.where(c > 0, (1 - c) * chunk + c * proposal.chunk, chunk)
        return chunk.astype(np.float32)

    def context_of(self, instruction: list[str]) -> Any:
        return np.array([[len(s), s.count("e"), 1.0] for s in instruction], np.float32)


def observations(policy: FrozenPolicy, rows: int, name: str = "obs") -> Observation:
    spec, draw = policy.spec, stream(0, name)
    size = (rows, spec.image_size, spec.image_size, 3)
    body = draw.uniform(-0.1, 0.3, (rows, spec.proprioception_size)).astype(np.float32)
    images = {c: draw.integers(0, 255, size, dtype=np.uint8) for c in spec.cameras}
    return Observation(images, body, ("touch the red block",) * rows)


def row_of(obs: Observation, row: int) -> Observation:
    one = slice(row, row + 1)
    return Observation({k: v[one] for k, v in obs.images.items()}, obs.proprioception[one], obs.instruction[one])


def voice_for(policy: FrozenPolicy, told: bool = True, gate: str = "learned") -> AuraVoice:
    spec = policy.spec
    head = HeadConfig(chunk=(spec.horizon, spec.action.size), context=spec.context_size)
    size = spec.feature_size + (spec.context_size if told else 0)
    config = AuraConfig(size, head, gate=gate)
    params = {k: np.asarray(v) for k, v in flatten(AuraMemory(config).init_params(jax.random.key(0))).items()}
    return AuraVoice(config, params)


def noise_for(policy: FrozenPolicy, rows: int) -> Any:
    size = (rows, policy.spec.horizon, policy.spec.action.size)
    return stream(0, "noise").standard_normal(size).astype(np.float32)


@pytest.fixture(scope="module", params=["wide", "tiny"])
def policy(request: pytest.FixtureRequest) -> FrozenPolicy:
    """Every policy that ships, and a test policy that listens to everything."""
    return Wide() if request.param == "wide" else load_policy(find_policy(request.param))


def test_without_a_memory_the_plan_is_the_bare_policys_bit_for_bit(policy: FrozenPolicy) -> None:
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    wrapped = MemoryPolicy(policy, rows=2)
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(obs), noise))
    assert not wrapped.ticks
    assert wrapped.state_bytes == 0


@pytest.mark.parametrize("way", WAYS)
def test_confidence_below_the_threshold_leaves_the_policy_bit_for_bit(policy: FrozenPolicy, way: Any) -> None:
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    wrapped = MemoryPolicy(policy, voice_for(policy), rows=2, options=SpeakOptions(way, abstain_below=1.0))
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(obs), noise))


@pytest.mark.parametrize("way", WAYS)
def test_a_memory_that_is_heard_changes_the_plan(policy: FrozenPolicy, way: Any) -> None:
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    wrapped = MemoryPolicy(policy, voice_for(policy), rows=2, options=SpeakOptions(way, abstain_below=0.0))
    tick = wrapped.observe(obs)
    chunk = wrapped.plan(tick, noise)
    assert not np.array_equal(chunk, policy.sample(policy.encode(obs), noise))
    if way == "alone":
        assert tick.proposal is not None
        np.testing.assert_allclose(chunk, tick.proposal.chunk, rtol=1e-6)


@pytest.mark.parametrize("way", ["context", "both"])
def test_a_trusted_residual_is_heard_whole_whatever_the_confidence(way: Any) -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, voice_for(policy), options=SpeakOptions(way, abstain_below=0.0))
    tick = wrapped.observe(observations(policy, 1))
    heard = wrapped.heard(tick)
    assert tick.proposal is not None
    assert tick.proposal.confidence[0] < 0.99
    assert heard is not None
    assert heard.context is not None
    np.testing.assert_allclose(heard.confidence[:, None] * heard.context, tick.proposal.context, rtol=1e-5)
    assert (heard.chunk is None) == (way == "context")


def test_reset_of_one_row_leaves_the_others(policy: FrozenPolicy) -> None:
    wrapped = MemoryPolicy(policy, voice_for(policy, gate="always"), rows=3)
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


def test_a_batch_equals_single_rows() -> None:
    policy = Wide()
    together = MemoryPolicy(policy, voice_for(policy), rows=3, options=SpeakOptions("both", 0.0))
    single = [MemoryPolicy(policy, voice_for(policy), options=SpeakOptions("both", 0.0)) for _ in range(3)]
    noise = noise_for(policy, 3)
    for i in range(4):
        obs = observations(policy, 3, f"tick {i}")
        chunks = together.plan(together.observe(obs), noise)
        for row in range(3):
            alone = single[row].plan(single[row].observe(row_of(obs, row)), noise[row : row + 1])
            np.testing.assert_array_equal(chunks[row : row + 1], alone)
    for row in range(3):
        np.testing.assert_array_equal(together.state(row)["W"], single[row].state(0)["W"])


def test_a_saved_row_goes_on_as_it_would_have() -> None:
    policy = Wide()
    first, second = (MemoryPolicy(policy, voice_for(policy, gate="always")) for _ in range(2))
    first.observe(observations(policy, 1, "a"))
    second.restore(0, first.state(0))
    for wrapped in (first, second):
        wrapped.observe(observations(policy, 1, "b"))
    np.testing.assert_array_equal(first.state(0)["W"], second.state(0)["W"])
    with pytest.raises(ValueError, match="does not fit"):
        first.restore(0, {"h": np.zeros(3)})


def test_the_memory_ticks_at_every_control_step_also_inside_a_chunk() -> None:
    policy = Wide()
    wrapped = MemoryPolicy(policy, voice_for(policy, gate="always"))
    runner = ChunkRunner(wrapped, 1, 4)
    runner.reset(np.array([True]), [stream(0, "n")])
    states = []
    for i in range(4):
        tick = runner.observe(observations(policy, 1, f"tick {i}"))
        if runner.due().size:
            assert i == 0
            runner.plan(runner.due(), tick)
        runner.pop()
        states.append(wrapped.state(0)["W"])
    assert all(not np.array_equal(a, b) for a, b in pairwise(states))


def test_a_write_cuts_the_running_chunk_short_when_asked_to() -> None:
    policy = Wide()
    for replan, due in ((False, []), (True, [0])):
        wrapped = MemoryPolicy(policy, voice_for(policy, gate="always"), options=SpeakOptions(replan_on_write=replan))
        runner = ChunkRunner(wrapped, 1, 4)
        runner.reset(np.array([True]), [stream(0, "n")])
        runner.plan(runner.due(), runner.observe(observations(policy, 1)))
        runner.pop()
        runner.observe(observations(policy, 1))
        assert runner.due().tolist() == due


def test_state_bytes_of_aura_are_4224() -> None:
    assert MemoryPolicy(Wide(), voice_for(Wide())).state_bytes == 4224


def test_controls_that_run_in_jax_say_what_the_tick_says() -> None:
    policy = Wide()
    ticked = MemoryPolicy(policy, voice_for(policy, gate="always"))
    every = MemoryPolicy(policy, voice_for(policy, gate="always").with_gate("periodic", rate=1.0))
    for i in range(3):
        obs = observations(policy, 1, f"tick {i}")
        one, other = ticked.observe(obs), every.observe(obs)
    assert one.proposal is not None
    assert other.proposal is not None
    np.testing.assert_allclose(one.proposal.context, other.proposal.context, rtol=1e-3, atol=1e-4)
    assert other.wrote.all()


def test_a_gate_of_another_policy_is_refused_and_both_are_named(tmp_path: Path) -> None:
    policy = Wide()
    voice = voice_for(policy)
    path = tmp_path / "gate.safetensors"
    mine = identity(policy.spec, "a" * 64)
    arrays = {k: np.asarray(v) for k, v in flatten(AuraMemory(voice.config).init_params(jax.random.key(0))).items()}
    save_weights(path, Header(voice.config, mine, "vlamem train-gate", {}), arrays)
    AuraVoice.load(path, mine)
    assert vlamem.wrap(policy, path).ticks
    for other in (identity(policy.spec, "b" * 64), TrainedFor("other", mine.fingerprint, "another normaliser")):
        with pytest.raises(WeightsError, match="was trained for policy 'points'"):
            AuraVoice.load(path, other)
    with pytest.raises(WeightsError, match="features of size 19"):
        vlamem.wrap(point_mass.policy(), voice)


def test_a_success_memory_is_opened_by_its_file_and_an_empty_one_abstains(tmp_path: Path) -> None:
    policy = Wide()
    wrapped = vlamem.wrap(policy, success=tmp_path / "success.db", rows=2)
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(obs), noise))
    assert (tmp_path / "success.db").exists()


def test_a_memory_cannot_speak_as_it_was_not_trained_to() -> None:
    policy = Wide()
    config = AuraConfig(16, HeadConfig(chunk=None, context=3))
    arrays = {k: np.asarray(v) for k, v in flatten(AuraMemory(config).init_params(jax.random.key(0))).items()}
    with pytest.raises(ValueError, match="proposes no chunk"):
        MemoryPolicy(policy, AuraVoice(config, arrays), options=SpeakOptions("chunk"))


def test_fusing_takes_the_surest_of_each_kind_and_keeps_their_weights() -> None:
    chunk, context = np.ones((3, 2, 1), np.float32), np.ones((3, 4), np.float32)
    recurrent = Proposal(np.array([0.8, 0.6, 0.9], np.float32), None, context)
    elite = Proposal(np.array([0.4, 0.9, 0.0], np.float32), chunk)
    steer, told = fuse([recurrent, elite])
    np.testing.assert_allclose(steer.confidence, [0.4, 0.9, 0.0])
    assert steer.context is not None
    np.testing.assert_allclose((steer.confidence[:, None] * steer.context)[:2, 0], [0.8, 0.6], rtol=1e-6)
    np.testing.assert_allclose(told.confidence, [0, 0, 0.9])
    assert told.chunk is None
    assert fuse([]) == ()
    assert fuse([Proposal(np.zeros(3, np.float32), chunk)]) == ()
    other = Proposal(np.array([0.5, 0.95, 0.1], np.float32), 2 * chunk)
    (surest,) = fuse([elite, other])
    assert surest.chunk is not None
    np.testing.assert_allclose(surest.chunk[:, 0, 0], [2, 2, 2])


@pytest.mark.parametrize(
    ("options", "message"), [({"way": "shout"}, "choose one of"), ({"abstain_below": 2}, "0 to 1")]
)
def test_impossible_ways_of_speaking_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeakOptions(**options)


def test_a_tick_that_has_not_seen_a_row_cannot_plan_it() -> None:
    policy = Wide()
    runner = ChunkRunner(MemoryPolicy(policy, voice_for(policy), rows=2), 2, 4)
    runner.reset(np.array([True, True]), [stream(0, "a"), stream(0, "b")])
    tick = runner.observe(observations(policy, 1), np.array([0]))
    with pytest.raises(ValueError, match="row 1 was not observed"):
        runner.plan(np.array([1]), tick)
