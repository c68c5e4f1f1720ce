"""plugins/lerobot_policy_vlamem: memories in files, and what a memory is shown under real-time chunking."""

import shlex
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import ACTIONS, lerobots_own, raw_batch
from lerobot_plugin_cases import batch, remembering, seen, wrapped

from vlamem.core.observation import Observation
from vlamem.policies.lerobot.watch import MOST, WATCH, Watch, Watched
from vlamem.policies.memories import SHIPPED_GATE
from vlamem.policies.registry import find_policy, load_policy

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


def test_a_recurrent_memory_in_a_file_is_the_one_of_the_library(folders: dict[str, Path]) -> None:
    import vlamem
    from vlamem.memory.weights import WeightsError

    library = vlamem.wrap("tiny", "aura")
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
    for name in ("aura", shlex.quote(f"aura:{SHIPPED_GATE}")):
        policy = wrapped(Path("tiny"), memory=name, n_action_steps=1)
        torch.manual_seed(3)
        for obs in seen:
            action = policy.select_action(raw_batch(obs))
        np.testing.assert_array_equal(action.numpy(), expected[:, 0])
        for key, value in library.state(0).items():
            np.testing.assert_array_equal(policy.memory.state(0)[key], value)
    with pytest.raises(WeightsError):
        wrapped(folders["act"], memory="aura")


def upright() -> Observation:
    """A state whose orientation is one."""
    state = np.array([[0.1, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0, 0.04]], np.float32)
    return Observation(seen(0).images, state, seen(0).instruction)


def filled(folder: Path, path: Path) -> Path:
    """A success memory of a checkpoint that did nothing in the state `upright`, and succeeded."""
    from vlamem.memory.success import Episode, Segment
    from vlamem.memory.success.runner import open_success

    source = find_policy(f"{folder}?actions=osc_pose")
    policy, here = load_policy(source), upright()
    runner = open_success(path, policy, source.sha256)
    nothing = np.zeros((policy.spec.horizon, ACTIONS), np.float32)
    segment = Segment(0, 0.0, policy.encode(here).key[0], here.proprioception[0], nothing)
    meaning = runner.meaning(here.instruction[0])
    for number in range(4):
        episode = Episode(
            f"{number}", here.instruction[0], "success", "predicate", 1.0, 1.0, (segment,),
            meaning if meaning.size else None,
        )  # fmt: skip
        runner.memory.commit(episode)
    runner.memory.close()
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
    policy = wrapped(Path(inner), memory="success:memory.db")
    steered = policy.select_action(known)
    assert steered.abs().mean() < 0.5 * bare.abs().mean()
    policy.save_pretrained(tmp_path / "saved")
    monkeypatch.chdir(tmp_path / "saved")
    assert torch.equal(VlamemPolicy.from_pretrained(".").select_action(known), steered)
    with pytest.raises(ValueError, match=r"no success memory at .*/saved/memory\.db"):
        wrapped(folders["act"], memory="success:memory.db")


@pytest.mark.parametrize(
    ("old", "now"), [("aura", "aura:FILE"), ("success", "success:FILE"), ("way", r"'aura\?inject=context'")]
)
def test_options_that_changed_their_name_are_refused_by_the_new_one(
    folders: dict[str, Path], old: str, now: str
) -> None:
    with pytest.raises(ValueError, match=rf"option {old} is of version 0.1: write --policy\.memory={now}"):
        wrapped(folders["act"], **{old: "shipped"})


def test_several_memories_are_given_side_by_side(folders: dict[str, Path], tmp_path: Path) -> None:
    inner = Path(f"{folders['act']}?actions=osc_pose")
    filled(folders["act"], tmp_path / "memory.db")
    known = raw_batch(upright())
    success = f"success:{tmp_path / 'memory.db'}"
    alone, both = (wrapped(inner, memory=given) for given in (success, f"{success} lerobot_plugin_cases:COUNTING"))
    assert torch.equal(alone.select_action(known), both.select_action(known))
    assert [memory.spec.name for memory in both.memory.memories] == ["success", "counting"]
    assert both.memory.ticks


def test_weights_of_every_memory_are_saved_beside_the_configuration(folders: dict[str, Path], tmp_path: Path) -> None:
    from lerobot_policy_vlamem import VlamemPolicy

    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    given = [f"lerobot_plugin_cases:COUNTING_FILE:{tmp_path / name}?confidence=0.5" for name in ("one", "two")]
    policy = wrapped(folders["act"], memory=f"{given[0]} lerobot_plugin_cases:COUNTING {given[1]}")
    policy.save_pretrained(tmp_path / "saved")
    assert [(tmp_path / "saved" / f"memory-{i}.safetensors").read_text() for i in (0, 2)] == ["one", "two"]
    for name in ("one", "two"):
        (tmp_path / name).unlink()
    again = VlamemPolicy.from_pretrained(str(tmp_path / "saved"))
    again.save_pretrained(tmp_path / "saved")
    assert [str(name.file) for name in again._names if name.file] == [
        str(tmp_path / "saved" / f"memory-{i}.safetensors") for i in (0, 2)
    ]


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
    policy, memory = remembering(folders["smolvla"], confidence=0.0)
    policy.predict_action_chunk(batch(0, 1))
    for step in range(1, 4):
        publish(step)
    policy.predict_action_chunk(batch(4, 1))  # of a robot that did not publish this one
    assert len(memory.seen) == 1 + 3 + 1
    publish(5)
    policy.reset()
    assert WATCH.take() == []


def publish(step: int) -> None:
    """What a robot does that sees `batch(step, 1)`."""
    obs = seen(step)
    WATCH.publish(Watched({name: image[0] for name, image in obs.images.items()}, obs.proprioception[0]))


def test_under_real_time_chunking_each_control_step_is_ticked_once_and_in_order(folders: dict[str, Path]) -> None:
    policy, memory = remembering(folders["smolvla"], confidence=0.0)
    expected = [policy.frozen.encode(seen(step)).z[0] for step in range(5)]
    policy.predict_action_chunk(batch(0, 1))
    for step in range(1, 4):
        publish(step)  # the third comes while lerobot still holds the second
    for again in range(3):
        policy.predict_action_chunk(batch(2, 1))
        assert len(memory.seen) == 3, f"call {again} with one observation"
    publish(4)
    policy.predict_action_chunk(batch(4, 1))
    assert len(memory.seen) == 5
    np.testing.assert_array_equal(memory.seen, expected)


def test_an_episode_that_begins_with_the_same_observation_is_ticked(folders: dict[str, Path]) -> None:
    policy, memory = remembering(folders["smolvla"], confidence=0.0)
    policy.predict_action_chunk(batch(0, 1))
    policy.reset()
    policy.predict_action_chunk(batch(0, 1))
    policy.reset(np.array([True]))
    policy.predict_action_chunk(batch(0, 1))
    assert len(memory.seen) == 3


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
