#!/usr/bin/env bash
# lerobot 0.6.1: lerobot-eval adds relative actions to the state of each step, not to the one they were predicted from.
#
# Guess: with use_relative_actions (pi0, pi0.5) each action of a chunk is an offset from the state at which the chunk was
# predicted, as in training, and lerobot-eval plays it so.
# Seen: the preprocessor runs at every step and caches that step's state; the action that comes out of the policy's queue
# is added to it, however old its chunk is. A chunk that means 1.1, 1.2, 1.3, 1.4 from a state of 1.0 drives to 1.1, 1.3,
# 1.6, 2.0: the offsets add up. lerobot-rollout refuses this combination, and GR00T's policy refuses to queue such
# actions; lerobot-eval says nothing for pi0 and pi0.5, whose default is to play 50 actions of a chunk.
# For robot learning: a sound checkpoint overshoots in simulation by more the longer its chunks are; n_action_steps=1
# hides it.
# vlamem: runs the postprocessor over the whole chunk with the state that it was predicted from.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset,evaluation]==0.6.1" gymnasium==1.4.0 torch==2.11.0
cat >"$work/case.py" <<'PY'
from collections import deque

import gymnasium as gym
import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import AbsoluteActionsProcessorStep, PolicyProcessorPipeline, RelativeActionsProcessorStep
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.scripts.lerobot_eval import eval_policy

commands = []


class Joint(gym.Env):
    """A joint that starts at 1 and is at once where it is sent."""

    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-9, 9, (1,), np.float64)})
    action_space = gym.spaces.Box(-9, 9, (1,), np.float32)
    metadata = {"render_fps": 10}
    task_description, _max_episode_steps = "move", 4

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.now = np.ones(1), 0
        return {"agent_pos": self.at}, {}

    def step(self, action):
        self.at, self.now = action.astype(float), self.now + 1
        commands.append(round(float(action[0]), 3))
        return {"agent_pos": self.at}, 0.0, self.now == 4, False, {"is_success": False}


class Chunk(PreTrainedPolicy):
    """Always predicts the offsets 0.1 to 0.4 and plays all four, with the queue of lerobot's own policies."""

    config_class, name = PreTrainedConfig, "chunk"

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def get_optim_params(self):
        return {}

    def reset(self):
        self.queue = deque()

    def forward(self, batch):
        return torch.zeros(()), None

    def predict_action_chunk(self, batch, **kwargs):
        return torch.tensor([[[0.1], [0.2], [0.3], [0.4]]])

    def select_action(self, batch, **kwargs):
        if not self.queue:
            self.queue.extend(self.predict_action_chunk(batch).transpose(0, 1))
        return self.queue.popleft()


relative = RelativeActionsProcessorStep(enabled=True)
before = PolicyProcessorPipeline(steps=[relative])
behind = PolicyProcessorPipeline(
    steps=[AbsoluteActionsProcessorStep(enabled=True, relative_step=relative)],
    to_transition=policy_action_to_transition,
    to_output=transition_to_policy_action,
)
envs = gym.vector.SyncVectorEnv([Joint], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
eval_policy(envs, Chunk(), lambda batch: batch, lambda batch: batch, before, behind, n_episodes=1)
print("commands meant: [1.1, 1.2, 1.3, 1.4], sent:", commands)
assert commands == [1.1, 1.3, 1.6, 2.0], "lerobot-eval adds another state now"
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null
echo "as described: offsets from one state are added to four"
