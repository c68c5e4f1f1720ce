"""plugins/: a wrapped policy, the tabletop suite and a MuJoCo robot behind lerobot's own programs."""

import json
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

from lerobot_cases import SIZE, installed_plugins, run_program
from lerobot_plugin_cases import wrapped
from simulator_cases import needs_simulator

from vlamem.policies.lerobot.watch import WATCH
from vlamem.policies.memories import SHIPPED_GATE

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


class Scene:
    """An environment whose episodes succeed after a few steps; `still` is set when an end is looked at."""

    STEPS = 3
    control_hz = 1000.0

    def __init__(self) -> None:
        self.laid_out: list[int] = []
        self.still, self.closed = Event(), False

    def reset(self, *, options: dict[str, Any]) -> None:
        self.laid_out.append(options["episode"])
        self._at = 0

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._at += 1
        return {}, 0.0, self._at == self.STEPS, False, {"success": True}

    def observe(self) -> dict[str, Any]:
        if self._at == self.STEPS:
            self.still.set()
        grey = np.zeros((16, 16, 3), np.uint8)
        return {"agentview": grey, "wrist": grey, "proprioception": np.full(8, self._at, np.float32)}

    def close(self) -> None:
        self.closed = True


class Ending:
    """A suite's environment whose episode N succeeds, with reward 1, at step N + 1."""

    cameras = ("agentview", "wrist")
    action_space = gymnasium.spaces.Box(-1, 1, (7,), np.float32)
    observation_space = gymnasium.spaces.Dict(
        {
            "agentview": gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "wrist": gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "proprioception": gymnasium.spaces.Box(-1, 1, (8,), np.float32),
        }
    )
    instruction = "touch the red block"

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        self._left = options["episode"] + 1
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return self.observe(), float(self._left == 0), self._left == 0, False, {"success": self._left == 0}

    def observe(self) -> dict[str, Any]:
        grey = np.zeros((SIZE, SIZE, 3), np.uint8)
        return {"agentview": grey, "wrist": grey, "proprioception": np.zeros(8, np.float32)}

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_plugins(tmp_path_factory.mktemp("site"))


@needs_simulator
def test_lerobot_eval_runs_a_wrapped_policy_on_the_tabletop(
    folders: dict[str, Path], installed: Path, tmp_path: Path
) -> None:
    done = run_program(
        "lerobot-eval", installed, f"--policy.inner={folders['smolvla']}", "--env.type=vlamem_tabletop",
        "--env.task=touch", f"--env.size={SIZE}", "--env.max_steps=5", "--eval.n_episodes=2", "--eval.batch_size=2",
        "--eval.use_async_envs=false", "--seed=0", f"--output_dir={tmp_path}", "--policy.push_to_hub=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "eval_info.json").read_text())
    assert report["overall"]["n_episodes"] == 2


@needs_simulator
def test_a_policy_with_a_gate_is_saved_again_in_its_folder_and_named_by_it_to_lerobot_eval(
    installed: Path, tmp_path: Path
) -> None:
    from lerobot_policy_vlamem import VlamemPolicy

    folder, gate = tmp_path / "saved", tmp_path / "gate.safetensors"
    gate.write_bytes(SHIPPED_GATE.read_bytes())
    policy = wrapped(Path("tiny"), memory=f"aura:{gate}")
    policy.save_pretrained(folder)
    again = VlamemPolicy.from_pretrained(str(folder))
    again.save_pretrained(folder)  # where its gate is already
    assert again.remembers
    assert (folder / "memory-0.safetensors").read_bytes() == SHIPPED_GATE.read_bytes()
    done = run_program(
        "lerobot-eval", installed, "--env.type=vlamem_tabletop", "--env.task=touch", "--env.max_steps=5",
        "--eval.n_episodes=1", "--eval.batch_size=1", "--eval.use_async_envs=false", "--seed=0",
        f"--output_dir={tmp_path / 'out'}", "--policy.push_to_hub=false", policy=f"--policy.path={folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]["n_episodes"] == 1


def test_lerobot_eval_counts_the_reward_of_a_success_once_whatever_the_other_rows_do(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.scripts.lerobot_eval import eval_policy
    from lerobot_env_vlamem import environment

    monkeypatch.setattr(environment, "SUITE", SimpleNamespace(make=lambda task, **options: Ending()))
    make = [
        lambda: environment.TabletopForLeRobot(
            "touch", size=SIZE, render="osmesa", split="test", wording="test", max_steps=8
        )
    ]
    same_step = gymnasium.vector.AutoresetMode.SAME_STEP
    rows = gymnasium.vector.SyncVectorEnv(make * 4, autoreset_mode=same_step)
    nothing = dict.fromkeys(("env_preprocessor", "env_postprocessor", "preprocessor", "postprocessor"), lambda x: x)
    found = eval_policy(rows, wrapped(folders["act"]), **nothing, n_episodes=4, start_seed=0)
    assert [episode["success"] for episode in found["per_episode"]] == [True] * 4
    assert [episode["sum_reward"] for episode in found["per_episode"]] == [1.0] * 4


@pytest.mark.parametrize("episodes", [1, 2])
@needs_simulator
def test_the_mujoco_robot_lays_out_the_episodes_asked_for_and_then_stands_still(
    episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot_robot_vlamem import VlamemPanda, VlamemPandaConfig, robot

    scene = Scene()
    monkeypatch.setattr(robot, "SUITE", SimpleNamespace(make=lambda task, **options: scene))
    with pytest.raises(ValueError, match="episodes is 0: expected 1 or more"):
        VlamemPandaConfig(episodes=0)
    panda = VlamemPanda(VlamemPandaConfig(episode=4, episodes=episodes))
    WATCH.take()
    panda.connect()
    assert scene.still.wait(600)
    panda.send_action(dict.fromkeys(panda.action_features, 0.0))
    assert panda.is_connected
    panda.disconnect()
    assert scene.closed
    shown = [step.state[0] for step in WATCH.take()]
    assert shown == [*range(Scene.STEPS)] * episodes + [Scene.STEPS]  # of the last episode the end too
    assert scene.laid_out == [4 + number for number in range(episodes)]
    assert panda.successes == episodes


@needs_simulator
def test_lerobot_rollout_runs_a_wrapped_policy_on_the_mujoco_robot(folders: dict[str, Path], installed: Path) -> None:
    done = run_program(
        "lerobot-rollout", installed, f"--policy.inner={folders['act']}", "--robot.type=vlamem_panda",
        f"--robot.size={SIZE}", "--task=touch the red block", "--duration=1", "--fps=20", "--play_sounds=false",
        "--policy.push_to_hub=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Rollout finished" in done.stderr + done.stdout
