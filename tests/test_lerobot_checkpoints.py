"""policies/lerobot: checkpoints that cannot be used, and what the error says."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

from lerobot_cases import build, loaded, observation
from policy_cases import imported_late

import vlamem
from vlamem.core.proposal import Proposal
from vlamem.core.spec import OSC_POSE, SpecMismatchError
from vlamem.policies.lerobot import CheckpointError, load
from vlamem.policies.lerobot.source import find_checkpoint
from vlamem.policies.registry import PolicyError, absolute, find_policy

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


def test_the_normaliser_hash_follows_the_statistics_and_nothing_else(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = _copied(folders["act"], tmp_path)
    before = loaded(folders["act"], "act").spec.normaliser
    assert loaded(copy, "act").spec.normaliser == before
    path = next(copy.glob("policy_postprocessor*.safetensors"))
    tensors = load_file(path)
    tensors["action.std"] = tensors["action.std"] * 1.01
    save_file(tensors, path)
    assert loaded(copy, "act").spec.normaliser != before


def _copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def _edit(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _wrong_action_size(folder: Path) -> None:
    features = json.loads((folder / "config.json").read_text())["output_features"]
    features["action"]["shape"] = [6]
    _edit(folder, "config.json", output_features=features)


def _state_of_seven(folder: Path) -> None:
    features = json.loads((folder / "config.json").read_text())["input_features"]
    features["observation.state"]["shape"] = [7]
    _edit(folder, "config.json", input_features=features)


def _adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base", "r": 8}))


def _pointer(pattern: str) -> Any:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    return lambda folder: next(folder.glob(pattern)).write_text(text)


def _broken_statistics(folder: Path) -> None:
    path = next(folder.glob("policy_postprocessor*.safetensors"))
    path.write_bytes(path.read_bytes()[:-20])


def _environment_state(folder: Path) -> None:
    features = json.loads((folder / "config.json").read_text())["input_features"]
    features["observation.environment_state"] = {"type": "ENV", "shape": [6]}
    _edit(folder, "config.json", input_features=features)


def _postprocessor_of_six(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = next(folder.glob("policy_postprocessor*.safetensors"))
    save_file({k: v[:6] if k.startswith("action.") else v for k, v in load_file(path).items()}, path)


def _other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "action_head" not in k}, folder / "model.safetensors")


def _statistics(folder: Path, processor: str, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = next(folder.glob(f"policy_{processor}*.safetensors"))
    save_file(change(load_file(path)), path)


def _named(processor: str, old: str, new: str) -> Any:
    """Stores a processor's statistics of a feature under another name."""
    return lambda folder: _statistics(
        folder, processor, lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}
    )


def _without(processor: str, *names: str) -> Any:
    return lambda folder: _statistics(
        folder, processor, lambda tensors: {n: t for n, t in tensors.items() if not n.startswith(names)}
    )


def _with(processor: str, name: str, value: float, entry: int = 2) -> Any:
    def change(tensors: Any) -> Any:
        tensors[name].view(-1)[entry] = value
        return tensors

    return lambda folder: _statistics(folder, processor, change)


def _whole_numbers(folder: Path) -> None:
    import torch

    _statistics(folder, "postprocessor", lambda t: t | {"action.mean": t["action.mean"].to(torch.int64)})


def _no_width(folder: Path) -> None:
    key = "observation.state.std"
    _statistics(folder, "preprocessor", lambda tensors: tensors | {key: tensors[key] * 0})


