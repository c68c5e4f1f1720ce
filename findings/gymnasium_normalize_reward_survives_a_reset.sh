#!/usr/bin/env bash
# gymnasium 1.4.0: NormalizeReward carries the return of an episode that was cut off into the next ones.
#
# Guess: reset() begins a new discounted return, as it does in the vector form of the same wrapper.
# Seen: the single form has no reset, and clears its return at termination alone. Episodes that end by a time limit add
# up: with a reward of 1 a step and 5 steps an episode the return should never pass 4.9 and reaches 18.2 in the fourth.
# The scale that rewards are divided by grows with it. The vector form starts anew.
# For robot learning: manipulation tasks mostly end by a time limit. Rewards shrink as training goes on, by a factor that
# depends on the length of the run, and one environment trains on other rewards than a vector of one.
# vlamem: normalises no rewards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" gymnasium==1.4.0 numpy==2.2.6
cat >"$work/case.py" <<'PY'
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import NormalizeReward, TimeLimit
from gymnasium.wrappers.vector import NormalizeReward as VectorNormalizeReward


class Steady(gym.Env):
    """A reward of 1 at each step, without an end of its own."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


single = NormalizeReward(TimeLimit(Steady(), 5))
returns = []
for _ in range(4):
    single.reset()
    for _ in range(5):
        _, reward, terminated, truncated, _ = single.step(np.zeros(1, np.float32))
        returns.append(float(single.discounted_reward[0]))
    assert truncated and not terminated
made = [lambda: TimeLimit(Steady(), 5)]
rows = VectorNormalizeReward(gym.vector.SyncVectorEnv(made, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP))
rows.reset()
largest = 0.0
for _ in range(20):
    rows.step(np.zeros((1, 1), np.float32))
    largest = max(largest, float(rows.accumulated_reward[0]))
whole = sum(0.99**k for k in range(5))
print(f"return of an episode {whole:.2f}; single form reaches {max(returns):.2f}, vector form stays below {whole:.2f}")
print(f"last reward after normalising {reward:.3f}")
assert max(returns) > 18, "the single form starts anew at reset now"
assert largest <= whole, "the vector form no longer starts anew"
PY
"$work/env/bin/python" "$work/case.py"
echo "as described: four episodes of 4.9 became one of 18"
