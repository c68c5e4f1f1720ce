"""TinyVLA's own imitation loss under a residual: the bare loss at 0, the right gradient, and no weight moved."""

import numpy as np
import pytest
import torch
from test_tiny_policy import SMALL, observation, small_policy

from vlamem.policies.choice import disagreement
from vlamem.policies.protocol import FrozenPolicy, Teachable
from vlamem.policies.tiny.policy import TinyVLA

ROWS = 3


def chunk(seed: int = 0) -> np.ndarray:
    size = (ROWS, SMALL.horizon, SMALL.action_size)
    return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)


def loss_at(policy: TinyVLA, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoding = policy.encode(observation(ROWS))
    return policy.imitation_gradient(encoding, chunk(), residual.astype(np.float32), np.random.default_rng(7))


def test_tiny_is_teachable_and_names_its_injection_point() -> None:
    policy = small_policy()
    assert isinstance(policy, FrozenPolicy)
    assert isinstance(policy, Teachable)
    assert policy.injection == "instruction"


def test_gradient_is_that_of_the_loss_by_finite_differences() -> None:
    policy, rng = small_policy(), np.random.default_rng(1)
    residual = 0.3 * rng.standard_normal((ROWS, SMALL.context))
    _, gradient = loss_at(policy, residual)
    step = 1e-2 * rng.standard_normal(residual.shape)
    above, below = loss_at(policy, residual + step)[0], loss_at(policy, residual - step)[0]
    np.testing.assert_allclose((above - below) / 2, (gradient * step).sum(1), rtol=0.05, atol=1e-4)


def test_residual_of_zero_gives_the_loss_of_the_bare_velocity() -> None:
    policy = small_policy()
    encoding, wanted = policy.encode(observation(ROWS)), chunk()
    found, _ = loss_at(policy, np.zeros((ROWS, SMALL.context)))
    rng, draws = np.random.default_rng(7), 4
    t = np.sqrt((np.arange(draws) + rng.random((ROWS, draws))) / draws).astype(np.float32)
    noise = rng.standard_normal((ROWS, draws, *wanted.shape[1:]), dtype=np.float32)
    told = encoding.context
    with torch.inference_mode():
        condition, _ = policy.network.reader(told.instruction, told.seen, told.z, told.proprioception)
        for row in range(ROWS):
            each = []
            for i in range(draws):
                x = (1 - t[row, i]) * wanted[row] + t[row, i] * noise[row, i]
                velocity = policy.network.flow(
                    torch.from_numpy(x[None]), torch.from_numpy(t[row, i : i + 1]), condition[row : row + 1]
                )
                each.append(np.square(velocity.numpy()[0] - (noise[row, i] - wanted[row])).mean())
            assert found[row] == pytest.approx(np.mean(each), rel=1e-4)


def test_weights_stay_bit_for_bit_and_get_no_gradient() -> None:
    policy = small_policy()
    before = {name: x.clone() for name, x in policy.network.state_dict().items()}
    loss_at(policy, np.ones((ROWS, SMALL.context)))
    assert all(torch.equal(x, before[name]) for name, x in policy.network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in policy.network.parameters())


def test_rows_do_not_mix() -> None:
    policy = small_policy()
    nothing = np.zeros((ROWS, SMALL.context))
    other = nothing.copy()
    other[1] = 2.0
    (bare, _), (moved, gradient) = loss_at(policy, nothing), loss_at(policy, other)
    np.testing.assert_allclose(moved[[0, 2]], bare[[0, 2]], rtol=1e-5)
    assert abs(moved[1] - bare[1]) > 1e-3
    assert (np.abs(gradient).max(1) > 0).all()


def test_equal_generators_draw_equal_noise() -> None:
    policy, nothing = small_policy(), np.zeros((ROWS, SMALL.context))
    np.testing.assert_array_equal(loss_at(policy, nothing)[0], loss_at(policy, nothing)[0])


def test_packed_conditioning_gives_the_chunks_of_the_encoding_it_was_made_of() -> None:
    policy = small_policy()
    encoding = policy.encode(observation(ROWS))
    packed = policy.pack(encoding)
    assert packed.dtype == np.float16
    assert packed.shape == (ROWS, policy.packed_size)
    again = policy.unpack(packed, encoding.z, policy.context_of(list(observation(ROWS).instruction)))
    noise = np.random.default_rng(0).standard_normal((ROWS, SMALL.horizon, SMALL.action_size)).astype(np.float32)
    np.testing.assert_allclose(policy.sample(again, noise), policy.sample(encoding, noise), atol=0.02)
    np.testing.assert_allclose(again.key, encoding.key, atol=1e-6)


def test_wrong_shapes_name_both_sizes() -> None:
    policy = small_policy()
    encoding, rng = policy.encode(observation(ROWS)), np.random.default_rng(0)
    residual = np.zeros((ROWS, SMALL.context), np.float32)
    with pytest.raises(ValueError, match=r"chunk is \[3, 3, 7\], expected \[3, 4, 7\]"):
        policy.imitation_gradient(encoding, chunk()[:, 1:], residual, rng)
    with pytest.raises(ValueError, match=r"residual is \[3, 7\], expected \[3, 8\]"):
        policy.imitation_gradient(encoding, chunk(), residual[:, 1:], rng)
    with pytest.raises(ValueError, match=r"packed conditioning is \[3, 5\], expected \[3, "):
        policy.unpack(np.zeros((ROWS, 5), np.float16), encoding.z, residual)


def test_disagreement_is_zero_where_noise_changes_nothing_and_large_where_it_decides() -> None:
    policy = small_policy()
    encoding = policy.encode(observation(ROWS))
    spread = disagreement(policy, encoding, np.random.default_rng(0), samples=16)
    assert spread.shape == (ROWS,)
    assert (spread > 0.01).all()

    class Certain(TinyVLA):
        def sample(self, encoding, noise, proposal=None):  # type: ignore[no-untyped-def]
            return super().sample(encoding, np.zeros_like(noise), proposal)

    certain = Certain(policy.network, policy.tokeniser, policy.normaliser)
    np.testing.assert_allclose(disagreement(certain, encoding, np.random.default_rng(0)), 0, atol=1e-6)
    with pytest.raises(ValueError, match="samples is 1: expected 2 or more"):
        disagreement(policy, encoding, np.random.default_rng(0), samples=1)