def _never_normalised(folder: Path) -> None:
    body = json.loads((folder / "policy_postprocessor.json").read_text())
    steps = [step for step in body["steps"] if step["registry_name"] != "unnormalizer_processor"]
    _edit(folder, "policy_postprocessor.json", steps=steps)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("harm", "options", "complaint"),
    [
        (lambda f: _edit(f, "config.json", type="actt"), "", r"of type 'actt' \(did you mean 'act'\?\)"),
        (lambda f: _edit(f, "config.json", type="xvla"), "", "adapters exist for smolvla, pi0"),
        (lambda f: _edit(f, "config.json", colour="red"), "", "is not one of lerobot"),
        (lambda f: (f / "config.json").write_text("{"), "", "is not JSON"),
        (lambda f: (f / "config.json").unlink(), "", "no config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "", "no model.safetensors"),
        (lambda f: (f / "policy_preprocessor.json").unlink(), "", "no policy_preprocessor.json"),
        (lambda f: next(f.glob("policy_post*.safetensors")).unlink(), "", "lacks policy_postprocessor"),
        (_wrong_action_size, "", "do not fit its configuration|normalises 7 entries of 'action', the network has 6"),
        (_postprocessor_of_six, "", "normalises 6 entries of 'action', the network has 7"),
        (_other_weights, "", "Missing|has no tensor for"),
        (_cut, "", "whole weights file|do not fit"),
        (_named("preprocessor", "observation.state", "so100.observation.state"), "", "has no 'observation.state.mean'"),
        (_named("postprocessor", "action.", "so100.buffer.action."), "", "statistics of .*, so100.buffer.action"),
        (
            _named("preprocessor", "observation.images.wrist", "observation.images.hand"),
            "",
            "'observation.images.wrist'",
        ),
        (_without("preprocessor", "observation.images.agentview.std"), "", "no 'observation.images.agentview.std'"),
        (_without("preprocessor", "action"), "", "the preprocessor .* normalises 'action' by MEAN_STD and has no"),
        (_without("postprocessor", ""), "", "it has statistics of nothing"),
        (_never_normalised, "", "the postprocessor .* normalises 'action' by MEAN_STD and has no 'action.mean'"),
        (
            _with("preprocessor", "observation.state.mean", float("nan")),
            "",
            "'observation.state.mean', whose entry 2 is nan",
        ),
        (_with("preprocessor", "observation.images.wrist.std", float("inf")), "", "whose entry 2 is inf"),
        (_with("postprocessor", "action.std", float("nan")), "", "'action.std', whose entry 2 is nan"),
        (_whole_numbers, "", "'action.mean', which is stored as whole numbers .I64."),
        (_no_width, "", "normalises 'observation.state' by MEAN_STD, and .* leave it no width in any entry"),
        (lambda f: None, "?device=gpu", "unknown device 'gpu': expected cpu, cuda"),
        (lambda f: None, "?device=meta", "unknown device 'meta'"),
        (lambda f: None, "?device=cuda:99", "device 'cuda:99' is not available on this machine"),
        (_adapter, "", "is a LoRA adapter of org/base and no whole checkpoint: merge it"),
        (_pointer("model.safetensors"), "", "model.safetensors of .* is a Git LFS pointer .*git lfs pull"),
        (_pointer("policy_preprocessor_step_*.safetensors"), "", "policy_preprocessor_step.* is a Git LFS pointer"),
        (_broken_statistics, "", "policy_postprocessor_step.* of .* is no whole file"),
        (_environment_state, "", r"reads 'observation.environment_state' \(env, \[6\]\): an observation here has"),
        (lambda f: None, "?camera.wrist=none", "camera 'wrist' of .* cannot be left out: a act reads all"),
        (lambda f: None, "?camera.wrist=none&camera.agentview=none", "every camera .* is left out"),
        (lambda f: None, "?state=joints", "unknown state 'joints': expected pose"),
        (_state_of_seven, "?state=pose", "reads a state of 7 numbers, a pose has 8"),
        (lambda f: None, "?ensemble=none", "has no temporal ensemble"),
        (lambda f: None, "?ensemble=0.1", "option ensemble is '0.1'"),
        (lambda f: None, "?colour=red", "unknown option 'colour'"),
        (lambda f: None, "?tap=visoin", "no tap 'visoin': choose one of vision"),
        (lambda f: None, "?tap=vision:median", "unknown pooling 'median'"),
        (lambda f: None, "?tap=encoder:grid2", "no square grid"),
        (lambda f: None, "?actions=joints", "unknown actions 'joints'"),
        (lambda f: None, "?camera.top=front", r"no image 'top' .* it reads \['agentview', 'wrist'\]"),
        (lambda f: None, "?hz=fast", "option hz is 'fast'"),
        (lambda f: None, "?backbone=/nowhere", "is no folder"),
        (lambda f: None, "?lowest_start=2", "lowest_start is 2"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_says_what_and_the_mend(
    harm: Any, options: str, complaint: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = _copied(folders["act"], tmp_path)
    harm(copy)
    with pytest.raises(CheckpointError, match=complaint):
        loaded(copy, "act", options)


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_a_checkpoint_that_was_saved_on_another_device_is_loaded_on_one_that_is_here(
    device: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = _copied(folders["act"], tmp_path)
    _edit(copy, "config.json", device=device)
    policy, obs = loaded(copy, "act"), observation()
    assert np.isfinite(policy.sample(policy.encode(obs), np.zeros((3, *policy.noise_shape), np.float32))).all()


@pytest.mark.parametrize("folder", ["12:30", "a+b", "a b", "ümlaut"])
def test_a_path_is_taken_as_it_is_written(
    folder: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(folders["smolvla"], tmp_path / folder / "checkpoint"))
    vlm = shutil.copytree(folders["smolvla"] / "vlm", tmp_path / folder / "vlm")
    name = f"{copy}?backbone={vlm}"
    assert find_policy(name).weights == copy / "model.safetensors"
    assert absolute(absolute(name)) == absolute(name)
    assert find_checkpoint(absolute(name)).options["backbone"] == str(vlm)
    assert loaded(copy, "smolvla", f"?backbone={vlm}").spec.horizon == 8
    weights = tmp_path / folder / "tiny.safetensors"
    weights.write_bytes(b"any")
    assert find_policy(str(weights)).weights == weights


@pytest.mark.parametrize("processor", ["preprocessor", "postprocessor"])
def test_a_deviation_of_zero_is_no_fault(processor: str, folders: dict[str, Path], tmp_path: Path) -> None:
    copy = _copied(folders["act"], tmp_path)
    _with(processor, "action.std", 0.0)(copy)
    policy = loaded(copy, "act")
    chunk = policy.sample(policy.encode(observation()), np.zeros((3, *policy.noise_shape), np.float32))
    assert np.isfinite(chunk).all()


def test_what_is_passed_as_it_is_needs_no_statistics(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = _copied(folders["smolvla"], tmp_path)
    _without("preprocessor", "observation.images")(copy)
    assert loaded(copy, "smolvla").spec.name == "smolvla[vision:grid2]"


def test_a_checkpoint_that_asks_for_compilation_is_loaded_without_and_takes_a_proposed_context(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = _copied(folders["smolvla"], tmp_path)
    _edit(copy, "config.json", compile_model=True)
    with caplog.at_level(logging.WARNING, "vlamem.policies"):
        policy = loaded(copy, "smolvla")
    assert "asks for compile_model, which is left out" in caplog.text
    plain, obs = loaded(folders["smolvla"], "smolvla"), observation()
    noise = np.ones((3, *policy.noise_shape), np.float32)
    own, told = policy.context_of(["touch the red block", "touch the blue block"])
    proposal = Proposal.of_context(np.stack([told - own] * 3), np.ones(3, np.float32))
    steered = policy.sample(policy.encode(obs), noise, proposal)
    np.testing.assert_array_equal(steered, plain.sample(plain.encode(obs), noise, proposal))
    assert not np.array_equal(steered, policy.sample(policy.encode(obs), noise))


def test_a_network_that_was_saved_compiled_is_loaded_under_its_own_names(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    plain = build("diffusion", tmp_path / "plain")
    copy = _copied(plain, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    inside = "diffusion.unet."  # as torch.compile names what it wraps
    renamed = {name.replace(inside, f"{inside}_orig_mod."): tensor for name, tensor in tensors.items()}
    save_file(renamed, copy / "model.safetensors", metadata={"format": "pt"})
    _edit(copy, "config.json", compile_model=True)
    compiled, own = loaded(copy, "diffusion"), loaded(plain, "diffusion")
    obs, noise = observation(), np.ones((3, *own.noise_shape), np.float32)
    np.testing.assert_array_equal(compiled.sample(compiled.encode(obs), noise), own.sample(own.encode(obs), noise))


def test_a_network_of_bfloat16_is_steered_too(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = build("pi0", tmp_path / "pi0")
    _edit(copy, "config.json", dtype="bfloat16", compile_model=True)
    policy, obs = loaded(copy, "pi0"), observation()
    noise = np.ones((3, *policy.noise_shape), np.float32)
    own, told = policy.context_of(["touch the red block", "touch the blue block"])
    bare = policy.sample(policy.encode(obs), noise)
    proposal = Proposal.of_context(8 * np.stack([told - own] * 3), np.array([1, 0, 1], np.float32))
    steered = policy.sample(policy.encode(obs), noise, proposal)
    assert not np.array_equal(steered[0], bare[0])
    np.testing.assert_array_equal(steered[1], bare[1])


def test_a_temporal_ensemble_is_played_only_when_it_is_left_out_by_name(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = _copied(folders["act"], tmp_path)
    _edit(copy, "config.json", temporal_ensemble_coeff=0.01, n_action_steps=1)
    with pytest.raises(PolicyError, match=r"saved with a temporal ensemble \(coefficient 0\.01\).*\?ensemble=none"):
        vlamem.wrap(str(copy))
    left, plain, obs = vlamem.wrap(f"{copy}?ensemble=none", rows=3), loaded(folders["act"], "act"), observation()
    noise = np.zeros((3, *plain.noise_shape), np.float32)
    np.testing.assert_array_equal(left.plan(left.observe(obs), noise), plain.sample(plain.encode(obs), noise))


def test_a_backbone_that_is_not_here_is_named_with_its_local_alternative(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    copy = _copied(folders["smolvla"], tmp_path)
    _edit(copy, "config.json", vlm_model_name="nobody/backbone")
    with pytest.raises(CheckpointError, match=r"\?backbone=FOLDER"):
        loaded(copy, "smolvla")
    policy = loaded(copy, "smolvla", f"?backbone={folders['smolvla'] / 'vlm'}")
    assert policy.spec.name == "smolvla[vision:grid2]"


def test_after_preloading_a_checkpoint_loading_imports_neither_torch_nor_the_network(folders: dict[str, Path]) -> None:
    late = imported_late(f"{folders['smolvla']}?actions=osc_pose&hz=20")
    assert not {"torch", "lerobot", "vlamem"} & {name.partition(".")[0] for name in late}, late
    assert len(late) < 150


def test_a_hub_that_cannot_be_reached_says_so_and_names_the_local_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"the hub cannot be reached \(ConnectError\).*--policy \./smolvla"):
        find_policy("nobody/smolvla")


def test_a_part_of_a_checkpoint_in_the_cache_is_completed_from_the_hub(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    partial = tmp_path / "partial"
    partial.mkdir()
    (partial / "config.json").write_text("{}")

    def download(repo: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        return str(partial if local_files_only else folders["act"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: None)
    assert find_policy("somebody/act").weights == folders["act"] / "model.safetensors"


def test_actions_of_another_size_than_asked_for_are_refused(folders: dict[str, Path]) -> None:
    from vlamem.core.spec import ActionComponent, ActionSpec

    six = ActionSpec((ActionComponent("joints", 6, "joint", "absolute", "none", "rad"),))
    with pytest.raises(CheckpointError, match=r"gives 7 action entries, these actions have 6 \(joints 6\)"):
        load(folders["act"], actions=six)


def test_actions_that_nobody_declared_are_refused_by_a_suite_with_the_mend(folders: dict[str, Path]) -> None:
    spec = loaded(folders["act"], "act").spec
    with pytest.raises(SpecMismatchError, match=r"7 action entries mean .* \?actions=osc_pose"):
        OSC_POSE.check(spec.action, "suite 'tabletop'", "policy 'act'")
