"""TinyVLA as a frozen policy: conformance, proposals, tokens, and weights that must not be mistaken."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.spec import SpecMismatchError
from vlamem.core.tensors import read_tensors
from vlamem.policies.tiny.language import PAD, UNKNOWN, InstructionError, Tokeniser
from vlamem.policies.tiny.model import ModelConfig, TinyNetwork, parameters_of
from vlamem.policies.tiny.normaliser import Normaliser
from vlamem.policies.tiny.policy import SampleOptions, TinyVLA
from vlamem.policies.tiny.weights import WeightsError, load_weights, read_header, save_weights
from vlamem.testing import ConformanceError, check_policy

WORDS = Tokeniser.of(["touch the red cube", "touch the blue ball"])
SMALL = ModelConfig(
    vocabulary=WORDS.size,
    image_size=24,
    horizon=4,
    categories=(3,),
    values=2,
    stem=8,
    width=8,
    queries=2,
    attention=8,
    feature=16,
    context=8,
    key=4,
    hidden=16,
    flow_blocks=1,
)


def small_policy(config: ModelConfig = SMALL) -> TinyVLA:
    torch.manual_seed(0)
    network = TinyNetwork(config)
    for parameter in network.parameters():  # heads begin at zero: every part must matter here
        torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
    return TinyVLA(network, WORDS, Normaliser())


def observation(rows: int = 3, size: int = 24) -> Observation:
    rng = np.random.default_rng(rows)
    sentences = ("touch the red cube", "touch the blue ball", "please touch the red ball")
    return Observation(
        {c: rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8) for c in ("agentview", "wrist")},
        rng.normal(0, 0.3, (rows, 8)).astype(np.float32),
        tuple(sentences[i % 3] for i in range(rows)),
    )


def noise(policy: TinyVLA, rows: int) -> np.ndarray:
    shape = (rows, policy.spec.horizon, 7)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def save(policy: TinyVLA, path: Path) -> None:
    from vlamem.policies.tiny.train import save_policy

    save_policy(policy.network, policy.tokeniser, policy.normaliser, path, {"command": "test"})


def test_tiny_vla_keeps_every_promise_of_a_frozen_policy() -> None:
    check_policy(small_policy(), observation())


def test_the_default_network_is_small_and_keeps_the_promises_too() -> None:
    policy = small_policy(ModelConfig(vocabulary=WORDS.size, categories=(6, 2), values=9))
    assert parameters_of(policy.network) <= 5_000_000
    check_policy(policy, observation(size=84))


def test_the_checker_finds_a_policy_that_takes_a_proposal_of_weight_0() -> None:
    class Credulous(TinyVLA):
        def sample(self, encoding: Encoding, noise: np.ndarray, proposal: Proposal | None = None) -> np.ndarray:
            chunk = super().sample(encoding, noise, proposal)
            return chunk if proposal is None or proposal.chunk is None else chunk + 1e-6

    policy = small_policy()
    with pytest.raises(ConformanceError, match="weight 0 changes the chunk"):
        check_policy(Credulous(policy.network, policy.tokeniser, policy.normaliser), observation())


def test_rows_of_weight_zero_are_bit_identical_beside_rows_that_are_steered() -> None:
    policy, rows = small_policy(), 5
    encoding, start = policy.encode(observation(rows)), noise(policy, rows)
    bare = policy.sample(encoding, start)
    rng = np.random.default_rng(2)
    chunk, context = rng.normal(size=start.shape).astype("f4"), rng.normal(size=(rows, 8)).astype("f4")
    for weight in ([0, 1, 0, 0.5, 0.01], [0, 0, 0, 0, 0]):
        trusted = np.array(weight, np.float32)
        steered = policy.sample(encoding, start, Proposal(chunk, trusted, context, trusted))
        assert steered[trusted == 0].tobytes() == bare[trusted == 0].tobytes()
        assert all((steered[i] != bare[i]).any() for i in np.flatnonzero(trusted))


def test_a_trusted_chunk_draws_the_sample_nearer_the_more_it_is_trusted() -> None:
    policy = small_policy()
    encoding, start = policy.encode(observation(2)), noise(policy, 2)
    chunk = np.full_like(start, 0.5)
    gaps = []
    for trust in (0.0, 0.5, 1.0):
        proposal = Proposal.of_chunk(chunk, np.full(2, trust))
        gaps.append(float(np.abs(policy.sample(encoding, start, proposal) - chunk).mean()))
    assert gaps[0] > gaps[1] > gaps[2]


def test_a_full_context_residual_is_the_other_sentence() -> None:
    policy = small_policy()
    seen = observation(2)
    start = noise(policy, 2)
    oracle = policy.context_of(["touch the blue ball"] * 2)
    residual = oracle - policy.context_of(list(seen.instruction))
    steered = policy.sample(policy.encode(seen), start, Proposal.of_context(residual, np.ones(2)))
    other = Observation(seen.images, seen.proprioception, ("touch the blue ball",) * 2)
    np.testing.assert_allclose(steered, policy.sample(policy.encode(other), start), atol=1e-5)


def test_z_does_not_depend_on_the_instruction() -> None:
    policy, seen = small_policy(), observation(2)
    other = Observation(seen.images, seen.proprioception, ("touch the blue ball",) * 2)
    np.testing.assert_array_equal(policy.encode(seen).z, policy.encode(other).z)


def test_a_quaternion_and_its_negative_read_the_same() -> None:
    raw = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    raw[:, 3:7] /= np.linalg.norm(raw[:, 3:7], axis=1, keepdims=True)
    flipped = raw.copy()
    flipped[:, 3:7] *= -1
    np.testing.assert_allclose(Normaliser().proprioception(raw), Normaliser().proprioception(flipped), atol=1e-6)


def test_wrong_inputs_are_named() -> None:
    policy, good = small_policy(), observation(2)
    with pytest.raises(ValueError, match="no image of camera 'wrist'"):
        policy.encode(replace(good, images={"agentview": good.images["agentview"]}))
    with pytest.raises(ValueError, match=r"expected uint8 \[2, 24, 24, 3\]"):
        policy.encode(observation(2, size=28))
    with pytest.raises(ValueError, match="proprioception is"):
        policy.encode(replace(good, proprioception=good.proprioception[:, :7]))
    encoding, start = policy.encode(good), noise(policy, 2)
    with pytest.raises(ValueError, match="noise is"):
        policy.sample(encoding, start[:, :3])
    with pytest.raises(ValueError, match="proposed chunk is"):
        policy.sample(encoding, start, Proposal.of_chunk(start[:, :3], np.ones(2)))
    with pytest.raises(ValueError, match=r"proposed context is \[2, 5\], expected \[2, 8\]"):
        policy.sample(encoding, start, Proposal.of_context(np.zeros((2, 5), np.float32), np.ones(2)))
    with pytest.raises(ValueError, match="the proposal has 3 rows, expected 2"):
        policy.sample(encoding, start, Proposal.of_chunk(None, np.zeros(3)))


def test_a_part_of_an_encoding_samples_what_the_whole_samples_in_its_rows() -> None:
    policy, rows = small_policy(), 4
    encoding, start = policy.encode(observation(rows)), noise(policy, rows)
    bare = policy.sample(encoding, start)
    part = policy.sample(encoding.rows([3, 1]), start[[3, 1]])
    np.testing.assert_allclose(part, bare[[3, 1]], atol=1e-5)


def test_fewer_steps_are_an_option() -> None:
    policy = small_policy()
    quick = TinyVLA(policy.network, policy.tokeniser, policy.normaliser, SampleOptions(steps=1))
    encoding, start = policy.encode(observation(2)), noise(policy, 2)
    assert (quick.sample(encoding, start) != policy.sample(encoding, start)).any()


def test_words_are_lower_cased_and_unknown_ones_share_a_number() -> None:
    rows = WORDS(["Touch the RED cube!", "please touch the red cube"])
    assert rows[0, :4].tolist() == rows[1, 1:5].tolist()
    assert rows[1, 0] == UNKNOWN
    assert (rows[0, 4:] == PAD).all()
    with pytest.raises(InstructionError, match="has no words"):
        WORDS(["?"])
    with pytest.raises(InstructionError, match="33 words"):
        WORDS(["go " * 33])


def test_saved_weights_give_the_same_policy_within_half_precision(tmp_path: Path) -> None:
    policy, path = small_policy(), tmp_path / "tiny.safetensors"
    save(policy, path)
    loaded, again = TinyVLA.load(path), TinyVLA.load(path, expected=policy.spec)
    assert loaded.spec == policy.spec
    seen, start = observation(), noise(policy, 3)
    mine, theirs = policy.sample(policy.encode(seen), start), loaded.sample(loaded.encode(seen), start)
    np.testing.assert_allclose(mine, theirs, atol=0.05)
    np.testing.assert_array_equal(theirs, again.sample(again.encode(seen), start))
    check_policy(loaded, seen)


def test_damaged_or_foreign_weights_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    policy = small_policy()
    save(policy, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 100])
    with pytest.raises(WeightsError, match="truncated"):
        TinyVLA.load(path)
    path.write_bytes(whole[:100])
    with pytest.raises(WeightsError, match="truncated"):
        TinyVLA.load(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="truncated"):
        TinyVLA.load(path)
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(WeightsError, match="is not what was written"):
        TinyVLA.load(path)
    path.write_bytes(whole)
    tensors, metadata = read_tensors(path)
    first = next(name for name in tensors if tensors[name].size)
    path.write_bytes(safetensors.numpy.save(tensors | {first: tensors[first] + 1}, metadata))  # as version 0.1: no hash
    with pytest.raises(WeightsError, match="changed after it was written"):
        TinyVLA.load(path)
    path.write_bytes(b"hello" * 100)
    with pytest.raises(WeightsError, match=r"tiny\.safetensors"):
        TinyVLA.load(path)
    with pytest.raises(WeightsError, match="does not exist"):
        TinyVLA.load(tmp_path / "nothing")
    save_weights(path, {"w": np.zeros(2)}, {"kind": "gate"})
    with pytest.raises(WeightsError, match="holds 'gate', expected 'tiny_policy'"):
        TinyVLA.load(path)


def test_weights_of_another_spec_are_refused_by_the_field_that_differs(tmp_path: Path) -> None:
    policy, path = small_policy(), tmp_path / "tiny.safetensors"
    save(policy, path)
    with pytest.raises(SpecMismatchError, match="'horizon' is 4"):
        TinyVLA.load(path, expected=replace(policy.spec, horizon=8))
    tensors, header = load_weights(path)
    save_weights(path, tensors, header | {"spec": header["spec"] | {"normaliser": "0" * 16}})
    with pytest.raises(SpecMismatchError, match="'normaliser' is '0000"):
        TinyVLA.load(path)
    save_weights(path, tensors, header | {"config": header["config"] | {"hidden": 24}})
    with pytest.raises(WeightsError, match="does not hold the tensors of its sizes"):
        TinyVLA.load(path)


def test_the_header_is_readable_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save(small_policy(), path)
    assert read_header(path, "tiny_policy")["command"] == "test"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"]["vlamem"] = json.dumps({"format_version": 99})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(WeightsError, match="weights format 99"):
        read_header(path)
