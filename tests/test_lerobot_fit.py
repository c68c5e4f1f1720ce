"""`vlamem fit` for checkpoints of lerobot and a LeRobotDataset: a cue that is gone is remembered."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

from lerobot_cases import build, loaded
from lerobot_processes import LerobotProcesses
from recorded_features import POLICY
from recorded_features import record as record_features

import vlamem
from vlamem.core.observation import Observation
from vlamem.memory.train.conditioning import Conditioned, read_conditioning, write_conditioning
from vlamem.memory.train.demonstrations import DemonstrationData
from vlamem.memory.train.features import FeaturesError, open_features
from vlamem.memory.weights import load_weights
from vlamem.policies.lerobot import dataset_learning
from vlamem.policies.lerobot.dataset_files import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations

SIDE, EPISODES, STEPS = 32, 100, 12
WRITE = f"""
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

image = {{"dtype": "image", "shape": ({SIDE}, {SIDE}, 3), "names": ["height", "width", "channels"]}}
features = {{
    "observation.images.agentview": image,
    "observation.state": {{"dtype": "float32", "shape": (8,), "names": None}},
    "action": {{"dtype": "float32", "shape": (7,), "names": None}},
}}
dataset = LeRobotDataset.create(repo_id="vlamem/cue", fps=20, features=features, root=sys.argv[1], use_videos=False)
draw = np.random.default_rng(0)
for episode in range({EPISODES}):
    answer = int(draw.integers(3))
    for step in range({STEPS}):
        picture = np.full(({SIDE}, {SIDE}, 3), 60, np.uint8)
        if step < 4:
            picture[..., answer] = 250
        action = np.zeros(7, np.float32)
        if step >= 6:
            action[:3] = -0.3
            action[answer] = 0.6
        frame = {{
            "observation.images.agentview": np.clip(picture + draw.integers(0, 6, picture.shape), 0, 255).astype("u1"),
            "observation.state": np.zeros(8, np.float32),
            "action": action,
            "task": "touch the red block",
        }}
        dataset.add_frame(frame)
    dataset.save_episode()
dataset.finalize()
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, lerobot_processes: LerobotProcesses) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "cue"
    made = lerobot_processes.run(["-c", WRITE, str(folder)])
    assert made.returncode == 0, made.stderr[-2000:]
    return folder


def checkpoint(family: str, folder: Path) -> Path:
    return build(family, folder, ("agentview",), sizes={"agentview": (SIDE, SIDE)})


