"""policies/lerobot: checkpoints that cannot be used, and what the error says."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

from lerobot_cases import loaded
from policy_cases import imported_late

from vlamem.core.spec import OSC_POSE, SpecMismatchError
from vlamem.policies.lerobot import CheckpointError, load
from vlamem.policies.registry import find_policy

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
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


def _edit(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _wrong_action_size(folder: Path) -> None:
    features = json.loads((folder / "config.json").read_text())["output_features"]
    features["action"]["shape"] = [6]
    _edit(folder, "config.json", output_features=features)


def _postprocessor_of_six(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = next(folder.glob("policy_postprocessor*.safetensors"))
    save_file({k: v[:6] if k.startswith("action.") else v for k, v in load_file(path).items()}, path)


def _other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "action_head" not in k}, folder / "model.safetensors")


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
