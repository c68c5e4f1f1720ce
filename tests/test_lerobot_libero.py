"""lerobot's own LIBERO environment: its observation read with this project's conventions, and lerobot-eval on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import SIZE, build, installed_plugins, observation, raw_batch, run_program
from libero_cases import needs_libero

from vlamem.core.observation import Observation
from vlamem.sim.suites.libero import from_lerobot
from vlamem.sim.suites.libero.from_lerobot import (
    LeRobotViewError,
    LiberoView,
    observation_from_lerobot,
    origins,
    proprioception,
)
from vlamem.sim.suites.registry import load_suite

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations

SENTENCE = "pick up the milk and place it in the basket"


@pytest.fixture
def one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_lerobot, "origins", lambda: {SENTENCE: (0.0, 0.0, 0.9)})


def pictures(size: int = 32) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {name: draw.integers(0, 256, (1, size, size, 3), dtype=np.uint8) for name in ("image", "image2")}


def state(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_position_is_from_the_origin_orientation_the_hands_and_the_gripper_one_opening() -> None:
    down = state(0.1, -0.2, 1.1, np.pi, 0.0, 0.0, 0.03, -0.01)  # flange turned half around x: it looks down
    found = proprioception(down, np.array([[0.0, 0.1, 0.9]]))[0]
    np.testing.assert_allclose(found[:3], [0.1, -0.3, 0.2], atol=1e-6)
    np.testing.assert_allclose(np.abs(found[3:7]), [0.0, 0.5**0.5, 0.5**0.5, 0.0], atol=1e-6)
    assert found[3:7][np.abs(found[3:7]).argmax()] > 0
    assert found[7] == pytest.approx(0.04)


def test_a_view_of_a_dataset_reads_it_as_the_environment_is_read(one_table: None) -> None:
    given, body = pictures(), state(0.1, -0.2, 1.1, np.pi, 0.0, 0.0, 0.03, -0.01)
    expected = observation_from_lerobot(given, body, (SENTENCE,), 24)
    view = LiberoView(24)
    np.testing.assert_array_equal(view.state(body, (SENTENCE,)), expected.proprioception)
    for theirs, ours in view.cameras.items():
        np.testing.assert_array_equal(view.pictures(given[theirs]), expected.images[ours])
    with pytest.raises(LeRobotViewError, match="no sentence of LIBERO"):
        view.state(body, ("push the bowl",))


def test_images_are_mirrored_and_brought_to_the_policys_size(one_table: None) -> None:
    given = pictures()
    same = observation_from_lerobot(given, state(*[0.0] * 8), (SENTENCE,), 32)
    np.testing.assert_array_equal(same.images["agentview"], given["image"][:, :, ::-1])
    np.testing.assert_array_equal(same.images["wrist"], given["image2"][:, :, ::-1])
    grey = {name: np.full((1, 96, 96, 3), 77, np.uint8) for name in given}
    smaller = observation_from_lerobot(grey, state(*[0.0] * 8), (SENTENCE,), 24)
    assert smaller.images["wrist"].shape == (1, 24, 24, 3)
    assert set(smaller.images["wrist"].reshape(-1)) == {77}


def test_what_is_not_lerobots_libero_is_refused_with_the_option_that_mends_it(one_table: None) -> None:
    with pytest.raises(LeRobotViewError, match=r"\['front', 'image'\].*--env\.type=libero"):
        observation_from_lerobot(
            {"front": pictures()["image"], "image": pictures()["image"]}, state(*[0.0] * 8), (SENTENCE,), 32
        )
    with pytest.raises(LeRobotViewError, match=r"is \[1, 0\].*obs_type=pixels_agent_pos"):
        observation_from_lerobot(pictures(), np.zeros((1, 0), np.float32), (SENTENCE,), 32)
    with pytest.raises(LeRobotViewError, match="'juggle' is no sentence of LIBERO"):
        observation_from_lerobot(pictures(), state(*[0.0] * 8), ("juggle",), 32)
    wide = {name: image[:, :16] for name, image in pictures().items()}
    with pytest.raises(LeRobotViewError, match=r"16 x 32.*--env\.observation_height=24"):
        observation_from_lerobot(wide, state(*[0.0] * 8), (SENTENCE,), 24)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that reads this project's cameras."""
    return build("act", tmp_path_factory.mktemp("ours") / "act")


def policy(folder: Path, **options: Any) -> Any:
    from lerobot_policy_vlamem import VlamemConfig, VlamemPolicy

    return VlamemPolicy(VlamemConfig(inner=str(folder), device="cpu", **options))


def shown() -> Observation:
    """What lerobot-eval gives of LIBERO, of the size of the test's checkpoints."""
    seen = observation(1)
    images = {name: seen.images[own] for name, own in from_lerobot.CAMERAS.items()}
    return Observation(images, seen.proprioception, (SENTENCE,))


def test_a_policy_of_this_project_acts_on_the_converted_observation(ours: Path, one_table: None) -> None:
    converted = observation_from_lerobot(shown().images, shown().proprioception, (SENTENCE,), SIZE)
    expected = policy(ours).select_action(raw_batch(converted))
    assert torch.equal(policy(ours, observation="libero").select_action(raw_batch(shown())), expected)


