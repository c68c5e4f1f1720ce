"""policies/lerobot: every family is lerobot's own policy bit for bit, steered by proposals, read at a tap."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import (
    ACTIONS,
    FAMILIES,
    STATE,
    lerobots_own,
    loaded,
    observation,
    raw_batch,
    state_and_sentences,
    wide_noise,
)

from vlamem.core.observation import Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.policies.lerobot import LeRobotPolicy
from vlamem.policies.lerobot.steering import row_generators
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.testing import check_policy

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


@pytest.fixture(scope="module")
def policies(folders: dict[str, Path]) -> dict[str, LeRobotPolicy]:
    return {family: loaded(folders[family], family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_contract(family: str, policies: dict[str, LeRobotPolicy]) -> None:
    check_policy(policies[family], observation(), reads_noise=family != "act")


@pytest.mark.parametrize("family", ["act", "smolvla", "pi0", "pi05"])
def test_chunks_are_lerobots_own_bit_for_bit(
    family: str, folders: dict[str, Path], policies: dict[str, LeRobotPolicy]
) -> None:
    policy, obs = policies[family], observation()
    own, pre, post = lerobots_own(folders[family])
    noise = wide_noise(policy)
    given = {} if family == "act" else {"noise": torch.from_numpy(noise)}
    expected = post(own.predict_action_chunk(pre(raw_batch(obs)), **given)).numpy()
    np.testing.assert_array_equal(policy.sample(policy.encode(obs), noise), expected)


def test_diffusion_reads_two_observations_and_is_lerobots_own_bit_for_bit(
    folders: dict[str, Path], policies: dict[str, LeRobotPolicy]
) -> None:
    policy, obs = policies["diffusion"], observation(history=2)
    own, pre, post = lerobots_own(folders["diffusion"])
    noise = wide_noise(policy)
    own.reset()
    own.select_action(pre(raw_batch(obs, 0)), noise=torch.zeros(noise.shape))
    own._queues["action"].clear()  # the second observation is planned from
    actions = []
    for _ in range(policy.spec.horizon):
        actions.append(own.select_action(pre(raw_batch(obs, 1)), noise=torch.from_numpy(noise)))
    expected = post(torch.stack(actions, 1)).numpy()
    np.testing.assert_array_equal(policy.sample(policy.encode(obs), noise), expected)


@pytest.mark.parametrize("family", ["diffusion", "dit_flow"])
def test_a_loop_over_control_steps_plans_from_lerobots_own_two_observations(
    family: str, folders: dict[str, Path], policies: dict[str, LeRobotPolicy]
) -> None:
    wrapped = MemoryPolicy(policies[family], rows=3)
    own, pre, post = lerobots_own(folders[family])
    noise = wide_noise(policies[family])
    frames = [observation(seed=step) for step in range(3)]
    expected = []
    with mock.patch.object(torch, "randn", return_value=torch.from_numpy(noise)):
        for frame in frames:
            own._queues["action"].clear()  # planned at every control step
            expected.append(post(own.select_action(pre(raw_batch(frame)))).numpy())
    for frame, action in zip(frames, expected, strict=True):
        np.testing.assert_allclose(wrapped.plan(wrapped.observe(frame), noise)[:, 0], action, atol=1e-4)
    alone = policies[family].sample(policies[family].encode(frames[-1]), noise)[:, 0]
    assert np.abs(alone - expected[-1]).max() > 1e-3  # the newest twice is another chunk


def test_ddpm_draws_from_a_generator_of_each_row_and_is_lerobots_sampler(
    folders: dict[str, Path], policies: dict[str, LeRobotPolicy]
) -> None:
    policy, obs = policies["diffusion_ddpm"], observation(history=2)
    own, _, post = lerobots_own(folders["diffusion_ddpm"])
    noise = wide_noise(policy)
    batch = dict(policy.bridge.batch(obs))
    batch["observation.images"] = torch.stack([batch[k] for k in own.config.image_features], dim=-4)
    with torch.no_grad():
        sampled = own.diffusion.conditional_sample(
            3,
            global_cond=own.diffusion._prepare_global_conditioning(batch),
            generator=row_generators(noise, "cpu"),
            noise=torch.from_numpy(noise),
        )
    expected = post(sampled[:, 1:5]).numpy()
    np.testing.assert_array_equal(policy.sample(policy.encode(obs), noise), expected)


@pytest.mark.parametrize("family", ["diffusion", "diffusion_ddpm", "dit_diffusion"])
def test_a_steered_row_depends_on_itself_alone(family: str, policies: dict[str, LeRobotPolicy]) -> None:
    policy = policies[family]
    obs = observation(history=policy.history)
    noise = wide_noise(policy)[:, policy.family.first : policy.family.first + policy.spec.horizon, :ACTIONS]
    chunk = stream(2, "chunk").uniform(-0.5, 0.5, noise.shape).astype(np.float32)
    together = policy.sample(policy.encode(obs), noise, Proposal.of_chunk(chunk, [0.0, 0.5, 0.9]))
    waiting = policy.sample(policy.encode(obs), noise, Proposal.of_chunk(chunk, [0.5, 0.5, 0.5]))
    np.testing.assert_allclose(together[1], waiting[1], atol=1e-5)
    np.testing.assert_allclose(together[2], np.clip(chunk[2], -1, 1), atol=1e-4)


@pytest.mark.parametrize("family", ["dit_flow", "dit_diffusion"])
def test_multi_task_dit_is_lerobots_own_bit_for_bit(
    family: str, folders: dict[str, Path], policies: dict[str, LeRobotPolicy]
) -> None:
    policy, obs = policies[family], observation()
    own, pre, post = lerobots_own(folders[family])
    own.reset()
    torch.manual_seed(5)
    actions = [own.select_action(pre(raw_batch(obs))) for _ in range(policy.spec.horizon)]
    torch.manual_seed(5)
    noise = torch.randn(3, *policy.noise_shape).numpy()
    expected = post(torch.stack(actions, 1)).numpy()
    np.testing.assert_array_equal(policy.sample(policy.encode(obs), noise), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trusted_chunk_draws_the_sample_towards_itself(family: str, policies: dict[str, LeRobotPolicy]) -> None:
    policy, obs = policies[family], observation()
    spec = policy.spec
    noise = stream(2, "noise").standard_normal((3, spec.horizon, ACTIONS)).astype(np.float32)
    chunk = stream(2, "chunk").uniform(-0.5, 0.5, noise.shape).astype(np.float32)
    bare = policy.sample(policy.encode(obs), noise)
    apart = []
    for weight in (0.0, 0.5, 1.0):
        steered = policy.sample(policy.encode(obs), noise, Proposal.of_chunk(chunk, np.full(3, weight)))
        apart.append(float(np.abs(steered - chunk).mean()))
    assert np.array_equal(policy.sample(policy.encode(obs), noise, Proposal.of_chunk(chunk, np.zeros(3))), bare)
    assert apart[2] < min(apart[:2])


@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05"])
def test_steps_above_the_entry_do_not_call_the_network(family: str, policies: dict[str, LeRobotPolicy]) -> None:
    policy, obs = policies[family], observation()
    noise = np.zeros((3, policy.spec.horizon, ACTIONS), np.float32)
    calls: list[int] = []
    handle = policy.network.model.action_out_proj.register_forward_hook(lambda *_: calls.append(1))
    try:
        counts = {}
        for weight in (None, 0.5, 1.0):
            calls.clear()
            proposal = None if weight is None else Proposal.of_chunk(noise, np.full(3, weight))
            policy.sample(policy.encode(obs), noise, proposal)
            counts[weight] = len(calls)
    finally:
        handle.remove()
    assert counts == {None: 10, 0.5: 5, 1.0: 0}
    assert policy.network.config.rtc_config is None
    assert policy.network.model.rtc_processor is None


def test_real_time_chunking_goes_on_under_a_proposal_to_another_row(
    folders: dict[str, Path], policies: dict[str, LeRobotPolicy]
) -> None:
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    policy, obs = loaded(folders["smolvla"], "smolvla"), observation()
    policy.network.config.rtc_config = RTCConfig(enabled=True, execution_horizon=4)
    policy.network.init_rtc_processor()
    own = policy.network.rtc_processor
    noise = wide_noise(policy)
    left = {"inference_delay": 1, "prev_chunk_left_over": torch.ones(3, 6, ACTIONS), "execution_horizon": 4}
    free = policy.sample(policy.encode(obs), noise)
    with policy.guided(**left):
        guided = policy.sample(policy.encode(obs), noise)
        chunk = np.zeros((3, policy.spec.horizon, ACTIONS), np.float32)
        mixed = policy.sample(policy.encode(obs), noise, Proposal.of_chunk(chunk, [0, 1, 0]))
    assert not np.array_equal(free, guided)
    np.testing.assert_array_equal(mixed[[0, 2]], guided[[0, 2]])
    assert not np.array_equal(mixed[1], guided[1])
    assert policy.network.model.rtc_processor is own


@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05", "dit_flow"])
def test_a_context_reaches_what_the_network_is_conditioned_on(family: str, policies: dict[str, LeRobotPolicy]) -> None:
    policy, obs = policies[family], observation()
    noise = wide_noise(policy)
    own, oracle = policy.context_of(["touch the red block", "touch the blue block"])
    assert np.abs(own - oracle).max() > 0
    residual = np.stack([oracle - own] * 3)
    bare = policy.sample(policy.encode(obs), noise)
    steered = policy.sample(policy.encode(obs), noise, Proposal.of_context(residual, [1, 0, 1]))
    assert not np.array_equal(steered[0], bare[0])
    np.testing.assert_array_equal(steered[1], bare[1])


def test_sentences_without_end_are_not_remembered_without_end(policies: dict[str, LeRobotPolicy]) -> None:
    policy = policies["dit_flow"]
    first = policy.context_of(["touch the red block"])
    for number in range(260):
        policy.context_of([f"touch block {number}"])
    assert len(policy._contexts) <= 256
    np.testing.assert_array_equal(policy.context_of(["touch the red block"]), first)


def test_the_context_of_multi_task_dit_is_exactly_what_another_sentence_does(
    policies: dict[str, LeRobotPolicy],
) -> None:
    policy, obs = policies["dit_flow"], observation(1)
    noise = wide_noise(policy, 1)
    other = Observation(obs.images, obs.proprioception, ("push the blue block now",))
    own, oracle = policy.context_of([*obs.instruction, *other.instruction])
    steered = policy.sample(policy.encode(obs), noise, Proposal.of_context((oracle - own)[None], [1]))
    np.testing.assert_allclose(steered, policy.sample(policy.encode(other), noise), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "behind"),
    [
        ("smolvla", "model.vlm_with_expert.vlm.model.text_model.layers.0.mlp"),
        ("pi0", "model.paligemma_with_expert.paligemma.model.language_model.layers.0.mlp"),
        ("pi05", "model.paligemma_with_expert.paligemma.model.language_model.layers.0.mlp"),
        ("diffusion", "diffusion.unet"),
        ("act", "model.encoder"),
        ("dit_flow", "noise_predictor"),
    ],
)
def test_a_memory_tick_runs_the_vision_tower_and_nothing_behind_it(
    family: str, behind: str, policies: dict[str, LeRobotPolicy]
) -> None:
    policy, obs = policies[family], observation()
    calls: list[str] = []
    watched = [behind, policy.tap.modules[0]]
    handles = [
        policy.network.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
        for name in watched
    ]
    try:
        assert policy.encode(obs).z.shape == (3, policy.spec.feature_size)
    finally:
        for handle in handles:
            handle.remove()
    assert behind not in calls
    assert calls


def test_without_a_memory_no_feature_is_read_and_a_plan_fills_it_on_its_way(
    policies: dict[str, LeRobotPolicy],
) -> None:
    policy, obs = policies["smolvla"], observation()
    passes: list[int] = []
    vision = policy.network.get_submodule(policy.tap.modules[0])
    handle = vision.register_forward_hook(lambda *_: passes.append(1))
    try:
        encoding = policy.encode(obs)
        assert not passes
        policy.sample(encoding, wide_noise(policy))
        filled = encoding.z
        assert len(passes) == 2  # one a camera, in the plan itself
    finally:
        handle.remove()
    np.testing.assert_allclose(filled, policy.encode(obs).z, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "tap", "size"),
    [
        ("smolvla", "connector", 2 * 32),
        ("smolvla", "vision", 2 * 32),
        ("pi0", "vision:grid4", 2 * 16 * 16),
        ("smolvla", "prefix_early:max", 32),
        ("smolvla", "model.vlm_with_expert.vlm.model.vision_model.encoder.layers.0", 2 * 32),
        ("act", "encoder", 32),
        ("diffusion", "maps:grid2", 2 * 2 * 4 * 512),  # two cameras, two observations,
    ],
)
def test_other_taps_give_their_own_features(family: str, tap: str, size: int, folders: dict[str, Path]) -> None:
    policy = loaded(folders[family], family, f"?tap={tap}")
    z = policy.encode(observation()).z
    assert z.shape == (3, size + STATE) == (3, policy.spec.feature_size)
    assert np.abs(z[0] - z[1])[:size].max() > 0
    assert policy.spec.fingerprint != loaded(folders[family], family).spec.fingerprint


def test_cameras_that_do_not_match_are_named_on_both_sides(policies: dict[str, LeRobotPolicy]) -> None:
    obs = observation(cameras=("top", "wrist"))
    with pytest.raises(
        ValueError, match=r"reads cameras \['agentview', 'wrist'\], the observation has \['top', 'wrist'\]"
    ):
        policies["act"].encode(obs)


@pytest.mark.parametrize("family", ["act", "diffusion", "dit_flow"])
def test_pictures_of_another_size_are_refused_by_networks_that_do_not_scale_them(
    family: str, policies: dict[str, LeRobotPolicy]
) -> None:
    obs, policy = observation(history=policies[family].history), policies[family]
    large = {name: np.repeat(image, 2, axis=-2) for name, image in obs.images.items()}
    with pytest.raises(ValueError, match=r"'agentview' gives 64 x 128 pixels, the checkpoint was trained on 64 x 64"):
        policy.encode(Observation(large, *state_and_sentences(obs)))


def test_pictures_of_any_size_are_taken_by_networks_that_scale_them(policies: dict[str, LeRobotPolicy]) -> None:
    obs, policy = observation(), policies["smolvla"]
    large = {name: np.repeat(image, 2, axis=-2) for name, image in obs.images.items()}
    assert policy.encode(Observation(large, *state_and_sentences(obs))).z.shape == (3, policy.spec.feature_size)


def test_a_state_or_noise_of_another_size_is_refused(policies: dict[str, LeRobotPolicy]) -> None:
    obs, policy = observation(), policies["act"]
    with pytest.raises(ValueError, match=r"proprioception is \[3, 5\], the checkpoint reads \[3, 8\]"):
        policy.encode(Observation(obs.images, obs.proprioception[:, :5], obs.instruction))
    with pytest.raises(ValueError, match=r"noise is \[3, 8, 6\]"):
        policy.sample(policy.encode(obs), np.zeros((3, 8, 6), np.float32))
