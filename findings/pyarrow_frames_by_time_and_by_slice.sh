#!/usr/bin/env bash
# pyarrow 26.0.1: frames of a LeRobot Parquet file that are picked by time or by row are silently other frames.
#
# Guess: filters=[("timestamp", "<=", 0.3)] keeps the frames at 0.0, 0.1, 0.2 and 0.3 s, as pandas and NumPy do; and the
# values of a slice of a column of vectors are those of the slice.
# Seen: LeRobot stores timestamp as float32. Arrow compares it as float64 with the literal, and 0.3 as float32 is larger
# than 0.3: the last frame is left out, "== 0.1" finds none, ">= 0.3" is right by luck. And `.values` of a sliced
# fixed-size list gives the whole column from row 0 on (its page says so), so that a reshape to (-1, size) has the
# actions of the first rows in the places of those asked for; `.flatten()` respects the slice but leaves null rows out, so that
# all later rows move up.
# For robot learning: windows cut by time are a frame short, and actions are paired with states of other frames.
# vlamem: reads LeRobot's frames through LeRobotDataset, by their index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" pyarrow==26.0.1 pandas==2.3.3 numpy==2.2.6
cat >"$work/case.py" <<'PY'
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

frames, size = 6, 2
actions = np.arange(frames * size, dtype=np.float32)
table = pa.table(
    {
        "timestamp": (np.arange(frames) / 10).astype(np.float32),
        "action": pa.FixedSizeListArray.from_arrays(pa.array(actions), size),
    }
)
pq.write_table(table, sys.argv[1])


def kept(sign, time):
    return pq.read_table(sys.argv[1], filters=[("timestamp", sign, time)]).num_rows


stored = pq.read_table(sys.argv[1]).to_pandas()
same, upto = kept("==", 0.1), kept("<=", 0.3)
print(f"frames at 0.1 s: Arrow {same}, pandas {(stored.timestamp == 0.1).sum()}")
print(f"frames up to 0.3 s: Arrow {upto}, pandas {(stored.timestamp <= 0.3).sum()}")
assert (same, upto) == (0, 3), "the filter compares as float32 now"
assert ((stored.timestamp == 0.1).sum(), (stored.timestamp <= 0.3).sum()) == (1, 4)

last = table.slice(frames - 2)["action"].chunk(0)
first = last.values.to_numpy().reshape(-1, size)[0]
print(f"first action of the slice of the last two frames: {first}, should be {actions.reshape(-1, size)[frames - 2]}")
assert first.tolist() == [0, 1], "values respects the slice now"

gap = pa.array([[1.0, 1.0], None, [3.0, 3.0]], pa.list_(pa.float32(), size))
rows = gap.flatten().to_numpy().reshape(-1, size)
print(f"three rows of which the second is null: flatten gives {len(rows)}, and row 1 is {rows[1]}")
assert len(rows) == 2, "flatten keeps null rows now"
PY
"$work/env/bin/python" "$work/case.py" "$work/frames.parquet"
echo "as described: a frame short, and actions of other frames"
