#!/usr/bin/env bash
# lerobot 0.6.1: the standard deviation of a reading with a large offset is rounding error: 0, or far too large.
#
# Guess: std in a data set's statistics is that of the frames, as numpy.std gives it; a constant reading has 0.
# Seen: the variance is the mean of squares less the square of the mean, in float32. A position of 1500 mm that moves by
# 0.05 mm gets a deviation of exactly 0, and a constant 200.3 one of 0.46. The MEAN_STD normaliser adds 1e-8 to the
# deviation: the first reading comes out as 19 million, beside which all other inputs are nothing.
# For robot learning: positions in millimetres, encoder ticks, pressures and clocks are such readings. A policy trained
# on them sees one giant input, learns nothing, and no number in the log says why.
# vlamem: takes a checkpoint's statistics as they are and refuses those that are not finite; this it does not see.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset]==0.6.1" torch==2.11.0
cat >"$work/case.py" <<'PY'
import numpy as np
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.datasets.compute_stats import compute_episode_stats
from lerobot.processor import NormalizerProcessorStep
from lerobot.processor.converters import create_transition

random = np.random.default_rng(0)
frames = np.empty((500, 2), np.float32)
frames[:, 0] = 1500 + 0.05 * random.standard_normal(500)
frames[:, 1] = 200.3
features = {"action": {"dtype": "float32", "shape": (2,), "names": None}}
stored = compute_episode_stats({"action": frames}, features)["action"]
true = frames.astype(np.float64).std(axis=0)
print("deviation of the moving and of the constant reading: numpy", true.round(4), "lerobot", stored["std"].round(4))

step = NormalizerProcessorStep(
    features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
    norm_map={FeatureType.ACTION: NormalizationMode.MEAN_STD},
    stats={"action": stored},
)
scaled = step(create_transition(action=torch.from_numpy(frames)))["action"].abs().max(dim=0).values
print(f"largest normalised value of the moving reading: {float(scaled[0]):.0f}")
assert 0.04 < true[0] < 0.06 and stored["std"][0] == 0, "small deviations are kept now"
assert true[1] < 1e-9 and stored["std"][1] > 0.1, "a constant reading has no deviation now"
assert scaled[0] > 1000
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null
echo "as described: a deviation of 0 for what moves, and one of 0.46 for what does not"
