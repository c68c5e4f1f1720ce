#!/usr/bin/env bash
# lerobot 0.6.1: the q01 and q99 of a data set are means of the episodes' quantiles, and pi0.5 scales by them.
#
# Guess: q01 and q99 in meta/stats.json bound all but 2 % of the frames, so that normalised values lie about in [-1, 1].
# Seen: each episode's quantiles are averaged, weighted by frames. A joint that is held near another angle in each of 50
# episodes spans -0.99 to 0.99, and the stored bounds are 0.005 apart, around the mean of the angles. The QUANTILES
# normaliser, which does not clip, makes values of several hundred of it. min, max, mean and std are right.
# For robot learning: pi0.5 and its kin read actions by these bounds. A feature that is steady within an episode and
# differs between them (a base, a torso, the height of a shelf) reaches the network hundreds of times too large. Bounds
# computed over all frames at once avoid it.
# vlamem: takes a checkpoint's statistics as they are, which are those that the network was trained with.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset]==0.6.1" torch==2.11.0
cat >"$work/case.py" <<'PY'
import numpy as np
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.processor import NormalizerProcessorStep
from lerobot.processor.converters import create_transition

random = np.random.default_rng(0)
features = {"action": {"dtype": "float32", "shape": (1,), "names": None}}
episodes = [
    (random.uniform(-1, 1) + 0.001 * random.standard_normal((200, 1))).astype(np.float32) for _ in range(50)
]
stored = aggregate_stats([compute_episode_stats({"action": frames}, features) for frames in episodes])["action"]
frames = np.concatenate(episodes)
true = np.quantile(frames, (0.01, 0.99))
low, high = float(stored["q01"][0]), float(stored["q99"][0])
print(f"1 % and 99 % of all frames: {true[0]:.3f} {true[1]:.3f}, stored: {low:.3f} {high:.3f}")

step = NormalizerProcessorStep(
    features={"action": PolicyFeature(FeatureType.ACTION, (1,))},
    norm_map={FeatureType.ACTION: NormalizationMode.QUANTILES},
    stats={"action": stored},
)
scaled = step(create_transition(action=torch.from_numpy(frames)))["action"]
print(f"largest normalised action: {float(scaled.abs().max()):.0f}")
assert high - low < 0.02 * (true[1] - true[0]), "quantiles are those of the frames now"
assert abs(float(stored["min"][0]) - frames.min()) < 1e-6
assert scaled.abs().max() > 100, "the normaliser bounds its values now"
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null
echo "as described: bounds that are a hundredth of the range"
