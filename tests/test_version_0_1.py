"""Memories that version 0.1 wrote: a gate (format 1) and three baselines, and what they answered."""

from pathlib import Path

import jax
import numpy as np
import pytest

from vlamem.memory.config import HeadConfig
from vlamem.memory.weights import TrainedFor, WeightsError, load_memory, load_weights

FOLDER = Path(__file__).resolve().parent / "version_0_1"
POLICY = TrainedFor("points", "abc-0123", "none")
FILES = {"aura": "gate", "gru": "gru", "kv_window": "kv_window", "kv_growing": "kv_growing"}


@pytest.mark.parametrize("design", FILES)
def test_a_memory_of_version_0_1_answers_as_it_did(design: str) -> None:
    header, memory, params = load_memory(FOLDER / f"{FILES[design]}.safetensors", POLICY)
    assert (header.design, header.feature_size, header.head) == (design, 16, HeadConfig((2, 3), 4, hidden=4))
    recorded, state, found = np.load(FOLDER / "answers.npz"), memory.init(1), []
    step = jax.jit(memory.step)
    for z in recorded["zs"]:
        state, out = step(params, state, z, np.zeros(1, bool))
        found.append(np.concatenate([out.confidence, out.chunk.ravel(), out.context.ravel(), out.gate]))
    np.testing.assert_allclose(found, recorded[design], rtol=1e-5, atol=1e-6)


def test_the_header_of_a_gate_of_version_0_1_is_kept() -> None:
    header, _ = load_weights(FOLDER / "gate.safetensors")
    assert header.command == "vlamem train-gate --budget 0.05"
    assert header.metrics == {"held_out_right": 0.9, "threshold_shift@0.05": 0.25}
    assert header.config["bound"] == 9.5
    assert header.trained_for == POLICY


@pytest.mark.parametrize("file", FILES.values())
def test_a_memory_of_version_0_1_is_refused_for_another_policy(file: str) -> None:
    with pytest.raises(WeightsError, match=r"abc-0123.*def-4567"):
        load_weights(FOLDER / f"{file}.safetensors", TrainedFor("points", "def-4567", "none"))
