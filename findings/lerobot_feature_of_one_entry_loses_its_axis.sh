#!/usr/bin/env bash
# lerobot 0.6.1: what was added with shape (1,) is read back with shape (), so that a batch has [B] and not [B, 1].
#
# Guess: a feature that is declared and added with shape (1,) comes back with shape (1,), as one of shape (2,) does.
# Seen: it comes back as a tensor without an axis, and the DataLoader makes [B] of it, while the data set's own meta
# still says (1,). A loss between a prediction [B, 1] and such a target broadcasts to [B, B], and is finite.
# For robot learning: grippers of their own, rewards, one-joint devices and force readings are features of one entry.
# vlamem: gives a state or action of one entry its axis back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset]==0.6.1" torch==2.11.0
cat >"$work/case.py" <<'PY'
import sys
import warnings

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

features = {
    "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
    "action": {"dtype": "float32", "shape": (1,), "names": None},
}
made = LeRobotDataset.create("local/gripper", fps=10, root=sys.argv[1], features=features, use_videos=False)
for step in range(8):
    frame = {"observation.state": np.full(2, step, np.float32), "action": np.full(1, step, np.float32)}
    made.add_frame(frame | {"task": "close"})
made.save_episode()
made.finalize()

read = LeRobotDataset("local/gripper", root=sys.argv[1])
one, two = read[3]["action"], read[3]["observation.state"]
batch = next(iter(torch.utils.data.DataLoader(read, batch_size=8)))["action"]
print("meta says", read.meta.features["action"]["shape"], "an item has", tuple(one.shape), "a batch", tuple(batch.shape))
assert tuple(read.meta.features["action"]["shape"]) == (1,) and two.shape == (2,)
assert one.shape == () and batch.shape == (8,), "the axis is kept now"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns of the broadcast once, where nobody looks in a training log
    right = torch.nn.functional.mse_loss(batch[:, None], batch[:, None])
    wrong = torch.nn.functional.mse_loss(batch[:, None], batch)
print(f"loss of a perfect prediction [8, 1]: {right:.2f} against a target with its axis, {wrong:.2f} against this one")
assert right == 0 and wrong > 10
PY
"$work/env/bin/python" "$work/case.py" "$work/data"
echo "as described: (1,) went in, () came out"
