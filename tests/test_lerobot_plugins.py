"""plugins/lerobot_policy_vlamem: a wrapped policy is lerobot's own without a memory, and a memory sees all of it."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import lerobots_own
from lerobot_plugin_cases import batch, remembering, wrapped

from vlamem.policies.lerobot.source import on_device

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


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
    policy, memory = remembering(folders[family], confidence=0.0)
    torch.manual_seed(3)
    expected = [bare.select_action(batch(step)) for step in range(6)]
    torch.manual_seed(3)
    actions = [policy.select_action(batch(step)) for step in range(6)]
    assert torch.equal(torch.stack(actions), torch.stack(expected))
    assert len(memory.seen) == 6 * 2  # two rows; chunks of four actions are planned twice
    assert len({feature.tobytes() for feature in memory.seen}) == 12


def test_a_memory_that_is_sure_moves_the_actions(folders: dict[str, Path]) -> None:
    policy, _ = remembering(folders["smolvla"], confidence=1.0)
    actions = torch.stack([policy.select_action(batch(step)) for step in range(4)])
    bare = wrapped(folders["smolvla"])
    free = torch.stack([bare.select_action(batch(step)) for step in range(4)])
    assert actions.abs().mean() < free.abs().mean()


def test_reset_of_one_row_plans_that_row_anew_and_leaves_the_other(folders: dict[str, Path]) -> None:
    policy, memory = remembering(folders["diffusion"], confidence=0.0)
    policy.select_action(batch(0))
    before = [list(queue) for queue in policy._queues]
    resets = memory.resets
    policy.reset(np.array([True, False]))
    action = policy.select_action(batch(1))
    assert memory.resets == resets + 1
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


def test_a_checkpoint_is_loaded_on_the_device_that_lerobot_moves_the_policy_to(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot_policy_vlamem import modeling_vlamem

    asked: list[str] = []
    load = modeling_vlamem.load_policy
    monkeypatch.setattr(modeling_vlamem, "load_policy", lambda source: asked.append(source.name) or load(source))
    policy = wrapped(Path(f"{folders['act']}?hz=20"))
    assert asked == [f"{folders['act']}?hz=20&device=cpu"]
    assert (policy.frozen.bridge.device, policy.frozen.spec.control_hz) == ("cpu", 20.0)
    assert policy.config.inner == f"{folders['act']}?hz=20"
    with pytest.raises(ValueError, match="is to run on cuda, and its caller moves it to cpu: leave one of them out"):
        wrapped(Path(f"{folders['act']}?device=cuda"))


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


def test_an_inner_policy_is_asked_for_by_name() -> None:
    from lerobot_policy_vlamem import VlamemConfig, VlamemPolicy

    with pytest.raises(ValueError, match=r"--policy\.inner=FOLDER"):
        VlamemPolicy(VlamemConfig(device="cpu"))