def test_cameras_that_do_not_match_name_the_option_to_add_or_to_leave_out(
    ours: Path, one_table: None, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"\['agentview', 'wrist'\].*add --policy\.observation=libero"):
        policy(ours).select_action(raw_batch(shown()))
    lerobots = build("act", tmp_path / "lerobots", cameras=("image", "image2"))
    with pytest.raises(ValueError, match=r"leave out --policy\.observation=libero"):
        policy(lerobots, observation="libero").select_action(raw_batch(shown()))
    with pytest.raises(ValueError, match="observation is 'upright': choose one of as_given, libero"):
        policy(ours, observation="upright")


@needs_libero
def test_every_task_has_an_origin_by_its_sentence() -> None:
    heights = {
        name: {origins()[info.instructions[0]][2] for info in load_suite(name).tasks.values()}
        for name in ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
    }
    assert heights["libero_spatial"] == heights["libero_goal"] == {0.9}
    assert heights["libero_object"] == {0.0}
    assert heights["libero_10"] == heights["libero_90"] == {0.41, 0.867, 0.9}


@needs_libero
def test_lerobots_environment_read_so_shows_what_the_suite_shows() -> None:
    from vlamem.sim.suites.libero.assets import import_libero

    import_libero()
    from lerobot.envs.libero import LiberoEnv, _get_suite
    from lerobot.envs.utils import preprocess_observation
    from lerobot.processor import LiberoProcessorStep

    name, task = "libero_10", 9  # the one scene whose origin is not over the world's
    theirs = LiberoEnv(
        _get_suite(name), task, name, obs_type="pixels_agent_pos", observation_width=64, observation_height=64,
        episode_index=2, hard_reset=False, num_steps_wait=10,
    )  # fmt: skip
    suite = load_suite(name)
    mine = suite.make(list(suite.tasks)[task], image_size=64, render="faithful")
    try:
        raw, _ = theirs.reset(seed=0)
        state = {part: {k: v[None] for k, v in raw["robot_state"][part].items()} for part in ("eef", "gripper")}
        pixels = {name: image[None] for name, image in raw["pixels"].items()}
        given = LiberoProcessorStep().observation(preprocess_observation({"pixels": pixels, "robot_state": state}))
        images = {
            name: (given[f"observation.images.{name}"].permute(0, 2, 3, 1) * 255).round().byte().numpy()
            for name in from_lerobot.CAMERAS
        }
        found = observation_from_lerobot(images, given["observation.state"].numpy(), (theirs.task_description,), 64)
        expected, _ = mine.reset(options={"episode": 2})
        assert found.instruction == (expected["instruction"],)
        # the benchmark samples its observation a physics step early
        np.testing.assert_allclose(found.proprioception[0], expected["proprioception"], atol=2e-3)
        for camera in ("agentview", "wrist"):  # where fixtures stand is drawn anew by the benchmark's reset
            seen, turned = found.images[camera][0].astype(int), expected[camera].astype(int)
            apart = [np.abs(seen - turned[way]).mean() for way in (np.s_[:], np.s_[:, ::-1], np.s_[::-1])]
            assert 3 * apart[0] < min(apart[1:])
    finally:
        theirs.close()
        mine.close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_plugins(tmp_path_factory.mktemp("site"))


def evaluate(installed: Path, out: Path, *words: str) -> dict[str, Any]:
    """lerobot-eval over two control steps of one task of libero_object; its report."""
    done = run_program(
        "lerobot-eval", installed, "--env.type=libero", "--env.task=libero_object", "--env.task_ids=[7]",
        "--env.hard_reset=false", "--env.episode_length=2", "--seed=0", f"--output_dir={out}",
        "--policy.push_to_hub=false", *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Downloading" not in done.stdout
    report: dict[str, Any] = json.loads((out / "eval_info.json").read_text())
    return report


@needs_libero
def test_lerobot_eval_runs_a_checkpoint_with_lerobots_conventions_on_libero(installed: Path, tmp_path: Path) -> None:
    folder = build("smolvla", tmp_path / "smolvla", cameras=("image", "image2"))
    report = evaluate(
        installed, tmp_path / "out", f"--policy.inner={folder}", f"--env.observation_height={SIZE}",
        f"--env.observation_width={SIZE}", "--eval.n_episodes=1", "--eval.batch_size=1",
    )  # fmt: skip
    assert report["overall"]["n_episodes"] == 1


@needs_libero
def test_lerobot_eval_runs_a_policy_of_this_project_on_libero_in_processes_of_their_own(
    installed: Path, tmp_path: Path
) -> None:
    report = evaluate(
        installed, tmp_path / "out", "--policy.inner=tiny", "--policy.observation=libero",
        "--env.observation_height=96", "--env.observation_width=96", "--eval.n_episodes=2", "--eval.batch_size=2",
        "--eval.use_async_envs=true",
    )  # fmt: skip
    assert report["overall"]["n_episodes"] == 2
