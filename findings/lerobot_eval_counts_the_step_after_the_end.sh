#!/usr/bin/env bash
# lerobot 0.6.1: the sum of rewards that lerobot-eval reports for an episode holds one step too many.
#
# Guess: sum_reward is the return of the episode, the rewards up to the step that ended it.
# Seen: in a batch of a SyncVectorEnv, every episode but the one that ends last has the reward of the step behind its end
# added, which belongs to the environment's next episode (autoreset SAME_STEP, as lerobot makes its environments). The
# mask keeps indices up to the end's plus one. Success and the greatest reward are read with the same mask.
# For robot learning: returns depend on the batch size and on which row ends last: the same episodes in batches of one
# report other sums. An environment that can succeed in its first step may turn a failure before it into a success.
# vlamem: its rollouts end each row by itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset,evaluation]==0.6.1" gymnasium==1.4.0 torch==2.11.0
cat >"$work/case.py" <<'PY'
import gymnasium as gym
import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.scripts.lerobot_eval import eval_policy


class Steps(gym.Env):
    """A reward of 1 at each of `length` steps, the last of which ends the episode: the return is `length`."""

    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-1, 1, (2,), np.float64)})
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    metadata = {"render_fps": 10}
    task_description, _max_episode_steps = "wait", 10

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now = 0
        return {"agent_pos": np.zeros(2)}, {}

    def step(self, action):
        self.now += 1
        over = self.now >= self.length
        return {"agent_pos": np.zeros(2)}, 1.0, over, False, {"is_success": over}


class Still(PreTrainedPolicy):
    config_class, name = PreTrainedConfig, "still"

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def get_optim_params(self):
        return {}

    def reset(self):
        pass

    def forward(self, batch):
        return torch.zeros(()), None

    def predict_action_chunk(self, batch, **kwargs):
        raise NotImplementedError

    def select_action(self, batch, **kwargs):
        return torch.zeros(len(batch["observation.state"]), 2)


def same(batch):
    return batch


lengths = (2, 3, 5)
envs = gym.vector.SyncVectorEnv(
    [lambda n=n: Steps(n) for n in lengths], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
)
told = eval_policy(envs, Still(), same, same, same, same, n_episodes=len(lengths))["per_episode"]
sums = [episode["sum_reward"] for episode in told]
print("returns:", [float(n) for n in lengths], "sum_reward:", sums)
assert sums == [3.0, 4.0, 5.0], "lerobot-eval counts otherwise now"
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null
echo "as described: one step too many for every episode but the last to end"
