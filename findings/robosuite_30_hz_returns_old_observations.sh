#!/usr/bin/env bash
# robosuite 1.5.2: an environment of control_freq=30 runs at 31.25 Hz and returns observations from before the step's end.
#
# Guess: control_freq=30 gives 30 steps a second of simulated time, and what step() returns is the state at its end, as
# it is at 20 Hz.
# Seen: a step is int(1/30 / 0.002) = 16 physics steps, that is 0.032 s. The observables sample by a clock of their own
# of 1/30 s, so that the two drift apart: in 56 of the first 60 steps the joint angles returned are not those of the
# simulator, at worst by nearly a whole step's motion. Rewards are computed from the newest state all the same. The same
# at 15, 24, 40 and 60 Hz, and in robosuite 1.4.0. Only rates whose period is a multiple of 2 ms (10, 20, 25, 50) are
# exact. env.cur_time adds 1/30 a step, so that it does not show the drift.
# For robot learning: 30 is the frame rate of most LeRobot data. Demonstrations recorded so pair each action with a state
# of another moment, and the lag swings over seconds.
# vlamem: its suites run at 20 Hz and read the simulator's state themselves.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" robosuite==1.5.2 mujoco==3.3.7 numpy==1.26.4
cat >"$work/case.py" <<'PY'
import numpy as np
import robosuite


def run(rate):
    """Rate in simulated time, steps with old joint angles, largest error as a share of the largest motion in a step."""
    env = robosuite.make(
        "Lift", robots="Panda", control_freq=rate, has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False
    )
    env.reset()
    action = np.zeros(env.action_dim)
    action[0] = 0.5
    start, before = env.sim.data.time, np.array(env.sim.data.qpos[:7])
    errors, motions = [], []
    for _ in range(60):
        seen, *_ = env.step(action)
        now = np.array(env.sim.data.qpos[:7])
        told = np.arctan2(seen["robot0_joint_pos_sin"], seen["robot0_joint_pos_cos"])
        errors.append(np.abs(told - now).max())
        motions.append(np.abs(now - before).max())
        before = now
    return 60 / (env.sim.data.time - start), int((np.array(errors) > 1e-6).sum()), max(errors) / max(motions)


for rate in (20, 30):
    print("asked %d Hz: runs at %.2f Hz, old in %d of 60 steps, by up to %.2f of a step" % (rate, *run(rate)))
real, old, lag = run(20)
assert abs(real - 20) < 1e-6 and old == 0, "20 Hz is no longer exact"
real, old, lag = run(30)
assert abs(real - 31.25) < 1e-6 and old == 56 and lag > 0.8, "30 Hz is treated otherwise now"
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null | grep asked
echo "as described: 31.25 Hz, and observations that are up to a step old"
