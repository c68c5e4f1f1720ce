"""Every family of lerobot gives its own imitation loss under a residual, from pictures and from what was packed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import ACTIONS, FAMILIES, build, lerobots_own, loaded, observation, raw_batch

from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.policies.choice import choice_times, disagreement
from vlamem.policies.lerobot import CheckpointError, LeRobotPolicy
from vlamem.policies.lerobot.packing import recorded
from vlamem.policies.lerobot.steering import LossProcessor
from vlamem.policies.protocol import Teachable
from vlamem.policies.teaching import PolicyLoss
from vlamem.testing import check_policy

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations

ROWS = 3
OTHER_POINTS = {"act": "decoder", "smolvla": "expert", "pi0": "expert", "pi05": "expert"}
CASES = [(family, "") for family in FAMILIES] + list(OTHER_POINTS.items())


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], LeRobotPolicy]:
    root = tmp_path_factory.mktemp("checkpoints")
    folders = {family: build(family, root / family) for family in FAMILIES}
    return {(f, p): loaded(folders[f], f, f"?inject_at={p}" if p else "") for f, p in CASES}


def chunk(policy: LeRobotPolicy, rows: int = ROWS) -> np.ndarray:
    return stream(3, "chunk").uniform(-0.6, 0.6, (rows, policy.spec.horizon, ACTIONS)).astype(np.float32)


def loss_at(policy: LeRobotPolicy, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoding = policy.encode(observation(history=policy.history))
    return policy.imitation_gradient(encoding, chunk(policy), residual.astype(np.float32), np.random.default_rng(7))


def drawn(policy: LeRobotPolicy, scale: float = 0.3) -> np.ndarray:
    return scale * stream(4, "residual").standard_normal((ROWS, policy.spec.context_size)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_loss_by_finite_differences(
    case: tuple[str, str], policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    policy = policies[case]
    assert isinstance(policy, Teachable)
    residual = drawn(policy)
    loss, gradient = loss_at(policy, residual)
    assert loss.shape == (ROWS,)
    assert (np.abs(gradient).max(1) > 0).all()
    step = 2e-2 * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    above, below = loss_at(policy, residual + step)[0], loss_at(policy, residual - step)[0]
    np.testing.assert_allclose((above - below) / 2, (gradient * step).sum(1), rtol=0.1, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_packed_rows_give_the_chunks_and_the_loss_of_the_pictures_they_were_made_of(
    case: tuple[str, str], policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    policy = policies[case]
    encoding = policy.encode(observation(history=policy.history))
    packed = policy.pack(encoding)
    assert packed.dtype == np.float16
    assert packed.shape == (ROWS, policy.packed_size)
    told = policy.context_of(list(observation().instruction))
    again = policy.unpack(packed, encoding.z, told)
    noise = stream(1, "noise").standard_normal((ROWS, *policy.noise_shape)).astype(np.float32)
    np.testing.assert_allclose(policy.sample(again, noise), policy.sample(encoding, noise), atol=0.02)
    residual = drawn(policy)
    one = policy.imitation_gradient(again, chunk(policy), residual, np.random.default_rng(7))
    np.testing.assert_allclose(one[0], loss_at(policy, residual)[0], rtol=0.02)
    last = policy.unpack(packed[2:], encoding.z[2:], told[2:])
    alone = policy.sample(again.rows([2]), noise[2:])  # its sentence is filled up to the longest of three
    np.testing.assert_allclose(policy.sample(last, noise[2:]), alone, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_residual_of_zero_and_one_that_has_no_weight_leave_the_bare_policy_bit_for_bit(
    case: tuple[str, str], policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    policy = policies[case]
    encoding = policy.encode(observation(history=policy.history))
    noise = stream(1, "noise").standard_normal((ROWS, *policy.noise_shape)).astype(np.float32)
    bare, residual = policy.sample(encoding, noise), drawn(policy)
    for weight, given in (([1, 1, 1], np.zeros_like(residual)), ([0, 0, 0], residual)):
        np.testing.assert_array_equal(policy.sample(encoding, noise, Proposal.of_context(given, weight)), bare)
    one = policy.sample(encoding, noise, Proposal.of_context(residual, [0, 1, 0]))
    np.testing.assert_array_equal(one[[0, 2]], bare[[0, 2]])
    assert not np.array_equal(one[1], bare[1])
    check_policy(policy, observation(), reads_noise=case[0] != "act")


@pytest.mark.parametrize("case", [("act", ""), ("diffusion", ""), ("smolvla", ""), ("smolvla", "expert"), ("pi0", "")])
def test_following_the_gradient_lowers_the_loss_and_brings_the_sampled_chunk_nearer_to_the_demonstrated_one(
    case: tuple[str, str], policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    policy = policies[case]
    encoding = policy.encode(observation(history=policy.history))
    noise = stream(1, "noise").standard_normal((ROWS, *policy.noise_shape)).astype(np.float32)
    wanted, residual = chunk(policy), np.zeros((ROWS, policy.spec.context_size), np.float32)
    for update in range(40):
        _, gradient = policy.imitation_gradient(encoding, wanted, residual, np.random.default_rng(update))
        residual -= 0.3 * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)

    def loss(under: np.ndarray) -> float:
        draws = (policy.imitation_gradient(encoding, wanted, under, np.random.default_rng(100 + i)) for i in range(8))
        return float(np.mean([found for found, _ in draws]))

    assert loss(residual) < loss(np.zeros_like(residual))
    if case[0] == "diffusion":  # samples of a denoising network of random weights do not follow its loss
        return
    bare = np.abs(policy.sample(encoding, noise) - wanted).mean()
    steered = np.abs(policy.sample(encoding, noise, Proposal.of_context(residual, [1, 1, 1])) - wanted).mean()
    assert steered < bare


def test_the_loss_of_act_is_lerobots_own_under_the_latent_it_acts_with(
    tmp_path: Path, policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    policy = policies["act", ""]
    own, pre, _ = lerobots_own(build("act", tmp_path / "act"))
    wanted = chunk(policy, 1)
    batch = pre(raw_batch(observation(1)) | {"action": torch.from_numpy(wanted)})
    with torch.no_grad():
        expected, _ = own.forward(batch | {"action_is_pad": torch.zeros(1, policy.spec.horizon, dtype=torch.bool)})
    nothing = np.zeros((1, policy.spec.context_size), np.float32)
    found, _ = policy.imitation_gradient(policy.encode(observation(1)), wanted, nothing, np.random.default_rng(0))
    assert found[0] == pytest.approx(float(expected), rel=1e-5)


def test_the_velocity_is_asked_for_at_flow_times_near_noise_more_often() -> None:
    times = choice_times(ROWS, 4, np.random.default_rng(0))
    assert times.shape == (ROWS, 4)
    assert ((times >= 0) & (times <= 1)).all()
    assert choice_times(500, 4, np.random.default_rng(0)).mean() == pytest.approx(2 / 3, abs=0.01)
    assert (np.diff(times) > 0).all()
    target, noise, asked = torch.ones(ROWS, 2, 3), torch.zeros(4, ROWS, 2, 3), []

    def velocity(x: torch.Tensor, current_timestep: torch.Tensor) -> torch.Tensor:
        torch.testing.assert_close(x, (1 - current_timestep)[:, None, None].expand_as(x))
        asked.append(current_timestep.numpy())
        return torch.full_like(x, -1.0)  # noise - target

    processor = LossProcessor(target, torch.from_numpy(times), noise, actions=2)
    for step in range(4):
        processor.denoise_step(torch.zeros(ROWS, 2, 3), 1 - step / 4, velocity)
    np.testing.assert_array_equal(np.stack(asked, axis=1), times)
    assert (processor.loss == 0).all()


@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05"])
def test_no_gradient_passes_the_language_model_where_the_residual_enters_behind_it(
    family: str, policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    for point, passes in (("", True), ("expert", False)):
        policy = policies[family, point]
        module = policy.network.get_submodule(policy.family.taps["prefix_early"].modules[0])
        kept: list[bool] = []
        handle = module.register_forward_hook(lambda _, inputs, out, kept=kept: kept.append(out.requires_grad))
        try:
            loss_at(policy, drawn(policy))
        finally:
            handle.remove()
        assert kept == [passes]


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_configuration_and_sampler_stay_as_they_were(
    family: str, policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    policy = policies[family, ""]
    network = policy.network
    before = {name: x.clone() for name, x in network.state_dict().items()}
    config, encoding = repr(network.config), policy.encode(observation(history=policy.history))
    noise = stream(1, "noise").standard_normal((ROWS, *policy.noise_shape)).astype(np.float32)
    bare = policy.sample(encoding, noise)
    loss_at(policy, drawn(policy))
    policy.pack(encoding)
    disagreement(policy, encoding, np.random.default_rng(0), samples=2)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert repr(network.config) == config
    np.testing.assert_array_equal(policy.sample(encoding, noise), bare)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_disagree_by_what_the_network_draws_and_look_at_pictures_once(
    family: str, policies: dict[tuple[str, str], LeRobotPolicy]
) -> None:
    policy = policies[family, ""]
    encoding = policy.encode(observation(history=policy.history))
    assert encoding.z.any()  # read before what is counted
    with recorded(policy.network, policy.family.vision) as outputs:
        spread = disagreement(policy, encoding, np.random.default_rng(0))
    assert len(outputs) == len(policy.packing.seen)
    assert spread.shape == (ROWS,)
    assert (spread > 1e-4).all()
    np.testing.assert_array_equal(disagreement(policy, encoding, np.random.default_rng(0)), spread)


def test_an_act_without_a_latent_does_not_disagree_with_itself(
    policies: dict[tuple[str, str], LeRobotPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policies["act", ""]
    monkeypatch.setattr(policy.network.config, "use_vae", False)
    np.testing.assert_allclose(disagreement(policy, policy.encode(observation()), np.random.default_rng(0)), 0)


def test_rows_of_a_loss_do_not_mix_and_equal_generators_give_equal_losses(
    policies: dict[tuple[str, str], LeRobotPolicy],
) -> None:
    for case in (("act", ""), ("diffusion", ""), ("smolvla", ""), ("dit_flow", "")):
        policy = policies[case]
        nothing = np.zeros((ROWS, policy.spec.context_size), np.float32)
        other = nothing.copy()
        other[1] = 1.0
        (bare, _), (moved, _) = loss_at(policy, nothing), loss_at(policy, other)
        np.testing.assert_allclose(moved[[0, 2]], bare[[0, 2]], rtol=1e-4)
        assert moved[1] != bare[1]
        np.testing.assert_array_equal(loss_at(policy, nothing)[0], bare)


def test_a_point_is_named_and_is_part_of_what_a_gate_belongs_to(
    policies: dict[tuple[str, str], LeRobotPolicy],
) -> None:
    sentence, expert = policies["smolvla", ""], policies["smolvla", "expert"]
    assert (PolicyLoss(sentence).injection, PolicyLoss(expert).injection) == ("sentence", "expert")
    assert sentence.spec.fingerprint != expert.spec.fingerprint
    assert expert.context_of(["touch", "push"]).shape == (2, expert.spec.context_size)
    assert np.abs(np.diff(expert.context_of(["touch", "push"]), axis=0)).max() > 0
    assert policies["act", ""].injection == "latent"
    assert not policies["act", ""].context_of(["touch"]).any()
    with pytest.raises(CheckpointError, match="type 'act' have no injection point 'sentence': choose latent, decoder"):
        replace(policies["act", ""], injection="sentence")


def test_wrong_shapes_name_both_sizes(policies: dict[tuple[str, str], LeRobotPolicy]) -> None:
    policy = policies["act", ""]
    encoding, rng = policy.encode(observation()), np.random.default_rng(0)
    residual = np.zeros((ROWS, policy.spec.context_size), np.float32)
    with pytest.raises(ValueError, match=r"chunk is \[3, 7, 7\], expected \[3, 8, 7\]"):
        policy.imitation_gradient(encoding, chunk(policy)[:, 1:], residual, rng)
    with pytest.raises(ValueError, match=r"residual is \[3, 31\], expected \[3, 32\]"):
        policy.imitation_gradient(encoding, chunk(policy), residual[:, 1:], rng)
    with pytest.raises(ValueError, match=r"packed conditioning is \[3, 5\], expected \[3, "):
        policy.unpack(np.zeros((ROWS, 5), np.float16), encoding.z, residual)
