"""Steering of any sampler: equal to TinyVLA's own, bit for bit the bare sampler at weight 0."""

import numpy as np
import pytest

from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.policies.steering import blend, start_time, steer_denoising, steer_flow, step_counts

SHAPE = (3, 4, 2)
TARGET = np.float32(0.6) * np.ones(SHAPE, np.float32)


def noise() -> np.ndarray:
    return stream(0, "steering").standard_normal(SHAPE).astype(np.float32)


def towards_target(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The velocity field whose data is TARGET alone."""
    return (x - TARGET) / t[:, None, None]


def proposal(weight: list[float], value: float = -0.3) -> Proposal:
    return Proposal.of_chunk(np.full(SHAPE, value, np.float32), np.array(weight))


def test_the_field_is_integrated_from_the_start_time_to_data():
    out = steer_flow(towards_target, noise(), 10, proposal([0.0, 0.5, 0.8]))
    np.testing.assert_allclose(out, TARGET, atol=1e-5)


def test_rows_of_weight_0_are_the_bare_sampler_bit_for_bit():
    bare = steer_flow(towards_target, noise(), 7)
    steered = steer_flow(towards_target, noise(), 7, proposal([0.0, 0.9, 0.0]))
    np.testing.assert_array_equal(steered[[0, 2]], bare[[0, 2]])


def test_a_proposal_enters_as_the_mixture_of_the_paper_and_takes_fewer_steps():
    seen = []

    def still(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        seen.append(t)
        return np.zeros_like(x)

    out = steer_flow(still, noise(), 10, proposal([0.4] * 3), lowest=0.2)
    np.testing.assert_allclose(out, 0.4 * -0.3 + 0.6 * noise(), atol=1e-6)
    assert len(seen) == 6
    np.testing.assert_allclose(seen[0], 0.6, atol=1e-6)


@pytest.mark.parametrize("way", ["flow", "denoising"])
def test_a_proposal_that_is_all_but_certain_is_the_chunk_and_the_policy_is_not_asked(way):
    asked = []

    def ask(x: np.ndarray, at: object) -> np.ndarray:
        asked.append(at)
        return x

    said, bars = proposal([0.9, 1.0, 0.81]), np.linspace(0.01, 0.98, 20)
    out = steer_flow(ask, noise(), 10, said) if way == "flow" else steer_denoising(ask, noise(), bars, said)
    np.testing.assert_array_equal(out, said.chunk)
    assert not asked


@pytest.mark.parametrize(("weight", "steps"), [(0.0, 10), (0.5, 5), (0.8, 2), (0.81, 0), (1.0, 0)])
def test_steps_are_in_proportion_to_the_start_time(weight, steps):
    assert step_counts(start_time(np.array([weight])), 10)[0] == steps


def test_tiny_vla_steers_as_the_generic_sampler():
    torch = pytest.importorskip("torch")
    from test_tiny_policy import observation, small_policy

    policy = small_policy()
    encoding = policy.encode(observation())
    rows = len(encoding.z)
    draw = stream(1, "tiny")
    size = (rows, policy.spec.horizon, policy.spec.action.size)
    eps = draw.standard_normal(size).astype(np.float32)
    said = Proposal.of_chunk(draw.uniform(-1, 1, size).astype(np.float32), np.linspace(0, 1, rows))
    told = encoding.context
    with torch.inference_mode():
        condition, _ = policy.network.reader(told.instruction, told.seen, told.z, told.proprioception)

    def velocity(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return policy.network.flow(torch.from_numpy(x), torch.from_numpy(t), condition).numpy()

    generic = steer_flow(velocity, eps, policy.options.steps, said, policy.options.lowest_start)
    np.testing.assert_allclose(policy.sample(encoding, eps, said), np.clip(generic, -1, 1), atol=2e-5)


def denoise_with(bars: np.ndarray):
    """DDIM towards TARGET with the exact noise prediction for it."""

    def denoise(x: np.ndarray, position: int) -> np.ndarray:
        eps = (x - np.sqrt(bars[position]) * TARGET) / np.sqrt(1 - bars[position])
        after = bars[position + 1] if position + 1 < len(bars) else 1.0
        return np.sqrt(after) * TARGET + np.sqrt(1 - after) * eps

    return denoise


def test_denoising_enters_where_the_start_time_is_due_and_ends_at_data():
    bars = np.linspace(0.01, 0.98, 20)
    asked = []

    def counted(x: np.ndarray, position: int) -> np.ndarray:
        asked.append(position)
        return denoise_with(bars)(x, position)

    out = steer_denoising(counted, noise(), bars, proposal([0.8] * 3))
    np.testing.assert_allclose(out, TARGET, atol=1e-5)
    assert asked == [16, 17, 18, 19]
    entered = steer_denoising(lambda x, i: x, noise(), bars, proposal([0.8] * 3))
    np.testing.assert_allclose(entered, np.sqrt(bars[16]) * -0.3 + np.sqrt(1 - bars[16]) * noise(), atol=1e-6)


def test_denoising_rows_of_weight_0_are_the_bare_sampler_bit_for_bit():
    bars = np.linspace(0.01, 0.98, 20)
    bare = steer_denoising(denoise_with(bars), noise(), bars)
    steered = steer_denoising(denoise_with(bars), noise(), bars, proposal([0.7, 0.0, 0.0]))
    np.testing.assert_array_equal(steered[1:], bare[1:])


def test_a_reversed_schedule_is_refused():
    with pytest.raises(ValueError, match="is it reversed"):
        steer_denoising(lambda x, i: x, noise(), [0.9, 0.1])


def test_blending_is_by_weight_and_leaves_abstaining_rows():
    chunk = noise()
    out = blend(chunk, proposal([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(out[0], chunk[0])
    np.testing.assert_allclose(out[1], 0.5 * chunk[1] - 0.15, atol=1e-6)
    np.testing.assert_allclose(out[2], -0.3, atol=1e-6)


@pytest.mark.parametrize("way", ["flow", "denoising", "blend"])
def test_a_proposal_with_nan_or_of_another_shape_is_refused(way):
    def steer(said: Proposal) -> object:
        if way == "flow":
            return steer_flow(towards_target, noise(), 4, said)
        if way == "denoising":
            return steer_denoising(lambda x, i: x, noise(), [0.1, 0.9], said)
        return blend(noise(), said)

    with pytest.raises(ValueError, match="NaN"):
        steer(proposal([1.0] * 3, np.nan))
    with pytest.raises(ValueError, match=r"expected \[3, 4, 2\]"):
        steer(Proposal.of_chunk(np.zeros((3, 5, 2), np.float32), np.ones(3)))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        steer(proposal([2.0] * 3))
