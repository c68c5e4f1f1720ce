"""policies/lerobot/dataset.py: a LeRobotDataset as training data of a gate and as experience of a success memory."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")
import httpx
from lerobot_processes import LerobotProcesses

from vlamem.core.observation import Observation
from vlamem.policies.lerobot.dataset import DatasetEpisode, DatasetError, DatasetReader, is_dataset
from vlamem.policies.lerobot.dataset_learning import batches, chunks_of, features_of

WRITE = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

for name in ("marked", "bare", "corrected"):
    root, marked = f"{sys.argv[1]}/{name}", name == "marked"
    image = {"dtype": "image", "shape": (16, 16, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.images.agentview": image,
        "observation.images.wrist": image,
        "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
    }
    if marked:
        features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
    if name == "corrected":
        features["intervention"] = {"dtype": "bool", "shape": (1,), "names": None}  # as lerobot's DAgger writes it
    dataset = LeRobotDataset.create(repo_id="vlamem/test", fps=20, features=features, root=root, use_videos=False)
    for episode in range(3):
        for step in range(10 + episode):
            frame = {
                "observation.images.agentview": np.full((16, 16, 3), 10 * step + episode, np.uint8),
                "observation.images.wrist": np.full((16, 16, 3), 200 - step, np.uint8),
                "observation.state": np.array([0.1 * step, 0, 0.1, 1, 0, 0, 0, 0.04], np.float32),
                "action": np.full(7, 0.01 * step - 0.1 * episode, np.float32),
                "task": "touch the red block" if episode < 2 else "push the bowl",
            }
            if marked:
                frame["next.success"] = np.array([episode != 1 and step == 9 + episode])
            if name == "corrected":
                frame["intervention"] = np.array([step >= 4])
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
"""


