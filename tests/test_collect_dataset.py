"""sim/record/dataset.py: episodes of any suite as a LeRobotDataset, and a gymnasium task that goes the whole way."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gym_cases import made

pytest.importorskip("lerobot")

import vlamem
from vlamem.core.observation import Observation
from vlamem.core.spec import OSC_POSE, ActionComponent, ActionSpec
from vlamem.policies.lerobot.dataset import DatasetReader
from vlamem.scripts import collect
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim import gl
from vlamem.sim.record import dataset
from vlamem.sim.record.dataset import DatasetCollection, collect_dataset
from vlamem.sim.results.episodes import EpisodeLog
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout
from vlamem.sim.suites.disturbance import pushed
from vlamem.sim.suites.gym import GymSuite
from vlamem.sim.suites.protocol import NoExpertError

sys.path.append(str(Path(__file__).resolve().parent.parent))  # examples/ lie outside the package
from examples.recall_gym import SENTENCES, SUITE, Mover  # found there

SUITE_NAME, POLICY_NAME = "examples.recall_gym:SUITE", "examples.recall_gym:policy"


def suite_without_an_expert() -> GymSuite:
    """For `--suite`."""
    return made()


def slow_suite() -> GymSuite:
    """For `--suite`."""
    return made(control_hz=12.5, expert=lambda env: np.array([1, 0]))


def suite_of_joints() -> GymSuite:
    """For `--suite`."""
    joints = ActionSpec((ActionComponent("joints", 2, "joint", "absolute", "none", "1 rad"),))
    return made(action=joints, expert=lambda env: np.array([1, 0]), proprioception=[])


def collected(out: Path, **changed: Any) -> list[tuple[int, int]]:
    """What is recorded of the example, and what was told on the way."""
    told: list[tuple[int, int]] = []
    what: dict[str, Any] = {"episodes": {"recall": 2}, "out": out, "suite": SUITE_NAME}
    collect_dataset(DatasetCollection(**(what | changed)), lambda *counts: told.append(counts))
    return told


def test_a_gymnasium_task_goes_from_a_rollout_to_a_rollout_with_a_gate_fitted_to_its_demonstrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_renderer(*_: Any) -> Any:
        raise gl.NoGLError("a suite that draws by itself needs none")

    monkeypatch.setattr(gl, "choose", no_renderer)
    asked = replace(
        preset(RolloutConfig, "rollout"), suite=SUITE_NAME, policy=POLICY_NAME, tasks=("all",), size=64, episodes=8,
        execute=4, workers=0, engine="inline",
    )  # fmt: skip
    alone = rollout(replace(asked, out=tmp_path / "alone"))
    data, gate = tmp_path / "data", tmp_path / "gate.safetensors"
    words = f"--suite {SUITE_NAME} --format lerobot --tasks all --episodes 20 --out {data}"
    assert main(["collect", *words.split()]) == 0
    assert main(["fit", POLICY_NAME, str(data / "dataset"), *f"--out {gate} --updates 2 --rows 2".split()]) == 0
    assert "nothing in these demonstrations needs a memory" in capsys.readouterr().out  # after two updates
    with_memory = rollout(replace(asked, out=tmp_path / "memory", memory=(f"aura:{gate}",)))
    assert (alone.errors, with_memory.errors) == (0, 0)
    played = [EpisodeLog(tmp_path / name / "episodes.jsonl").read() for name in ("alone", "memory")]
    # a gate that remembers nothing leaves the policy alone, and sees every step
    assert [(r.outcome, r.steps) for r in played[0]] == [(r.outcome, r.steps) for r in played[1]]
    assert {record.outcome for record in played[0]} == {"success", "failure"}  # a guess of two
    assert all((r.ticks, r.proposals, r.writes) == (r.steps, 0, 0) for r in played[1])


def test_the_policy_of_the_example_keeps_its_promises_and_its_gradient_is_that_of_its_loss() -> None:
    env, rows = SUITE.make("recall"), []
    for episode in range(3):
        seen, _ = env.reset(options={"episode": episode, "split": "train"})
        for _ in range(9 * (episode > 0)):
            seen, *_ = env.step(env.expert_action())
        rows.append(Observation({"top": seen["top"][None]}, seen["proprioception"][None], (seen["instruction"],)))
    policy, obs = Mover(), Observation.stack(rows)
    vlamem.check_policy(policy, obs)
    encoding = policy.encode(obs)
    assert encoding.z[0, :2].sum() == 1  # the rim
    assert encoding.z[:, 2].tolist() == [0, 1, 1]  # marks
    draw = np.random.default_rng(0)
    chunk, residual = draw.uniform(-1, 1, (3, 4, 2)), draw.uniform(-0.3, 0.3, (3, 2))

    def loss(moved: np.ndarray) -> np.ndarray:
        return policy.imitation_gradient(encoding, chunk, moved, np.random.default_rng(1))[0].astype(np.float64)

    _, slope = policy.imitation_gradient(encoding, chunk, residual, np.random.default_rng(1))
    for entry in range(2):
        step = 1e-2 * np.eye(2)[entry]
        np.testing.assert_allclose((loss(residual + step) - loss(residual - step)) / 2e-2, slope[:, entry], atol=2e-2)
    assert np.abs(slope[1:]).min() > 0


def test_what_an_expert_and_what_a_policy_does_is_recorded(tmp_path: Path) -> None:
    assert collected(tmp_path / "expert", disturbed=True) == [(1, 0), (2, 0)]
    reader = DatasetReader(tmp_path / "expert" / "dataset")
    reader.check(Mover())  # as whoever learns from it does
    assert (reader.fps, reader.cameras) == (10, ("top",))
    features = reader._dataset.meta.features
    assert features["action"]["names"] == ["translation.0", "translation.1"]
    assert features["observation.images.top"]["shape"] == (64, 64, 3)
    env = SUITE.make("recall")
    seen, _ = env.reset(options={"episode": 0, "split": "train"})
    first = next(iter(reader))
    np.testing.assert_allclose(first.observation.proprioception[0], seen["proprioception"], atol=1e-6)
    assert (first.success, set(first.observation.instruction)) == (True, {SENTENCES[""]})
    assert not first.actions[:8].any()  # it waits
    assert np.abs(first.actions[8:]).max() == 1
    played = collected(tmp_path / "policy", actor=POLICY_NAME, episodes={"recall": 6})
    assert played[-1][0] + played[-1][1] == 6
    assert all(played[-1])  # a guess of two
    episodes = list(DatasetReader(tmp_path / "policy" / "dataset"))
    assert sum(bool(episode.success) for episode in episodes) == played[-1][0]
    assert len(episodes) == 6  # its failures, too


def test_a_recording_that_is_there_or_that_another_began_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlamem.sim.suites.dataset_episodes._PART_EPISODES", 1)

    def stopped(*counts: int) -> None:
        if sum(counts) == 2:
            raise KeyboardInterrupt

    what = DatasetCollection({"recall": 2}, tmp_path, SUITE_NAME)
    with pytest.raises(KeyboardInterrupt):
        collect_dataset(what, stopped)
    with pytest.raises(FileExistsError, match="exists already"):
        collected(tmp_path, actor=POLICY_NAME)
    assert collected(tmp_path) == [(1, 0), (2, 0)]
    assert len(DatasetReader(tmp_path / "dataset")) == 2
    with pytest.raises(FileExistsError, match="exists already"):
        collected(tmp_path)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"memory": "aura"}, "--memory aura is a policy's, and the expert acts"),
        ({"actor": POLICY_NAME, "disturbed": True}, "--disturbed pushes the expert"),
        ({"actor": POLICY_NAME, "memory": "oracle"}, "gets its answer from the simulator"),
        ({"cameras": ("wrist",)}, "no camera 'wrist', only .'top'"),
        ({"suite": "test_collect_dataset:slow_suite"}, "12.5 Hz"),
        ({"suite": "test_collect_dataset:suite_of_joints", "disturbed": True}, "'dots' has none: leave it out"),
        ({"suite": "test_collect_dataset:suite_of_joints"}, "has no proprioception.*suite_from_gym proprioception="),
    ],
)
def test_what_cannot_be_recorded_is_refused(changed: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    task = "dots" if "suite" in changed else "recall"
    with pytest.raises(ValueError, match=complaint):
        collected(tmp_path, **({"episodes": {task: 1}} | changed))


def test_a_suite_without_an_expert_is_told_that_a_policy_may_act(tmp_path: Path) -> None:
    with pytest.raises(NoExpertError, match="suite_from_gym expert=; or let a policy act, with --actor"):
        collected(tmp_path, suite="test_collect_dataset:suite_without_an_expert", episodes={"dots": 1})


def test_the_command_line_says_which_recording_a_suite_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    args = replace(preset(collect.Args, "collect"), suite=SUITE_NAME, tasks=("all",), out=tmp_path)
    with pytest.raises(ValueError, match="'recall' is not recorded as frames: add --format lerobot"):
        collect._check(args, SUITE)
    for refused, complaint in (
        ({"actor": POLICY_NAME}, "--actor, --cameras"),
        ({"format": "lerobot", "features": True}, "leave one out"),
        ({"memory": "aura"}, "no policy acts in frames"),
    ):
        with pytest.raises(ValueError, match=complaint):
            collect._check(replace(args, **refused), SUITE)  # type: ignore[arg-type]
    collect._check(replace(args, features=True), SUITE)  # its expert acts in every state
    with pytest.raises(ValueError, match="do not act in every state"):
        collect._check(replace(args, features=True), suite_without_an_expert())
    asked: list[DatasetCollection] = []
    monkeypatch.setattr(dataset, "collect_dataset", lambda what, progress: asked.append(what))
    words = "--format lerobot --tasks all --episodes 3 --size 64 --cameras top --parameters longest=9 --memory aura"
    assert collect.main(["--suite", SUITE_NAME, *words.split(), "--actor", POLICY_NAME, "--out", str(tmp_path)]) == 0
    assert asked == [
        DatasetCollection(
            {"recall": 3}, tmp_path, SUITE_NAME, POLICY_NAME, "aura", 64, ("top",), {"longest": 9}, False
        )
    ]  # fmt: skip


def test_a_push_moves_the_hand_alone_and_stays_within_the_range() -> None:
    pushes = [(3, 5, np.array([0.5, -2.0, 0.25]))]
    action = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0], np.float32)
    np.testing.assert_array_equal(pushed(action, OSC_POSE, pushes, 5), action)
    moved = pushed(action, OSC_POSE, pushes, 3)
    np.testing.assert_allclose(moved, [0.6, -1, 0.55, 0.4, 0.5, 0.6, 1])
    assert moved.dtype == np.float32
    half = ActionSpec((replace(OSC_POSE.components[0], size=2, low=-0.5, high=0.5),))
    np.testing.assert_allclose(pushed(np.zeros(2), half, pushes, 4), [0.25, -0.5])  # halves of the range
    joints = ActionSpec((replace(OSC_POSE.components[0], form="joint", mode="absolute"),))
    np.testing.assert_array_equal(pushed(np.zeros(3), joints, pushes, 4), np.zeros(3))
