"""policies/probe.py: what a linear probe finds, and where it must find nothing."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vlamem.core.observation import Encoding, Observation
from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE, PolicySpec
from vlamem.policies.probe import ProbeError, Recording, probe
from vlamem.sim.record import probe as sim_probe


class Shows:
    """A policy whose feature is the first pixels of the camera, or noise that has nothing to do with them."""

    spec = PolicySpec("shows", 2, 6, 6, 0, 20.0, ("top",), 4, 1, OSC_POSE, "none")

    def __init__(self, honest: bool) -> None:
        self._honest = honest
        self._noise = stream(0, "noise")

    def encode(self, obs: Observation) -> Encoding:
        pixels = obs.images["top"].reshape(len(obs.instruction), -1)[:, :6].astype(np.float32) / 255
        z = pixels if self._honest else self._noise.random(pixels.shape, np.float32)
        return Encoding(z, z, None)

    def sample(self, encoding: Encoding, noise: np.ndarray) -> np.ndarray:
        return noise


def recording(episodes: int = 20, classes: int = 3) -> Recording:
    """The first pixel's channel tells the class, the fourth value the progress, the fifth the state."""
    random = stream(1, "recording")
    batches, cue, progress, whose = [], [], [], []
    for episode in range(episodes):
        images = np.zeros((8, 4, 4, 3), np.uint8)
        answer = episode % classes
        for step in range(8):
            flat = images[step].reshape(-1)
            flat[answer] = 200
            flat[3], flat[4] = 30 * step, 50 + 10 * (episode % 7)
            cue.append(answer if step < 4 else -1)
            progress.append(step / 8)
            whose.append(episode)
        body = images.reshape(8, -1)[:, 4:5].astype(np.float32) / 50 + random.normal(0, 0.01, (8, 1)).astype(np.float32)
        batches.append(Observation({"top": images}, body, ("go",) * 8))
    return Recording(batches, np.array(cue), np.array(progress), np.array(whose))


def test_a_feature_that_carries_everything_is_read() -> None:
    found = probe(Shows(True), recording(), "pixels")  # type: ignore[arg-type]
    assert (found.size, found.n, found.cue_n) == (6, 160, 80)
    assert found.cue == 1.0
    assert found.cue_p < 1e-6
    assert found.proprioception > 0.95
    assert found.progress > 0.95
    assert found.milliseconds > 0
    assert found.plan_milliseconds > 0


def test_a_plan_is_timed_from_the_observation_on_wherever_a_policy_does_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    class Works(Shows):
        def __init__(self, encode_s: float, sample_s: float) -> None:
            super().__init__(True)
            self._encode_s, self._sample_s = encode_s, sample_s

        def encode(self, obs: Observation) -> Encoding:
            clock[0] += self._encode_s
            return super().encode(obs)

        def sample(self, encoding: Encoding, noise: np.ndarray) -> np.ndarray:
            clock[0] += self._sample_s
            return noise

    for encode_s, sample_s in ((0.25, 0.5), (0.0, 0.75)):
        found = probe(Works(encode_s, sample_s), recording(), "pixels")  # type: ignore[arg-type]
        assert (found.milliseconds, found.plan_milliseconds) == (pytest.approx(1e3 * encode_s), pytest.approx(750.0))


def test_a_feature_that_carries_nothing_is_at_chance() -> None:
    found = probe(Shows(False), recording(), "noise")  # type: ignore[arg-type]
    assert found.cue_p > 0.001
    assert found.proprioception < 0.1
    assert found.progress < 0.1


def test_an_answer_that_marks_one_episode_alone_is_not_learned_by_heart() -> None:
    """Features that name the episode would tell everything if frames of one episode were on both sides."""
    made = recording(episodes=10, classes=10)
    found = probe(Shows(True), made, "pixels")  # type: ignore[arg-type]
    assert found.cue <= found.chance + 0.05


def labels_of(env: object) -> dict[str, int]:
    return {"lamp_colour": 1}


class Counts:
    """An environment of seven steps whose picture and state say which step it is; a cue can always be seen."""

    render_on_step = True

    def __init__(self) -> None:
        self.task = SimpleNamespace(categories=lambda scene: [1] * 20)
        self.scene = None

    def reset(self, *, options: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        self._at = 0
        return self.observe(), {}

    def observe(self) -> dict[str, object]:
        state = np.array([self._at], np.float32)
        return {"top": np.full((4, 4, 3), self._at, np.uint8), "proprioception": state, "instruction": "go"}

    def expert_action(self) -> None: ...

    def step(self, action: None) -> tuple[dict[str, object], float, bool, bool, dict[str, object]]:
        self._at += 1
        return {}, 0.0, self._at == 7, False, {"success": True}

    def close(self) -> None: ...


def test_a_policy_that_reads_several_observations_is_probed_on_those_of_the_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = SimpleNamespace(labels="test_probe:labels_of")
    suite = SimpleNamespace(make=lambda task, image_size: Counts(), recorder=recorder)
    monkeypatch.setattr(sim_probe, "load_suite", lambda name: suite)
    made = sim_probe.record(Shows.spec, "any", "lamp_colour", 2, 3, history=3)
    states = np.concatenate([obs.proprioception for obs in made.observations])
    assert states[:, :, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]] * 2
    assert made.observations[0].images["top"][:, :, 0, 0, 0].tolist() == states[:, :, 0].tolist()
    alone = sim_probe.record(Shows.spec, "any", "lamp_colour", 1, 3)
    assert alone.observations[0].proprioception.tolist() == [[0], [3], [6]]
    assert alone.observations[0].images["top"].shape == (3, 4, 4, 3)


def test_of_several_observations_the_newest_state_is_what_a_probe_looks_for() -> None:
    single = recording()
    stacked = [
        Observation(obs.images, np.stack([obs.proprioception * 0, obs.proprioception], 1), obs.instruction)
        for obs in single.observations
    ]
    found = probe(Shows(True), replace(single, observations=stacked), "pixels")  # type: ignore[arg-type]
    assert found.proprioception > 0.95


@pytest.mark.parametrize(
    ("made", "complaint"),
    [(recording(episodes=4), "4 episodes cannot be split 5 ways"), (recording(classes=1), "the cue has 1 class")],
)
def test_too_little_to_probe_is_refused(made: Recording, complaint: str) -> None:
    with pytest.raises(ProbeError, match=complaint):
        probe(Shows(True), made, "pixels")  # type: ignore[arg-type]