READ = """
import sys
from pathlib import Path
import numpy as np
from vlamem.policies.lerobot.dataset import DatasetReader
from vlamem.policies.lerobot.dataset_learning import commit_dataset, record_dataset
from vlamem.memory.train.features import open_features
from vlamem.memory.success.runner import open_success
from dataset_policy import Brightness

marked, bare, out = map(Path, sys.argv[1:4])
reader = DatasetReader(marked)
found = [reader.episode(i) for i in range(len(reader))]
assert [e.success for e in found] == [True, False, True]
assert reader.fps == 20 and reader.cameras == ("agentview", "wrist")
assert found[0].demonstrated is None
corrected = DatasetReader(marked.parent / "corrected").episode(0)
assert corrected.demonstrated.tolist() == [step >= 4 for step in range(10)]
last = found[2]
assert last.actions.shape == (12, 7) and last.observation.instruction == ("push the bowl",) * 12
assert (last.observation.images["agentview"][3] == 32).all() and last.observation.images["wrist"].dtype == np.uint8
assert np.allclose(last.observation.proprioception[:, 0], 0.1 * np.arange(12))
policy = Brightness()
assert record_dataset(reader, policy, None, out / "features", "test") == 2
recording = open_features([out / "features"])[0]
ticks = recording.ticks(recording.episodes[0])
assert ticks.chunk.shape == (10, 4, 7) and np.allclose(ticks.chunk[8, 2:], ticks.chunk[9, 0])
assert record_dataset(reader, policy, None, out / "features", "test") == 2  # nothing twice
success = open_success(out / "memory.db", policy)
assert commit_dataset(reader, policy, success.memory, 4, 0.0) == (2, 1)
assert len(success.memory) == 3 + 3
assert [e.success for e in DatasetReader(bare)] == [None] * 3
assert [e.success for e in DatasetReader(bare, success={1})] == [False, True, False]
assert commit_dataset(DatasetReader(bare), policy, success.memory, 4, 0.0) == (0, 3)
print("all read")
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, lerobot_processes: LerobotProcesses) -> tuple[Path, Path]:
    """Datasets with and without a field for success; written by a process of its own, since lerobot forks."""
    root = tmp_path_factory.mktemp("datasets")
    done = lerobot_processes.run(["-c", WRITE, str(root)])
    assert done.returncode == 0, done.stderr[-2000:]
    return root / "marked", root / "bare"


def test_episodes_become_training_data_and_experience(
    folders: tuple[Path, Path], lerobot_processes: LerobotProcesses, tmp_path: Path
) -> None:
    here = str(Path(__file__).parent)
    done = lerobot_processes.run(["-c", READ, *map(str, folders), str(tmp_path)], PYTHONPATH=here)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "all read"


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _without_rows(path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.slice(0, len(table) - 5), path)


def _never_counted(folder: Path) -> None:
    info = json.loads((folder / "meta" / "info.json").read_text())
    (folder / "meta" / "info.json").write_text(json.dumps(info | {"total_episodes": 0, "total_frames": 0}))


def _first(folder: Path, pattern: str) -> Path:
    return next(iter(sorted(folder.glob(pattern))))


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda f: shutil.rmtree(f / "meta" / "episodes"), "has no meta/episodes, .* recording was not finalised"),
        (lambda f: (f / "meta" / "tasks.parquet").unlink(), "has no meta/tasks.parquet"),
        (lambda f: shutil.rmtree(f / "data"), "has no data, and meta/info.json counts 3 episodes"),
        (lambda f: _cut(_first(f, "data/*/*.parquet")), r"data/chunk-000/file-000\.parquet of .* is no whole file"),
        (lambda f: _cut(_first(f, "meta/episodes/*/*.parquet")), "meta/episodes/.* recording was not finalised"),
        (lambda f: _pointer(_first(f, "data/*/*.parquet")), "is a Git LFS pointer .* 'git lfs pull'"),
        (lambda f: _pointer(f / "meta" / "info.json"), "meta/info.json of .* is a Git LFS pointer"),
        (lambda f: _without_rows(_first(f, "data/*/*.parquet")), "episode 2 of .* has 7 rows under data, .* counts 12"),
        (_never_counted, "has no episode: its recording was not finalised"),
    ],
)
def test_a_folder_of_which_a_part_is_missing_or_broken_is_refused_by_name_and_the_hub_is_not_asked(
    harm: Any, complaint: str, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    copy = Path(shutil.copytree(folders[0], tmp_path / "copy"))
    harm(copy)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", None)
    with pytest.raises(DatasetError, match=complaint) as found:
        DatasetReader(copy)
    assert len(str(found.value).splitlines()) == 1


def test_a_folder_that_is_no_dataset_or_an_old_one_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert is_dataset(folders[0])
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(DatasetError, match=r"is no LeRobotDataset: expected meta/info\.json, found readme\.txt"):
        DatasetReader(tmp_path)
    info = json.loads((folders[0] / "meta" / "info.json").read_text())
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(DatasetError, match=r"has format v2\.1, expected v3"):
        DatasetReader(tmp_path)


@pytest.mark.parametrize(
    ("name", "failure", "complaint", "asks"),
    [
        ("nobody/data", httpx.ConnectError("no route to host"), r"the hub cannot be reached \(ConnectError\)", [5.0]),
        ("nobody/data", httpx.ReadTimeout("5 s"), r"the hub cannot be reached \(ReadTimeout\)", [5.0]),
        ("data/that/is/not/here", None, "neither a folder here nor a hub id", []),
        ("./data", None, "neither a folder here nor a hub id", []),
    ],
)
def test_a_dataset_that_is_nowhere_says_so_and_names_the_local_alternative(
    name: str,
    failure: Exception | None,
    complaint: str,
    asks: list[float],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import huggingface_hub
    import lerobot.utils.constants

    asked: list[float] = []

    def unreachable(self: object, repo: str, timeout: float | None = None, **kwargs: object) -> None:
        asked.append(timeout or float("inf"))
        raise failure or ValueError(repo)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(lerobot.utils.constants, "HF_LEROBOT_HOME", tmp_path)
    with pytest.raises(DatasetError, match=rf"{complaint}.*give its folder"):
        DatasetReader(name)
    assert asked == asks


def test_a_hub_that_goes_away_under_way_says_so_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    import lerobot.datasets.lerobot_dataset as theirs

    def gone(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("gone")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(theirs, "LeRobotDataset", gone)
    with pytest.raises(DatasetError, match=r"'nobody/data' cannot be opened \(gone\): copy it to this machine"):
        DatasetReader("nobody/data")


def test_a_policy_that_reads_several_observations_is_given_those_of_the_episode() -> None:
    ticks = np.arange(40)
    images = {"top": np.broadcast_to(ticks[:, None, None, None], (40, 2, 2, 3)).astype(np.uint8)}
    state = ticks[:, None].astype(np.float32)
    episode = DatasetEpisode(0, Observation(images, state, ("go",) * 40), np.zeros((40, 7), np.float32), True)
    found = list(batches(episode, history=3, stride=4))
    assert [rows.instruction for rows in found] == [("go",) * 10]
    assert found[0].proprioception[:3, :, 0].tolist() == [[0, 0, 0], [2, 3, 4], [6, 7, 8]]
    assert found[0].images["top"].shape == (10, 3, 2, 2, 3)
    assert found[0].images["top"][:, :, 0, 0, 0].tolist() == found[0].proprioception[:, :, 0].tolist()
    alone = list(batches(episode))
    assert [len(rows.instruction) for rows in alone] == [32, 8]
    assert alone[1].proprioception[:, 0].tolist() == list(range(32, 40))


def test_a_gate_learns_no_contexts_from_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"--targets is both: .* add --targets chunk"):
        features_of([tmp_path], "tiny", tmp_path / "out", "test", lambda done, planned: None, "both")


def test_chunks_hold_the_last_action() -> None:
    actions = np.arange(5, dtype=np.float32)[:, None]
    assert chunks_of(actions, 3)[:, :, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4], [4, 4, 4]]
