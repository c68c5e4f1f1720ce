"""policies/lerobot: every family is lerobot's own policy bit for bit, steered by proposals, read at a tap."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import ACTIONS, FAMILIES, STATE, build, lerobots_own, loaded, observation, raw_batch

import vlamem
from vlamem.core.observation import Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE, SO101
from vlamem.deploy.robot.robot_file import SHIPPED as SHIPPED_ROBOTS
from vlamem.deploy.robot.robot_file import load_robot_file
from vlamem.deploy.server.observations import ObservationError, ObservationReader
from vlamem.memory.success import EntryError, OriginError
from vlamem.memory.success.runner import layout_of
from vlamem.policies.lerobot import CheckpointError, LeRobotPolicy
from vlamem.policies.lerobot.steering import row_generators
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.registry import find_policy, load_policy
from vlamem.testing import check_policy

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


@pytest.fixture(scope="module")
def policies(folders: dict[str, Path]) -> dict[str, LeRobotPolicy]:
    return {family: loaded(folders[family], family) for family in FAMILIES}


def wide_noise(policy: LeRobotPolicy, rows: int = 3) -> np.ndarray:
    return stream(1, "noise").standard_normal((rows, *policy.noise_shape)).astype(np.float32)


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


def test_the_registry_and_the_options_lead_to_the_same_checkpoint(folders: dict[str, Path]) -> None:
    name = f"{folders['act']}?actions=osc_pose&hz=20&camera.agentview=front"
    source = find_policy(name)
    assert source.sha256 is not None
    policy = load_policy(source)
    assert (policy.spec.action, policy.spec.control_hz) == (OSC_POSE, 20.0)
    assert policy.spec.cameras == ("front", "wrist")
    obs = observation()
    renamed = Observation({"front": obs.images["agentview"], "wrist": obs.images["wrist"]}, *_rest(obs))
    plain = loaded(folders["act"], "act")
    noise = wide_noise(plain)
    np.testing.assert_array_equal(policy.sample(policy.encode(renamed), noise), plain.sample(plain.encode(obs), noise))


def test_one_camera_is_given_to_every_key_that_is_to_read_it(folders: dict[str, Path]) -> None:
    policy = loaded(folders["smolvla"], "smolvla", "?camera.wrist=agentview")
    obs = observation()
    noise, picture = wide_noise(policy), obs.images["agentview"]
    own, pre, post = lerobots_own(folders["smolvla"])
    both = Observation({"agentview": picture, "wrist": picture}, *_rest(obs))
    expected = post(own.predict_action_chunk(pre(raw_batch(both)), noise=torch.from_numpy(noise))).numpy()
    only = Observation({"agentview": picture}, *_rest(obs))
    np.testing.assert_array_equal(policy.sample(policy.encode(only), noise), expected)
    assert policy.spec.cameras == ("agentview",)


@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05"])
def test_a_camera_that_is_left_out_is_lerobots_own_chunk_without_it(family: str, folders: dict[str, Path]) -> None:
    policy, obs = loaded(folders[family], family, "?camera.wrist=none"), observation()
    assert policy.spec.cameras == ("agentview",)
    own, pre, post = lerobots_own(folders[family])
    noise, batch = wide_noise(policy), raw_batch(obs)
    del batch["observation.images.wrist"]
    expected = post(own.predict_action_chunk(pre(batch), noise=torch.from_numpy(noise))).numpy()
    only = Observation({"agentview": obs.images["agentview"]}, *_rest(obs))
    np.testing.assert_array_equal(policy.sample(policy.encode(only), noise), expected)
    np.testing.assert_array_equal(policy.sample(policy.encode(obs), noise), expected)
    assert policy.encode(only).z.shape == (3, policy.spec.feature_size)


def _rest(obs: Observation) -> tuple[np.ndarray, tuple[str, ...]]:
    return obs.proprioception, obs.instruction


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
        policy.encode(Observation(large, *_rest(obs)))


OBLONG = {"agentview": (48, 64), "wrist": (64, 80)}


@pytest.mark.parametrize("family", ["act", "smolvla"])
def test_each_camera_is_served_at_the_height_and_width_that_it_was_trained_on(family: str, tmp_path: Path) -> None:
    folder = build(family, tmp_path / family, sizes=OBLONG)
    policy, obs = loaded(folder, family), observation(1, sizes=OBLONG)
    assert [policy.spec.size_of(camera) for camera in policy.spec.cameras] == [(48, 64), (64, 80)]
    message = {name: image[0] for name, image in obs.images.items()}
    message |= {"state": obs.proprioception[0], "task": obs.instruction[0]}
    read = ObservationReader(policy.spec).read(message)
    own, pre, post = lerobots_own(folder)
    noise = wide_noise(policy, 1)
    given = {} if family == "act" else {"noise": torch.from_numpy(noise)}
    expected = post(own.predict_action_chunk(pre(raw_batch(obs)), **given)).numpy()
    np.testing.assert_array_equal(policy.sample(policy.encode(read), noise), expected)
    with pytest.raises(ObservationError, match=r"'agentview' is uint8 \[64, 64, 3\], expected uint8 \[48, 64, 3\]"):
        ObservationReader(policy.spec).read(message | {"agentview": np.zeros((64, 64, 3), np.uint8)})


def test_sizes_of_pictures_are_part_of_a_fingerprint_only_where_they_are_no_squares(tmp_path: Path) -> None:
    square = loaded(build("act", tmp_path / "square"), "act").spec
    assert square.image_sizes == ()
    body = asdict(square)
    del body["image_sizes"], body["state"]  # as a spec was before it had them
    assert square.fingerprint == hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    oblong = loaded(build("act", tmp_path / "oblong", sizes=OBLONG), "act").spec
    assert replace(oblong, image_sizes=()).fingerprint != oblong.fingerprint


def test_what_a_state_of_eight_numbers_means_is_declared_and_not_guessed(folders: dict[str, Path]) -> None:
    bare, pose = (loaded(folders["act"], "act", f"?actions=osc_pose{more}").spec for more in ("", "&state=pose"))
    assert bare.fingerprint == pose.fingerprint
    assert layout_of(bare).quaternion is None
    assert layout_of(bare).proprioception_scale == (0.1,) * STATE
    assert layout_of(pose).quaternion == 3
    joints = np.float32([0.1, -0.4, 0.2, -1.9, 0.1, 1.5, 0.7, 0.04])
    layout_of(bare).check_proprioception(joints)
    with pytest.raises(EntryError, match="which is no rotation"):
        layout_of(pose).check_proprioception(joints)


def test_joints_are_declared_by_name_or_by_the_robots_own_file(tmp_path: Path) -> None:
    folder = build("act", tmp_path / "act", actions=6)
    shipped = load_robot_file("so101")
    for declared in ("so101", str(SHIPPED_ROBOTS / "so101.toml")):
        spec = loaded(folder, "act", f"?actions={declared}&hz=30").spec
        assert spec.action == SO101
        served = json.loads(json.dumps(asdict(replace(spec, proprioception_size=6, cameras=("front", "wrist")))))
        shipped.check_spec(served)
    assert [part.kind for part in layout_of(spec).parts] == ["linear", "linear"]
    mine = tmp_path / "mine.toml"
    mine.write_text('[[part]]\nname = "arm"\nsize = 6\nmode = "absolut"\nunit = "1 rad"\nlow = -3\nhigh = 3\n')
    with pytest.raises(CheckpointError, match=r"part 1 of actions .*: mode is 'absolut', expected absolute or delta"):
        loaded(folder, "act", f"?actions={mine}")
    mine.write_text(mine.read_text().replace("absolut", "absolute"))
    component = loaded(folder, "act", f"?actions={mine}").spec.action.components[0]
    assert (component.form, component.frame, component.low) == ("joint", "none", -3.0)
    with pytest.raises(CheckpointError, match=r"gives 6 action entries, these actions have 7"):
        loaded(folder, "act", "?actions=osc_pose")


def test_checkpoints_behind_a_factory_are_told_apart_by_their_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    def made(folder: Path) -> LeRobotPolicy:
        return loaded(folder, "act", "?actions=osc_pose")

    first, second = made(folders["act"]), made(build("act", tmp_path / "second", seed=1))
    assert first.spec.fingerprint == second.spec.fingerprint
    vlamem.wrap(first, memory=f"success:{tmp_path / 'memory.db'}").memories[0].close()
    with pytest.raises(OriginError, match="weights is"):
        vlamem.wrap(second, memory=f"success:{tmp_path / 'memory.db'}")
    by_folder = vlamem.wrap(f"{folders['act']}?actions=osc_pose", memory=f"success:{tmp_path / 'memory.db'}")
    by_folder.memories[0].close()


def test_pictures_of_any_size_are_taken_by_networks_that_scale_them(policies: dict[str, LeRobotPolicy]) -> None:
    obs, policy = observation(), policies["smolvla"]
    large = {name: np.repeat(image, 2, axis=-2) for name, image in obs.images.items()}
    assert policy.encode(Observation(large, *_rest(obs))).z.shape == (3, policy.spec.feature_size)


def test_a_state_or_noise_of_another_size_is_refused(policies: dict[str, LeRobotPolicy]) -> None:
    obs, policy = observation(), policies["act"]
    with pytest.raises(ValueError, match=r"proprioception is \[3, 5\], the checkpoint reads \[3, 8\]"):
        policy.encode(Observation(obs.images, obs.proprioception[:, :5], obs.instruction))
    with pytest.raises(ValueError, match=r"noise is \[3, 8, 6\]"):
        policy.sample(policy.encode(obs), np.zeros((3, 8, 6), np.float32))
