#!/usr/bin/env bash
# mikasa-robo-suite 1.0.0: in the long Remember tasks, touching the cue while it shows is success.
#
# Guess: "Observe the cube's color, wait, then touch the cube of the same color" is a success when the right one of several
# cubes is touched after the wait; FindImposter's success asks for that phase.
# Seen: success is asked for at every control step, and while the cue shows, the right cube is the only one there. In the
# short tasks a wrapper holds the robot still until the choice; in the nine long ones it may move. The episode's metric,
# success_once, is then decided before anything had to be remembered.
# For robot learning: a policy without memory that goes to whatever cube it sees passes the tasks meant to test the longest
# memory, and figures on them say nothing about memory.
# vlamem: shows the benchmark's verdict and beside it a strict one, in which the first object touched after the wait
# decides and one touched before is a failure (docs/results/mikasa.md).
#
# Needs a Vulkan driver that draws (Mesa 23 or newer in software, or a GPU's with RENDER=gpu), as the simulator does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" --no-deps mikasa-robo-suite==1.0.0 mani-skill==3.0.1 sapien==3.0.3
uv pip install --quiet --python "$work/env/bin/python" torch==2.11.0 numpy==2.2.6 gymnasium==1.4.0 scipy networkx pyyaml \
  tqdm requests setuptools==80.9.0 opencv-python-headless matplotlib transforms3d lxml trimesh imageio dacite defusedxml ipython \
  pytorch_kinematics==0.10.0 huggingface_hub
cat >"$work/case.py" <<'PY'
import os
import sys
import warnings

warnings.simplefilter("ignore")
import gymnasium as gym
import mikasa_robo_suite.vla.memory_envs  # registers the tasks
import numpy as np
import torch

torch.set_num_threads(1)
env = gym.make("RememberColor9-Long-VLA-v0", num_envs=1, obs_mode="none", control_mode="pd_ee_delta_pose",
               sim_backend="physx_cpu", render_backend=os.environ.get("RENDER", "cpu"))
scene = env.unwrapped
passed = 0
for episode in range(5):
    env.reset(seed=4242424242 + episode)
    cue = int(scene.cue_steps_per_env[0])
    for step in range(1, cue):
        shown = [c.pose.p[0].numpy() for c in scene.cubes.values() if float(c.pose.p[0, 2]) < 1]  # the others are far above
        assert len(shown) == 1
        move = np.clip(16 * (shown[0] + [0, 0, 0.042] - scene.agent.tcp.pose.p[0].numpy()), -1, 1)
        _, _, _, _, info = env.step(np.array([*move, 0, 0, 0, -1], np.float32))
        if bool(info["success"][0]):
            break
    print(f"seed {4242424242 + episode}: success {bool(info['success'][0])} at step {step}; the cue shows for {cue} steps")
    passed += bool(info["success"][0])
sys.stdout.flush()
assert passed == 5, "the cue can no longer be touched"
os._exit(0)  # the driver's own threads are not waited for
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null
echo "as described: five successes of five before the cue was gone"