Fitted = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fitted(lerobot_processes: LerobotProcesses) -> Fitted:
    """`vlamem fit`, which uses JAX and must not be forked from a process that does."""

    def fit(name: str, data: Path, out: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        command = ["-m", "vlamem", "fit", name, str(data), "--out", str(out), *words]
        return lerobot_processes.run(command)

    return fit


def test_a_memory_that_is_fitted_for_act_remembers_a_cue_that_is_gone(
    dataset: Path, fitted: Fitted, tmp_path: Path
) -> None:
    folder, out = checkpoint("act", tmp_path / "act"), tmp_path / "fit" / "gate.safetensors"
    words = ("--updates", "250", "--rows", "12", "--hidden", "32", "--learning-rate", "0.01")
    done = fitted(str(folder), dataset, out, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "remembers in 1 of 1 tasks: touch the red block" in done.stdout
    header, _ = load_weights(out)
    assert header.command.endswith("(injection: latent)")
    assert header.trained_for.policy == "act[vision:mean]"
    first, second = (_played(folder, f"aura:{out}", cue)[0, 4:, :3].mean(0) for cue in (1, 2))
    # where it plans all cues look alike; of 0.9 in either direction that were demonstrated
    assert first[1] - second[1] > 0.2
    assert second[2] - first[2] > 0.2
    bare = [_played(folder, "none", cue) for cue in (1, 2)]
    np.testing.assert_allclose(bare[0], bare[1], atol=1e-5)


def _played(folder: Path, memory: str, cue: int) -> np.ndarray:
    """The chunk that the policy plans when the cue is gone."""
    policy = vlamem.wrap(str(folder), memory=memory)
    policy.reset()
    still, told = np.zeros((1, 8), np.float32), ("touch the red block",)
    for step in range(6):
        picture = np.full((1, SIDE, SIDE, 3), 62, np.uint8)
        if step < 4:
            picture[..., cue] = 252
        tick = policy.observe(Observation({"agentview": picture}, still, told))
    noise = np.zeros((1, policy.spec.horizon, policy.spec.action.size), np.float32)
    return np.asarray(policy.plan(tick, noise))


@pytest.mark.parametrize(("family", "options", "point"), [("smolvla", "?inject_at=expert", "expert")])
def test_a_fit_names_its_injection_point_and_a_gate_that_remembers_nothing_leaves_the_policy_alone(
    family: str, options: str, point: str, dataset: Path, fitted: Fitted, tmp_path: Path
) -> None:
    folder, out = checkpoint(family, tmp_path / family), tmp_path / "gate.safetensors"
    done = fitted(f"{folder}{options}", dataset, out, "--updates", "2", "--rows", "2", "--most", "20")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "nothing in these demonstrations needs a memory" in done.stdout
    header, _ = load_weights(out)
    assert header.command.endswith(f"(injection: {point})")
    with pytest.raises(ValueError, match="trained for"):
        vlamem.wrap(str(folder), memory=f"aura:{out}")  # whose contexts enter elsewhere
    features = tmp_path / "gate" / "features-0"
    (recording,) = open_features([features])
    episode = recording.episodes[0]
    rows = read_conditioning(features, episode)
    policy = loaded(folder, family, options)
    assert rows.packed.shape[1] == policy.packed_size
    assert (rows.disagreement > 0).all()
    gated = vlamem.wrap(f"{folder}{options}", memory=f"aura:{out}")
    gated.reset()
    draw = np.random.default_rng(1)
    images = {"agentview": draw.integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)}
    obs = Observation(images, np.zeros((1, 8), np.float32), ("touch the red block",))
    noise = draw.standard_normal((1, policy.spec.horizon, 7)).astype(np.float32)
    np.testing.assert_array_equal(gated.plan(gated.observe(obs), noise), policy.sample(policy.encode(obs), noise))


def test_datasets_of_unequal_rate_are_not_fitted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"a": 20.0, "b": 30.0}
    monkeypatch.setattr(dataset_learning, "is_dataset", lambda folder: True)
    monkeypatch.setattr(
        dataset_learning,
        "DatasetReader",
        lambda name: SimpleNamespace(name=Path(name).name, fps=rates[Path(name).name]),
    )
    monkeypatch.setattr(dataset_learning, "record_dataset", lambda *given, **named: 20)
    folders = [tmp_path / name for name in rates]
    for folder in folders:
        folder.mkdir()
    policy = SimpleNamespace()
    with pytest.raises(DatasetError, match="unequal rate: 'a' at 20 Hz, 'b' at 30 Hz: fit those of one rate together"):
        dataset_learning.demonstrations_of(folders, policy, None, tmp_path / "out", "fit", lambda done, of: None)  # type: ignore[arg-type]


def test_a_policy_whose_samples_never_disagree_is_told_what_remains(tmp_path: Path) -> None:
    record_features(tmp_path)
    (recording,) = open_features([tmp_path])
    for episode in recording.episodes:
        at = np.arange(0, episode.ticks, 2)
        rows = Conditioned(at, np.zeros(len(at)), np.zeros((len(at), 3)))
        write_conditioning(tmp_path, episode.task, episode.episode, episode.actor, rows)
    with pytest.raises(FeaturesError, match=r"agree at every recorded tick.*--targets chunk"):
        DemonstrationData([tmp_path], used_with=POLICY)
