"""policies/corrections.py: what is learned from where a person acted in a part of an episode only."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dataset_policy import Brightness

from vlamem.core.observation import Encoding, Observation
from vlamem.memory.train.conditioning import read_conditioning
from vlamem.memory.train.features import open_features
from vlamem.policies.corrections import conditioned, whole_chunks
from vlamem.policies.lerobot.dataset import DatasetEpisode
from vlamem.policies.lerobot.dataset_learning import record_dataset


class Waits(Brightness):
    """Its samples agree: to stand still."""

    injection, packed_size = "none", 3

    def draw(self, encoding: Encoding, samples: int, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((len(encoding.z), samples, 4, 7))

    def pack(self, encoding: Encoding) -> np.ndarray:
        return encoding.z

    def unpack(self, packed: np.ndarray, z: np.ndarray, context: np.ndarray) -> Encoding:
        return Encoding(z, z[:, :2], None)

    def imitation_gradient(self, *given: Any) -> Any:
        raise NotImplementedError


def test_chunks_that_a_policy_ends_are_not_demonstrated() -> None:
    acted = np.array([0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1], bool)
    assert np.flatnonzero(whole_chunks(acted, 4)).tolist() == [2, 3, 10, 11, 12]  # the last with half a chunk to go
    assert whole_chunks(np.ones(6, bool), 4).tolist() == [True] * 5 + [False]
    assert not whole_chunks(np.zeros(6, bool), 4).any()
    assert not whole_chunks(np.ones(1, bool), 4).any()


def test_where_a_demonstrator_takes_over_and_does_something_else_is_a_moment_of_choice() -> None:
    acted = np.arange(20) >= 6
    ticks = np.array([6, 8, 10, 12])
    chunks = np.zeros((4, 4, 7))
    chunks[..., 0] = 0.5
    encoding = Encoding(np.zeros((4, 3), np.float32), np.zeros((4, 2)), None)
    rng = np.random.default_rng(0)
    found = conditioned(Waits(), encoding, ticks, acted, chunks, rng)
    np.testing.assert_allclose(found.disagreement, [0.5, 0.5, 0, 0])  # 10 is 4 steps after it
    assert not conditioned(Waits(), encoding, ticks, np.ones(20, bool), chunks, rng).disagreement.any()


def episode(index: int, acted: np.ndarray | None, success: bool | None) -> DatasetEpisode:
    steps = 12
    images = {name: np.full((steps, 16, 16, 3), 10 * index, np.uint8) for name in ("agentview", "wrist")}
    obs = Observation(images, np.zeros((steps, 8), np.float32), ("touch it",) * steps)
    return DatasetEpisode(index, obs, np.full((steps, 7), 0.1, np.float32), success, acted)


def test_of_a_dataset_the_persons_steps_are_learned_from_and_the_policys_own_successes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    person = np.arange(12) >= 6
    never = np.zeros(12, bool)
    episodes = [
        episode(0, person, None), episode(1, None, None), episode(2, never, True), episode(3, never, None),
        episode(4, person, False), episode(5, np.arange(12) == 3, True),
    ]  # fmt: skip

    class Reader:
        name, fps = "kitchen", 20.0
        _dataset = SimpleNamespace(meta=SimpleNamespace(tasks=SimpleNamespace(index=["touch it"])))

        def __len__(self) -> int:
            return len(episodes)

        def usable(self, index: int) -> DatasetEpisode:
            return episodes[index]

        def check(self, policy: Any) -> None:
            pass

    with caplog.at_level(logging.WARNING):
        assert record_dataset(Reader(), Waits(), None, tmp_path / "out", "test", conditioning=True) == 3  # type: ignore[arg-type]
    (recording,) = open_features([tmp_path / "out"])
    kept = {e.episode: read_conditioning(tmp_path / "out", e).tick.tolist() for e in recording.episodes}
    assert kept == {0: [6, 8, 10], 1: [0, 2, 4, 6, 8, 10], 2: [0, 2, 4, 6, 8, 10]}
    assert all(e.ticks == 12 for e in recording.episodes)  # a memory sees all of an episode
    assert "episode 3 of dataset 'kitchen' was a policy's alone" in caplog.text
    assert "episode 5 of dataset 'kitchen' demonstrates no chunk of 4 control steps" in caplog.text
