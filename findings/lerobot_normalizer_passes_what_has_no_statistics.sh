#!/usr/bin/env bash
# lerobot 0.6.1: a feature without statistics passes the normaliser as it is, and the policy's answer likewise.
#
# Guess: a feature that is to be normalised by MEAN_STD and has no statistics is an error, as one is whose statistics
# lack `std`.
# Seen: NormalizerProcessorStep and UnnormalizerProcessorStep return it unchanged, without a warning. Statistics under
# another name, such as "observation.joints" of a data set whose state a policy reads as "observation.state", count as
# none; so does an empty map. A joint at 90 degrees enters as 90 where training showed 1.0, and an action of 0.5, meant
# as half a standard deviation, leaves as 0.5 degrees.
# For robot learning: statistics travel apart from the weights, in a data set or a processor's file. Where one name
# differs, the arm hardly moves or saturates, and no message says that nothing was normalised.
# vlamem: refuses a checkpoint that normalises a feature without statistics, and names it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset]==0.6.1" torch==2.11.0
cat >"$work/case.py" <<'PY'
import warnings

import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.processor import NormalizerProcessorStep, UnnormalizerProcessorStep
from lerobot.processor.converters import create_transition

warnings.simplefilter("error")
STATE = "observation.state"
features = {STATE: PolicyFeature(FeatureType.STATE, (2,)), "action": PolicyFeature(FeatureType.ACTION, (2,))}
norm_map = {FeatureType.STATE: NormalizationMode.MEAN_STD, FeatureType.ACTION: NormalizationMode.MEAN_STD}
of_joints = {"mean": [45.0, 45.0], "std": [45.0, 45.0]}


def passed(kind, stats, **given):
    step = kind(features=features, norm_map=norm_map, stats=stats)
    return step(create_transition(**given))


joints = torch.tensor([[90.0, 0.0]])
named = passed(NormalizerProcessorStep, {STATE: of_joints}, observation={STATE: joints})["observation"][STATE]
other = passed(NormalizerProcessorStep, {"observation.joints": of_joints}, observation={STATE: joints})
other = other["observation"][STATE]
print(f"state of {joints.tolist()} degrees: {named.tolist()} with statistics, {other.tolist()} under another name")
assert torch.allclose(named, torch.tensor([[1.0, -1.0]])), "MEAN_STD no longer gives one deviation"
assert torch.equal(other, joints), "a feature without statistics is no longer passed as it is"

half = torch.tensor([[0.5, 0.5]])
meant = passed(UnnormalizerProcessorStep, {"action": of_joints}, action=half)["action"]
sent = passed(UnnormalizerProcessorStep, {}, action=half)["action"]
print(f"an action of half a deviation: {meant.tolist()} degrees with statistics, {sent.tolist()} without")
assert torch.equal(sent, half), "an action without statistics is no longer passed as it is"

try:
    passed(NormalizerProcessorStep, {STATE: {"mean": [45.0, 45.0]}}, observation={STATE: joints})
except ValueError as error:
    print(f"with a mean and no std: {type(error).__name__}: {str(error)[:60]}")
else:
    raise SystemExit("statistics without std are no longer an error")
PY
"$work/env/bin/python" "$work/case.py"
echo "as described: nothing was normalised, and nothing said so"
