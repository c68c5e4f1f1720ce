#!/usr/bin/env bash
# mani-skill 3.0.1: a positive rotation given to pd_ee_delta_pose turns the hand in the negative direction.
#
# Guess: actions of [-1, 1] map onto the controller's bounds of -0.1 to 0.1, so that +1 about an axis turns by +0.1 rad
# about it, as +1 along an axis moves by +0.1 m.
# Seen: translations are mapped so. Rotations are multiplied by the lower bound, -0.1: the sign is turned round. The
# absolute mode, pd_ee_pose, and the joint modes are as expected.
# For robot learning: delta actions of other simulators, of teleoperation or computed from poses work in translation and
# turn away from their goal; a servo on the orientation error diverges. Data recorded through this controller are
# inverted likewise, and harm whoever mixes them with others. Suites built on it (MIKASA-Robo) inherit it.
# vlamem: uses no ManiSkill controller.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" mani-skill==3.0.1 sapien==3.0.3 torch==2.11.0 numpy==2.2.6 gymnasium==1.2.0
cat >"$work/case.py" <<'PY'
from types import SimpleNamespace

import torch
from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController
from mani_skill.agents.robots.panda.panda import Panda
from mani_skill.utils.structs import Pose

# The Panda's own settings and the controller's own arithmetic; a robot in a scene would need a renderer.
settings = Panda._controller_configs.fget(Panda)["pd_ee_delta_pose"]["arm"]
bounds = torch.tensor([settings.pos_lower] * 3), torch.tensor([settings.pos_upper] * 3)
controller = SimpleNamespace(config=settings, action_space_low=bounds[0], action_space_high=bounds[1])
asked = torch.tensor([[1.0, 0, 0, 1.0, 0, 0]])  # along x and about x
scaled = PDEEPoseController._clip_and_scale_action(controller, asked)
pose = PDEEPoseController.compute_target_pose(controller, Pose.create_from_pq(torch.zeros(1, 3)), scaled)
angle = 2 * float(torch.atan2(pose.q[0, 1], pose.q[0, 0]))  # quaternions are w x y z
print(f"bounds {settings.rot_lower} to {settings.rot_upper}; asked +1 and +1:", end=" ")
print(f"moves by {float(pose.p[0, 0]):+.2f} m along x, turns by {angle:+.2f} rad about x")
assert abs(float(pose.p[0, 0]) - 0.1) < 1e-5, "translations are mapped otherwise now"
assert abs(angle + 0.1) < 1e-4, "rotations keep their sign now"
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null
echo "as described: moved forward, turned backward"
