#!/usr/bin/env bash
# lerobot 0.6.1: a Diffusion policy saved with compile_model=true and loaded without it has a random U-Net.
#
# Guess: compile_model says how the network runs; turning it off in config.json leaves the trained weights as they are.
# Seen: the compiled U-Net is saved under other names (diffusion.unet._orig_mod...). Loading is not strict: the names
# that do not fit are a line of the log, the U-Net keeps the numbers it was initialised with, and the policy acts.
# For robot learning: a policy trained compiled on a GPU and evaluated elsewhere without a compiler scores like an
# untrained one, and nothing raises.
# vlamem: loads such a checkpoint under the names it was saved with and then takes the compiled wrapper off.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset,diffusion]==0.6.1" diffusers==0.39.0 torch==2.11.0
cat >"$work/case.py" <<'PY'
import json
import sys
from pathlib import Path

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

folder = Path(sys.argv[1])
torch.manual_seed(0)
trained = DiffusionPolicy(
    DiffusionConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (3,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        down_dims=(16, 32), diffusion_step_embed_dim=16, n_groups=4, device="cpu", compile_model=True,
        push_to_hub=False,
    )
)
trained.save_pretrained(folder)
config = json.loads((folder / "config.json").read_text())
config["compile_model"] = False
(folder / "config.json").write_text(json.dumps(config))
loaded = DiffusionPolicy.from_pretrained(folder)
saved = {name.replace("_orig_mod.", ""): tensor for name, tensor in trained.state_dict().items()}
names = [name for name in loaded.state_dict() if name.startswith("diffusion.unet.") and saved[name].dim() > 1]
kept = sum(torch.equal(saved[name], loaded.state_dict()[name]) for name in names)
print(f"{kept} of {len(names)} weight matrices of the loaded U-Net are those that were saved")
assert kept == 0, "loading carries the compiled U-Net over now"
PY
"$work/env/bin/python" "$work/case.py" "$work/policy" 2>/dev/null
echo "as described: no error, and a U-Net that was never trained"
