"""policies/lerobot/dataset.py: what odd episodes, videos and pictures of a LeRobotDataset are read as."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")

from lerobot_processes import LerobotProcesses

from vlamem.policies.lerobot.dataset_images import DatasetImages

HERE = str(Path(__file__).parent)

LIBERO = """
import sys
from pathlib import Path
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from vlamem.memory.success.runner import open_success
from vlamem.policies.lerobot.dataset import DatasetError, DatasetReader
from vlamem.policies.lerobot.dataset_learning import commit_dataset, record_dataset
from dataset_policy import Brightness

out = Path(sys.argv[1])
image = {"dtype": "image", "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
features = {
    "observation.images.image": image, "observation.images.image2": image,
    "observation.state": {"dtype": "float32", "shape": (5,), "names": None},
    "action": {"dtype": "float32", "shape": (7,), "names": None},
}
dataset = LeRobotDataset.create(repo_id="vlamem/l", fps=20, features=features, root=out / "libero", use_videos=False)
for step in range(8):
    dataset.add_frame({
        "observation.images.image": np.full((32, 32, 3), 10 * step, np.uint8),
        "observation.images.image2": np.full((32, 32, 3), 200, np.uint8),
        "observation.state": np.full(5, step, np.float32), "action": np.zeros(7, np.float32), "task": "push",
    })
dataset.save_episode()
dataset.finalize()

class Halved:
    cameras, state_size = {"image": "agentview", "image2": "wrist"}, 5
    def pictures(self, frames):
        return frames[:, ::2, ::2]
    def state(self, state, sentences):
        return np.concatenate([state, np.zeros((len(state), 3), np.float32)], 1)

policy = Brightness()
try:
    DatasetReader(out / "libero", success=True).check(policy)
except DatasetError as error:
    assert "--observation libero" in str(error), error
else:
    raise AssertionError("cameras of other names")
reader = DatasetReader(out / "libero", success=True, view=Halved())
seen = reader.episode(0).observation
assert seen.images["agentview"][3].shape == (16, 16, 3) and (seen.images["agentview"][3] == 30).all()
assert seen.proprioception.shape == (8, 8)
assert record_dataset(reader, policy, None, out / "features", "test") == 1
assert commit_dataset(reader, policy, open_success(out / "memory.db", policy).memory, 4, 0.0) == (1, 0)
print("all read")
"""


VIDEOS = """
import shutil, sys
from pathlib import Path
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from vlamem.policies.lerobot.dataset import DatasetError, DatasetReader

out = Path(sys.argv[1])
features = {
    "observation.images.top": {"dtype": "video", "shape": (64, 80, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
    "action": {"dtype": "float32", "shape": (7,), "names": None},
}
dataset = LeRobotDataset.create(repo_id="vlamem/video", fps=20, features=features, root=out / "whole", use_videos=True)
for episode in range(2):
    for step in range(8):
        dataset.add_frame({
            "observation.images.top": np.full((64, 80, 3), 30 * step + 2 * episode, np.uint8),
            "observation.state": np.zeros(8, np.float32), "action": np.zeros(7, np.float32), "task": "push",
        })
    dataset.save_episode()
dataset.finalize()
theirs = LeRobotDataset("whole", root=out / "whole")
for episode in (0, 1):
    seen = DatasetReader(out / "whole").episode(episode).observation.images["top"]
    for step in (0, 3, 7):
        own = (theirs[8 * episode + step]["observation.images.top"].permute(1, 2, 0) * 255).round().numpy()
        assert np.array_equal(seen[step], own.astype(np.uint8)), (episode, step)
    assert np.array_equal(seen[np.array([7, 3])], np.stack([seen[7], seen[3]]))
video = next((out / "whole").glob("videos/*/*/*.mp4")).relative_to(out / "whole")

def complaint(name, harm):
    copy = Path(shutil.copytree(out / "whole", out / name))
    harm(copy / video)
    try:
        DatasetReader(copy).episode(1).observation.images["top"][0]
    except DatasetError as error:
        assert len(str(error).splitlines()) == 1
        return str(error)
    raise AssertionError(name)

assert f"has no {video}" in complaint("missing", Path.unlink)
pointer = b"version https://git-lfs.github.com/spec/v1" + bytes([10]) + b"oid sha256:0"
assert "is a Git LFS pointer" in complaint("pointer", lambda path: path.write_bytes(pointer))
cut = complaint("cut", lambda path: path.write_bytes(path.read_bytes()[:200]))
assert f"cannot be decoded from {video}" in cut, cut
print("all named")
"""


ODD = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

# one entry in state and action; a shaped reward; episode 1 has a NaN, episode 2 a second task that is empty
features = {
    "observation.images.agentview": {"dtype": "image", "shape": (16, 16, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (1,), "names": None},
    "action": {"dtype": "float32", "shape": (1,), "names": None},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
}
dataset = LeRobotDataset.create(repo_id="vlamem/odd", fps=20, features=features, root=sys.argv[1], use_videos=False)
for episode in range(4):
    for step in range(6):
        dataset.add_frame({
            "observation.images.agentview": np.full((16, 16, 3), 10 * step, np.uint8),
            "observation.state": np.array([np.nan if (episode, step) == (1, 4) else 0.1 * step], np.float32),
            "action": np.array([0.01 * episode], np.float32),
            "next.reward": np.array([0.5 if episode < 3 else 0.0], np.float32),
            "task": " " if (episode, step) == (2, 3) else "push",
        })
    dataset.save_episode()
dataset.finalize()
"""


READ_ODD = """
import logging, re, shutil, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from vlamem.core.spec import ActionComponent, ActionSpec
from vlamem.memory.success.runner import open_success
from vlamem.policies.lerobot.dataset import DatasetReader, EpisodeError
from vlamem.policies.lerobot.dataset_learning import commit_dataset, record_dataset
from dataset_policy import Brightness

logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s", force=True)
folder, out = map(Path, sys.argv[1:3])
reader = DatasetReader(folder)
good = reader.episode(0)
assert good.actions.shape == (6, 1) and good.observation.proprioception.shape == (6, 1)
assert good.success is None, "a reward alone is no verdict"
said = DatasetReader(folder, success="reward")
assert [said.episode(i).success for i in (0, 3)] == [True, False]
odd = {1: "nan in entry 0 of 'observation.state' at control step 4", 2: "an empty task at control step 3"}
for index, what in odd.items():
    try:
        reader.episode(index)
    except EpisodeError as error:
        assert re.search(f"episode {index} of dataset .* has {what}", str(error)), error
    else:
        raise AssertionError(index)

class OneJoint(Brightness):
    joint = ActionSpec((ActionComponent("joint", 1, "joint", "absolute", "none", "rad"),))
    spec = replace(Brightness.spec, cameras=("agentview",), feature_size=2, proprioception_size=1, action=joint)

policy = OneJoint()
whole = DatasetReader(folder, success=True)
assert record_dataset(whole, policy, None, out / "features", "test") == 2
memory = open_success(out / "memory.db", policy).memory
assert commit_dataset(whole, policy, memory, 2, 0.0) == (2, 2)
stored = len(memory)
copy = shutil.copytree(folder, out / "another name")
for other in (copy, Path(str(folder.parent) + "/./" + folder.name)):
    commit_dataset(DatasetReader(other, success=True), policy, memory, 2, 0.0)
    heads = list(memory.store.episode_heads(memory.origin))
    assert len({head.identity for head in heads}) == len(heads) == 2, heads
assert len(memory) == stored

decoded = []
original = DatasetReader._pictures
def counting(self, index, first, key, steps):
    decoded.append((key, list(steps)))
    return original(self, index, first, key, steps)
DatasetReader._pictures = counting
episode = DatasetReader(folder).episode(0)
assert decoded == [], "pictures are decoded when they are asked for"
assert episode.rows(2, 4).images["agentview"][:, 0, 0, 0].tolist() == [20, 30]
assert decoded == [("observation.images.agentview", [2, 3])]
print("all read")
"""


def test_what_one_odd_episode_has_costs_neither_the_others_nor_a_wrong_word(
    lerobot_processes: LerobotProcesses, tmp_path: Path
) -> None:
    done = lerobot_processes.run(["-c", ODD + READ_ODD, str(tmp_path / "odd"), str(tmp_path)], PYTHONPATH=HERE)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "all read"
    assert "it is left out" in done.stdout


def test_a_video_that_is_missing_cut_or_a_pointer_is_named(lerobot_processes: LerobotProcesses, tmp_path: Path) -> None:
    done = lerobot_processes.run(["-c", VIDEOS, str(tmp_path)], PYTHONPATH=HERE)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "all named"


def test_a_dataset_is_read_through_a_view_and_without_one_the_mend_is_named(
    lerobot_processes: LerobotProcesses, tmp_path: Path
) -> None:
    done = lerobot_processes.run(["-c", LIBERO, str(tmp_path)], PYTHONPATH=HERE)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "all read"


def test_pictures_of_an_episode_are_decoded_once_each_and_only_those_asked_for() -> None:
    asked: list[list[int]] = []

    def read(steps: Any) -> np.ndarray:
        asked.append(list(steps))
        return np.stack([np.full((2, 3, 3), step, np.uint8) for step in steps])

    images = DatasetImages(read, 10)
    assert images[np.array([[0, 0], [3, 4]])][..., 0, 0, 0].tolist() == [[0, 0], [3, 4]]
    assert images[-1].shape == (2, 3, 3)
    assert images[7:9][:, 0, 0, 0].tolist() == [7, 8]
    assert asked == [[0, 3, 4], [9], [7, 8]]
    assert (images.shape, len(images), images.dtype) == ((10, 2, 3, 3), 10, np.uint8)
    assert np.asarray(images).shape == (10, 2, 3, 3)
    with pytest.raises(IndexError):
        images[10]
