"""plugins/: a wrapped policy, the tabletop suite and a MuJoCo robot behind lerobot's own programs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import (
    ACTIONS,
    SIZE,
    build,
    installed_plugins,
    lerobots_own,
    observation,
    raw_batch,
    run_program,
)

from vlamem.policies.lerobot.source import on_device
from vlamem.policies.lerobot.watch import MOST, WATCH, Watch, Watched
from vlamem.policies.memory_policy import SHIPPED_GATE
from vlamem.policies.protocol import Observation
from vlamem.policies.registry import find_policy, load_policy
from vlamem.policies.speak import Said

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: build(family, root / family) for family in ("act", "diffusion", "diffusion_ddpm", "smolvla")}


def wrapped(folder: Path, **options: Any) -> Any:
    from lerobot_policy_vlamem import VlamemConfig, VlamemPolicy

    return VlamemPolicy(VlamemConfig(inner=str(folder), device="cpu", **options))


def batch(step: int, rows: int = 2) -> dict[str, Any]:
    """What lerobot-eval hands to `select_action`, another one at every step."""
    return raw_batch(seen(step, rows))


def seen(step: int, rows: int = 1) -> Observation:
    """The same as an observation of this project."""
    obs = observation(rows)
    images = {name: np.roll(image, 5 * step, axis=2) for name, image in obs.images.items()}
    return Observation(images, obs.proprioception + np.float32(0.01 * step), obs.instruction)


@dataclass
class Counting:
    """A voice that counts its ticks and proposes a fixed chunk with a fixed confidence."""

    confidence: float
    feature_size: int
    horizon: int
    context_size: int = 0
    seen: list[np.ndarray] = field(default_factory=list)
    resets: int = 0

    @property
    def chunk_shape(self) -> tuple[int, int]:
        return self.horizon, ACTIONS

    def row(self) -> "Counting":
        return self

    def reset(self) -> None:
        self.resets += 1

    def tick(self, feature: np.ndarray) -> Said:
        self.seen.append(feature)
        return Said(self.confidence, np.zeros(self.chunk_shape, np.float32), None, True, 1.0, 0.0)

    def state(self) -> dict[str, np.ndarray]:
        return {"ticks": np.array([len(self.seen)])}


def remembering(folder: Path, confidence: float, **options: Any) -> tuple[Any, Counting]:
    """A wrapped policy whose memory is a Counting voice."""
    from vlamem.policies.speak import SpeakOptions

    policy = wrapped(folder, **options)
    voice = Counting(confidence, policy.frozen.spec.feature_size, policy.frozen.spec.horizon)
    policy._voice, policy._options = voice, SpeakOptions("chunk")
    return policy, voice


@pytest.mark.parametrize("family", ["act", "diffusion", "diffusion_ddpm", "smolvla"])
def test_without_a_memory_every_action_is_lerobots_own(family: str, folders: dict[str, Path]) -> None:
    own, pre, post = lerobots_own(folders[family])
    policy = wrapped(folders[family])
    torch.manual_seed(3)
    expected = [post(own.select_action(pre(batch(step)))) for step in range(6)]
    torch.manual_seed(3)
    actions = [policy.select_action(batch(step)) for step in range(6)]
    assert torch.equal(torch.stack(actions), torch.stack(expected))


@pytest.mark.parametrize("family", ["act", "diffusion", "smolvla"])
def test_a_memory_that_abstains_changes_no_action_and_sees_every_observation(
    family: str, folders: dict[str, Path]
) -> None:
    bare = wrapped(folders[family])
    policy, voice = remembering(folders[family], confidence=0.0)
    torch.manual_seed(3)
    expected = [bare.select_action(batch(step)) for step in range(6)]
    torch.manual_seed(3)
    actions = [policy.select_action(batch(step)) for step in range(6)]
    assert torch.equal(torch.stack(actions), torch.stack(expected))
    assert len(voice.seen) == 6 * 2  # two rows; chunks of four actions are planned twice
    assert len({feature.tobytes() for feature in voice.seen}) == 12


def test_a_memory_that_is_sure_moves_the_actions(folders: dict[str, Path]) -> None:
    policy, _ = remembering(folders["smolvla"], confidence=1.0)
    actions = torch.stack([policy.select_action(batch(step)) for step in range(4)])
    bare = wrapped(folders["smolvla"])
    free = torch.stack([bare.select_action(batch(step)) for step in range(4)])
    assert actions.abs().mean() < free.abs().mean()


def test_reset_of_one_row_plans_that_row_anew_and_leaves_the_other(folders: dict[str, Path]) -> None:
    policy, voice = remembering(folders["diffusion"], confidence=0.0)
    policy.select_action(batch(0))
    before = [list(queue) for queue in policy._queues]
    resets = voice.resets
    policy.reset(np.array([True, False]))
    action = policy.select_action(batch(1))
    assert voice.resets == resets + 1
    assert np.array_equal(action[1].numpy(), before[1][0])
    assert [len(queue) for queue in policy._queues] == [3, 2]
    newest = policy._history[-1].proprioception
    assert np.array_equal(policy._history[0].proprioception[0], newest[0])  # no trace of the episode before
    assert not np.array_equal(policy._history[0].proprioception[1], newest[1])


def test_without_a_memory_a_part_of_the_rows_is_not_reset(folders: dict[str, Path]) -> None:
    policy = wrapped(folders["act"])
    policy.select_action(batch(0))
    with pytest.raises(ValueError, match=r"rows \[0\] of 2 cannot be reset alone: without a memory"):
        policy.reset(np.array([True, False]))
    assert len(policy.network._action_queue) == 3
    policy.reset(np.array([True, True]))
    assert not policy.network._action_queue


def test_number_of_actions_carried_out_is_the_checkpoints_own_or_as_asked(folders: dict[str, Path]) -> None:
    for asked, planned in ((None, 2), (2, 4)):
        policy, _ = remembering(folders["act"], 0.0, n_action_steps=asked)
        chunks: list[int] = []
        policy.network.model.action_head.register_forward_hook(lambda *_, chunks=chunks: chunks.append(1))
        for step in range(8):
            policy.select_action(batch(step))
        assert len(chunks) == planned
    for wrong in (9, 0, -1):
        with pytest.raises(ValueError, match=f"n_action_steps is {wrong}: chunks have 8 steps, choose 1 to 8"):
            wrapped(folders["act"], n_action_steps=wrong)


@pytest.mark.parametrize("family", ["act", "diffusion", "smolvla"])
def test_number_of_actions_asked_for_is_carried_out_with_and_without_a_memory(
    family: str, folders: dict[str, Path]
) -> None:
    bare = wrapped(folders[family], n_action_steps=2)
    policy, _ = remembering(folders[family], 0.0, n_action_steps=2)
    own = wrapped(folders[family])
    taken = []
    for each in (bare, policy, own):
        torch.manual_seed(3)
        taken.append(torch.stack([each.select_action(batch(step)) for step in range(4)]))
    assert torch.equal(taken[0], taken[1])
    assert torch.equal(taken[0][:2], taken[2][:2])
    assert not torch.equal(taken[0][2:], taken[2][2:])


def test_a_temporal_ensemble_plans_at_every_step(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folders["act"], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text()) | {"temporal_ensemble_coeff": 0.01, "n_action_steps": 1}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="n_action_steps is 2: a temporal ensemble plans at every step"):
        wrapped(copy, n_action_steps=2)


def test_network_and_processors_are_on_the_device_that_lerobot_moves_the_policy_to(folders: dict[str, Path]) -> None:
    from lerobot_policy_vlamem import VlamemConfig, VlamemPolicy

    config = VlamemConfig(inner=f"{folders['act']}?hz=20", device="cpu")
    config.device = "cpu:0"  # another name of the same processor, so that the test needs no second device
    policy = VlamemPolicy(config)
    assert policy.frozen.bridge.device == "cpu:0"
    assert (policy.frozen.spec.control_hz, policy.config.inner) == (20.0, config.inner)
    policy.to(config.device)
    policy.select_action(batch(0))
    with pytest.raises(ValueError, match="is to run on cuda, and its caller moves it to cpu: leave one of them out"):
        VlamemPolicy(VlamemConfig(inner=f"{folders['act']}?device=cuda", device="cpu"))


@pytest.mark.parametrize(
    ("name", "placed"), [("a/b", "a/b?device=cpu"), ("a/b?hz=20", "a/b?hz=20&device=cpu"), ("a/b?device=cpu", None)]
)
def test_a_device_is_one_more_option_of_a_checkpoint(name: str, placed: str | None) -> None:
    assert on_device(name, "cpu") == (placed or name)


def test_saved_and_loaded_again_it_acts_alike(folders: dict[str, Path], tmp_path: Path) -> None:
    from lerobot.configs import PreTrainedConfig
    from lerobot_policy_vlamem import VlamemPolicy

    policy = wrapped(folders["smolvla"], n_action_steps=3)
    policy.save_pretrained(tmp_path / "saved")
    config = PreTrainedConfig.from_pretrained(str(tmp_path / "saved"))
    assert (config.type, config.n_action_steps) == ("vlamem", 3)
    again = VlamemPolicy.from_pretrained(str(tmp_path / "saved"))
    torch.manual_seed(3)
    first = policy.select_action(batch(0))
    torch.manual_seed(3)
    assert torch.equal(again.select_action(batch(0)), first)


def test_a_recurrent_memory_in_a_file_is_the_one_of_the_library(folders: dict[str, Path]) -> None:
    import vlamem
    from vlamem.memory.aura.weights import WeightsError

    library = vlamem.wrap("tiny", aura="shipped")
    draw, size = np.random.default_rng(0), library.spec.image_size
    seen = [
        Observation(
            {name: draw.integers(0, 256, (1, size, size, 3), dtype=np.uint8) for name in library.spec.cameras},
            draw.uniform(-0.5, 0.5, (1, 8)).astype(np.float32),
            ("touch the red block",),
        )
        for _ in range(3)
    ]
    ticks = [library.observe(obs) for obs in seen]
    torch.manual_seed(3)
    for tick in ticks:
        expected = library.plan(tick, torch.randn(1, library.spec.horizon, ACTIONS).numpy())
    for name in ("shipped", str(SHIPPED_GATE)):
        policy = wrapped(Path("tiny"), aura=name, n_action_steps=1)
        torch.manual_seed(3)
        for obs in seen:
            action = policy.select_action(raw_batch(obs))
        np.testing.assert_array_equal(action.numpy(), expected[:, 0])
        for key, value in library.state(0).items():
            np.testing.assert_array_equal(policy.memory.state(0)[key], value)
    with pytest.raises(WeightsError):
        wrapped(folders["act"], aura="shipped")


def upright() -> Observation:
    """A state whose orientation is one."""
    state = np.array([[0.1, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0, 0.04]], np.float32)
    return Observation(seen(0).images, state, seen(0).instruction)


def filled(folder: Path, path: Path) -> Path:
    """A success memory of a checkpoint that did nothing in the state `upright`, and succeeded."""
    from vlamem.memory.success.episode import Episode, Segment
    from vlamem.policies.success import open_success

    source = find_policy(f"{folder}?actions=osc_pose")
    policy, here = load_policy(source), upright()
    voice = open_success(path, policy, source.sha256)
    nothing = np.zeros((policy.spec.horizon, ACTIONS), np.float32)
    segment = Segment(0, 0.0, policy.encode(here).key[0], here.proprioception[0], nothing)
    meaning = voice.meaning(here.instruction[0])
    for number in range(4):
        episode = Episode(
            f"{number}", here.instruction[0], "success", "predicate", 1.0, 1.0, (segment,),
            meaning if meaning.size else None,
        )  # fmt: skip
        voice.memory.commit(episode)
    voice.memory.close()
    return path


def test_a_success_memory_in_a_file_steers_what_it_knows_also_when_saved_and_loaded_elsewhere(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot_policy_vlamem import VlamemPolicy

    filled(folders["act"], tmp_path / "memory.db")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").symlink_to(folders["act"])
    inner = "checkpoint?actions=osc_pose"
    known = raw_batch(upright())
    bare = wrapped(Path(inner)).select_action(known)
    policy = wrapped(Path(inner), success="memory.db")
    steered = policy.select_action(known)
    assert steered.abs().mean() < 0.5 * bare.abs().mean()
    policy.save_pretrained(tmp_path / "saved")
    monkeypatch.chdir(tmp_path / "saved")
    assert torch.equal(VlamemPolicy.from_pretrained(".").select_action(known), steered)
    with pytest.raises(ValueError, match=r"no success memory at .*/saved/memory\.db"):
        wrapped(folders["act"], success="memory.db")


def test_an_inner_policy_is_asked_for_by_name() -> None:
    from lerobot_policy_vlamem import VlamemConfig, VlamemPolicy

    with pytest.raises(ValueError, match=r"--policy\.inner=FOLDER"):
        VlamemPolicy(VlamemConfig(device="cpu"))


def test_real_time_chunking_is_the_frozen_policys_own_in_the_environments_units(folders: dict[str, Path]) -> None:
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    own, pre, post = lerobots_own(folders["smolvla"])
    own.config.rtc_config = RTCConfig(enabled=True, execution_horizon=4)
    own.init_rtc_processor()
    policy = wrapped(folders["smolvla"])
    assert policy.supports_rtc()
    policy.config.rtc_config = RTCConfig(enabled=True, execution_horizon=4)
    policy.init_rtc_processor()
    noise = torch.randn(1, 8, 10)
    raw = own.predict_action_chunk(pre(batch(0, 1)), noise=noise)[0, 2:6]
    expected = post(
        own.predict_action_chunk(pre(batch(1, 1)), noise=noise, inference_delay=1, prev_chunk_left_over=raw)
    )
    chunk = policy.predict_action_chunk(batch(1, 1), noise=noise, inference_delay=1, prev_chunk_left_over=post(raw))
    torch.testing.assert_close(chunk, expected, atol=1e-4, rtol=0)


def test_between_two_chunks_the_memory_sees_what_the_robot_published(folders: dict[str, Path]) -> None:
    policy, voice = remembering(folders["smolvla"], confidence=0.0)
    policy.predict_action_chunk(batch(0, 1))
    for step in range(1, 4):
        publish(step)
    policy.predict_action_chunk(batch(4, 1))  # of a robot that did not publish this one
    assert len(voice.seen) == 1 + 3 + 1
    publish(5)
    policy.reset()
    assert WATCH.take() == []


def publish(step: int) -> None:
    """What a robot does that sees `batch(step, 1)`."""
    obs = seen(step)
    WATCH.publish(Watched({name: image[0] for name, image in obs.images.items()}, obs.proprioception[0]))


def test_under_real_time_chunking_each_control_step_is_ticked_once_and_in_order(folders: dict[str, Path]) -> None:
    policy, voice = remembering(folders["smolvla"], confidence=0.0)
    expected = [policy.frozen.encode(seen(step)).z[0] for step in range(5)]
    policy.predict_action_chunk(batch(0, 1))
    for step in range(1, 4):
        publish(step)  # the third comes while lerobot still holds the second
    for again in range(3):
        policy.predict_action_chunk(batch(2, 1))
        assert len(voice.seen) == 3, f"call {again} with one observation"
    publish(4)
    policy.predict_action_chunk(batch(4, 1))
    assert len(voice.seen) == 5
    np.testing.assert_array_equal(voice.seen, expected)


def test_an_episode_that_begins_with_the_same_observation_is_ticked(folders: dict[str, Path]) -> None:
    policy, voice = remembering(folders["smolvla"], confidence=0.0)
    policy.predict_action_chunk(batch(0, 1))
    policy.reset()
    policy.predict_action_chunk(batch(0, 1))
    policy.reset(np.array([True]))
    policy.predict_action_chunk(batch(0, 1))
    assert len(voice.seen) == 3


def test_steps_given_back_come_before_what_was_published_since_and_the_oldest_are_dropped() -> None:
    watch = Watch()
    watch.take()
    steps = [Watched({}, np.full(1, number, np.float32)) for number in range(MOST + 2)]
    for step in steps[:3]:
        watch.publish(step)
    taken = watch.take()
    for step in steps[3:]:
        watch.publish(step)
    watch.give_back(taken[1:])
    assert [int(step.state[0]) for step in watch.take()] == list(range(2, MOST + 2))
    assert watch.dropped == 1


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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_plugins(tmp_path_factory.mktemp("site"))


def test_lerobot_eval_runs_a_wrapped_policy_on_the_tabletop(
    folders: dict[str, Path], installed: Path, tmp_path: Path
) -> None:
    pytest.importorskip("robosuite")
    done = run_program(
        "lerobot-eval", installed, f"--policy.inner={folders['smolvla']}", "--env.type=vlamem_tabletop",
        "--env.task=touch", f"--env.size={SIZE}", "--env.max_steps=5", "--eval.n_episodes=2", "--eval.batch_size=2",
        "--eval.use_async_envs=false", "--seed=0", f"--output_dir={tmp_path}", "--policy.push_to_hub=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "eval_info.json").read_text())
    assert report["overall"]["n_episodes"] == 2


def test_a_policy_with_a_gate_is_saved_again_in_its_folder_and_named_by_it_to_lerobot_eval(
    installed: Path, tmp_path: Path
) -> None:
    pytest.importorskip("robosuite")
    from lerobot_policy_vlamem import VlamemPolicy

    folder = tmp_path / "saved"
    policy = wrapped(Path("tiny"), aura=str(SHIPPED_GATE))
    policy.save_pretrained(folder)
    again = VlamemPolicy.from_pretrained(str(folder))
    again.save_pretrained(folder)  # where its gate is already
    assert again.remembers
    assert (folder / "aura.safetensors").read_bytes() == SHIPPED_GATE.read_bytes()
    done = run_program(
        "lerobot-eval", installed, "--env.type=vlamem_tabletop", "--env.task=touch", "--env.max_steps=5",
        "--eval.n_episodes=1", "--eval.batch_size=1", "--eval.use_async_envs=false", "--seed=0",
        f"--output_dir={tmp_path / 'out'}", "--policy.push_to_hub=false", policy=f"--policy.path={folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]["n_episodes"] == 1


@pytest.mark.parametrize("episodes", [1, 2])
def test_the_mujoco_robot_lays_out_the_episodes_asked_for_and_then_stands_still(
    episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("robosuite")
    from lerobot_robot_vlamem import VlamemPanda, VlamemPandaConfig, robot

    scene = Scene()
    monkeypatch.setattr(robot, "SUITE", SimpleNamespace(make=lambda task, **options: scene))
    with pytest.raises(ValueError, match="episodes is 0: expected 1 or more"):
        VlamemPandaConfig(episodes=0)
    panda = VlamemPanda(VlamemPandaConfig(episode=4, episodes=episodes))
    WATCH.take()
    panda.connect()
    assert scene.still.wait(60)
    panda.send_action(dict.fromkeys(panda.action_features, 0.0))
    assert panda.is_connected
    panda.disconnect()
    assert scene.closed
    shown = [step.state[0] for step in WATCH.take()]
    assert shown == [*range(Scene.STEPS)] * episodes + [Scene.STEPS]  # of the last episode the end too
    assert scene.laid_out == [4 + number for number in range(episodes)]
    assert panda.successes == episodes


def test_lerobot_rollout_runs_a_wrapped_policy_on_the_mujoco_robot(folders: dict[str, Path], installed: Path) -> None:
    pytest.importorskip("robosuite")
    done = run_program(
        "lerobot-rollout", installed, f"--policy.inner={folders['act']}", "--robot.type=vlamem_panda",
        f"--robot.size={SIZE}", "--task=touch the red block", "--duration=1", "--fps=20", "--play_sounds=false",
        "--policy.push_to_hub=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Rollout finished" in done.stderr + done.stdout
