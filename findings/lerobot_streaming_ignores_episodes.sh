#!/usr/bin/env bash
# lerobot 0.6.1: StreamingLeRobotDataset(episodes=[...]) streams every episode.
#
# Guess: episodes picks those episodes, as it does in LeRobotDataset and as its docstring says.
# Seen: the list is stored and read nowhere. All frames come, num_episodes and num_frames are those of the whole set.
# For robot learning: held-out episodes are trained on when the same list is handed to the streaming class, and a
# validation loss measured on a stream is a training loss.
# vlamem: reads data sets through LeRobotDataset.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset]==0.6.1" torch==2.11.0
cat >"$work/case.py" <<'PY'
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

name, root = "example/arm", sys.argv[1]
vector = {"dtype": "float32", "shape": (2,), "names": None}
made = LeRobotDataset.create(
    name, fps=10, features={"observation.state": vector, "action": vector}, root=root, use_videos=False
)
for episode, frames in enumerate((5, 7, 4, 9)):
    for frame in range(frames):
        row = np.array([episode, frame], np.float32)
        made.add_frame({"observation.state": row, "action": row, "task": "wait"})
    made.save_episode()
made.finalize()

picked = LeRobotDataset(name, root=root, episodes=[1])
stream = StreamingLeRobotDataset(name, root=root, episodes=[1], shuffle=False)
by_index = sorted({int(picked[i]["episode_index"]) for i in range(len(picked))})
by_stream = sorted({int(frame["episode_index"]) for frame in stream})
print(f"asked for episode 1: LeRobotDataset has {by_index}, the stream has {by_stream}")
assert by_index == [1], "LeRobotDataset no longer picks"
assert by_stream == [0, 1, 2, 3] and stream.num_frames == 25, "the stream picks episodes now"
PY
HF_HUB_OFFLINE=1 HF_HOME="$work/hub" "$work/env/bin/python" "$work/case.py" "$work/arm" 2>/dev/null
echo "as described: all four episodes"
