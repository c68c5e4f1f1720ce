"""A gate fitted to demonstrations for the shipped policy: recorded in the simulator, and from a LeRobotDataset."""

from pathlib import Path

import numpy as np
import pytest
from lerobot_processes import LerobotProcesses
from simulator_cases import needs_simulator

pytest.importorskip("torch")

from vlamem.memory.train.conditioning import read_conditioning
from vlamem.memory.train.features import open_features
from vlamem.policies.choice import disagreement

WRITE = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

image = {"dtype": "image", "shape": (84, 84, 3), "names": ["height", "width", "channels"]}
features = {
    "observation.images.agentview": image,
    "observation.images.wrist": image,
    "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
    "action": {"dtype": "float32", "shape": (7,), "names": None},
}
dataset = LeRobotDataset.create(repo_id="vlamem/test", fps=20, features=features, root=sys.argv[1], use_videos=False)
draw = np.random.default_rng(0)
for episode in range(20):
    for step in range(18):
        frame = {
            "observation.images.agentview": draw.integers(0, 256, (84, 84, 3), np.uint8),
            "observation.images.wrist": np.full((84, 84, 3), 10 * step, np.uint8),
            "observation.state": np.array([0.1 * step, 0, 0.1, 1, 0, 0, 0, 0.04], np.float32),
            "action": np.full(7, 0.01 * step, np.float32),
            "task": "touch the red block",
        }
        dataset.add_frame(frame)
    dataset.save_episode()
dataset.finalize()
"""


@needs_simulator
def test_demonstrations_are_recorded_in_the_simulator_without_an_answer(tmp_path: Path) -> None:
    from vlamem.policies.registry import find_policy, load_policy
    from vlamem.policies.teaching import PolicyLoss
    from vlamem.sim.record.demonstrations import DemonstrationCollection, collect_here

    what = DemonstrationCollection("tiny", {"recall_colour": 1}, tmp_path)
    collect_here(what)
    collect_here(what)  # nothing twice
    (recording,) = open_features([tmp_path])
    (episode,) = recording.episodes
    ticks = recording.ticks(episode)
    assert (ticks.goal[:, 0] == ticks.goal[:, 1]).all()
    assert not ticks.asked.any()
    rows = read_conditioning(tmp_path / "worker-0", episode)
    still = np.abs(ticks.chunk[:, 0, :6]).max(axis=1) < 0.1
    go = int(np.flatnonzero(still)[-1]) + 1  # it comes to rest first, and then waits
    assert len(np.unique(ticks.z[: go - 1], axis=0)) == go - 1  # every tick of a robot that waits is seen
    # samples of the policy disagree where it must choose and the hand has not told yet, and nowhere before
    choice = int(rows.tick[rows.disagreement.argmax()])
    assert choice == go
    assert rows.disagreement[rows.tick < go - 3].max() < 0.2 * rows.disagreement.max()
    policy = load_policy(find_policy("tiny"))
    told = recording.contexts[ticks.goal[rows.tick, 0], 0]
    encoding = PolicyLoss(policy).policy.unpack(np.asarray(rows.packed), np.asarray(ticks.z[rows.tick], "f4"), told)
    again = disagreement(policy, encoding, np.random.default_rng(0))
    assert np.corrcoef(again, rows.disagreement)[0, 1] > 0.8


def test_a_lerobot_dataset_is_fitted_by_one_command(lerobot_processes: LerobotProcesses, tmp_path: Path) -> None:
    pytest.importorskip("lerobot")
    made = lerobot_processes.run(["-c", WRITE, str(tmp_path / "data")])
    assert made.returncode == 0, made.stderr[-2000:]
    out = tmp_path / "fit" / "gate.safetensors"
    words = ["fit", "tiny", str(tmp_path / "data"), "--updates", "2", "--rows", "2", "--out", str(out)]
    done = lerobot_processes.run(["-m", "vlamem", *words])
    assert done.returncode == 0, done.stderr[-2000:]
    # what is seen says nothing of what is done, and does not have to
    assert "nothing in these demonstrations needs a memory" in done.stdout
    card = (tmp_path / "fit" / "gate.card.md").read_text(encoding="utf-8")
    assert "touch the red block 20" in " ".join(card.split())  # its lines end where they are full
    columns = open_features([tmp_path / "fit" / "gate" / "features-0"])[0]
    assert len(columns.episodes) == 20
