"""policies/lerobot/examination.py and `vlamem doctor CHECKPOINT [DATASET]`"""

import json
import shlex
from pathlib import Path

import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

from lerobot_cases import SIZE, build
from lerobot_processes import LerobotProcesses
from safetensors.torch import load_file, save_file

from vlamem.core.check import Check
from vlamem.policies.lerobot import loading
from vlamem.policies.lerobot.dataset_files import DatasetError
from vlamem.policies.lerobot.examination import ARMS, examine_checkpoint
from vlamem.policies.registry import find_policy, load_policy
from vlamem.scripts.main import main

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


def _by_name(findings: list[Check]) -> dict[str, Check]:
    return {finding.name: finding for finding in findings}


WRITE = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, size, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
image = {"dtype": "image", "shape": (size, size, 3), "names": ["height", "width", "channels"]}
cameras = ("observation.images.agentview", "observation.images.wrist")
features = {camera: image for camera in cameras} | {
    "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
    "action": {"dtype": "float32", "shape": (6,), "names": names},
}
made = LeRobotDataset.create(repo_id="vlamem/test", fps=30, features=features, root=root, use_videos=False)
for step in range(4):
    numbers = {"observation.state": np.full(8, step, np.float32), "action": np.full(6, step, np.float32)}
    images = {camera: np.zeros((size, size, 3), np.uint8) for camera in cameras}
    made.add_frame(images | numbers | {"task": "touch the red block"})
made.save_episode()
made.finalize()
"""


def _dataset(folder: Path, processes: LerobotProcesses) -> Path:
    """A short episode of an SO-101 arm; written by a process of its own, since lerobot forks."""
    done = processes.run(["-c", WRITE, str(folder), str(SIZE), *ARMS["so101"]])
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_a_checkpoint_says_what_it_is_and_what_it_does_not_say(folders: dict[str, Path]) -> None:
    found = _by_name(examine_checkpoint(str(folders["smolvla"])))
    assert found["family"].found == "smolvla"
    assert found["observation.images.wrist"].found == f"camera, {SIZE} x {SIZE} pixels"
    assert found["injection points"].found == "sentence, expert; used: sentence"
    assert "observation.state (" in found["statistics, preprocessor"].found
    assert (found["actions"].status, found["control rate"].status) == ("undeclared", "undeclared")
    assert found["actions"].mend == "add actions=osc_pose or my_arm.toml"
    assert not any("inert" in name for name in found)


def test_with_its_dataset_arm_and_rate_are_known_and_the_printed_name_loads(
    lerobot_processes: LerobotProcesses, tmp_path: Path
) -> None:
    folder = build("act", tmp_path / "act", actions=6)
    data = _dataset(tmp_path / "data", lerobot_processes)
    found = _by_name(examine_checkpoint(str(folder), str(data)))
    assert found["names, action"].found == ", ".join(ARMS["so101"])
    assert all(finding.status == "ok" for finding in found.values())
    words = shlex.split(found["go on with"].found)
    assert [*words[:2], *words[3:]] == ["vlamem", "fit", str(data), "--out", "gate.safetensors"]
    spec = load_policy(find_policy(words[2])).spec
    assert (spec.control_hz, [c.unit for c in spec.action.components]) == (30.0, ["1 deg", "1 % open"])
    slower = _by_name(examine_checkpoint(f"{folder}?hz=20", str(data)))
    assert "runs at 30 Hz and policy 'act[vision:mean]' at 20 Hz" in slower["use"].found
    with pytest.raises(DatasetError, match="is no LeRobotDataset"):
        examine_checkpoint(str(folder), str(tmp_path))


def test_inert_statistics_are_named_and_refused_before_any_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("act", tmp_path / "act")
    path = next(folder.glob("policy_postprocessor*.safetensors"))
    save_file({f"so100.{name}": tensor for name, tensor in load_file(path).items()}, path)

    def never(*given: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(loading, "load_network", never)
    assert main(["doctor", str(folder), "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in body["checks"]}
    assert not body["ok"]
    assert "so100.action" in found["inert statistics, postprocessor"]["found"]
    assert "normalises 'action' by MEAN_STD and has no 'action.mean'" in found["use"]["found"]
    assert "go on with" not in found
