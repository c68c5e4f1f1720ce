#!/usr/bin/env bash
# lerobot 0.6.1: the replay buffer of its learner takes the start of the next episode for the state after a time limit.
#
# Guess: add(state, ..., next_state, done=False, truncated=True) and a later sample() give back that next_state; the
# buffer has a field for the ends of episodes.
# Seen: with optimize_memory=True, as lerobot's own learner makes its online and offline buffers, next_state is the state
# of the following slot. At a truncated step that is the first state of the next episode, and at the newest slot of a
# full buffer the oldest state of all. The field episode_ends is never written or read.
# For robot learning: SAC's target is masked by done alone, so that each episode cut off by a time limit bootstraps from
# the value of a fresh reset: as if waiting put the object back. HIL-SERL tasks end so in every failure.
# vlamem: does not use this buffer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "${PYTHON:-3.12}" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" "lerobot[dataset]==0.6.1" torch==2.11.0
cat >"$work/case.py" <<'PY'
import torch
from lerobot.rl.buffer import ReplayBuffer


def state(value):
    return {"observation.state": torch.tensor([[float(value)]])}


def pairs(frugal):
    """Next state by state, over two episodes of three steps from 0 and from 100, each cut off by a time limit."""
    buffer = ReplayBuffer(7, device="cpu", state_keys=["observation.state"], use_drq=False, optimize_memory=frugal)
    for start in (0, 100):
        for step in range(3):
            at = start + step
            buffer.add(state(at), torch.zeros(1, 1), 0.0, state(at + 1), done=False, truncated=step == 2)
    torch.manual_seed(0)
    seen = {}
    for _ in range(100):
        batch = buffer.sample(6)
        ends = batch["next_state"]["observation.state"].flatten().tolist()
        seen.update(zip(batch["state"]["observation.state"].flatten().tolist(), ends, strict=True))
        assert not batch["done"].any()
    return seen


plain, frugal = pairs(False), pairs(True)
print(f"state after the cut at 2: stored 3, plain buffer {plain[2.0]:.0f}, optimize_memory {frugal[2.0]:.0f}")
assert plain[2.0] == 3 and plain[102.0] == 103, "the plain buffer changed"
assert frugal[1.0] == 2 and frugal[2.0] == 100, "optimize_memory keeps the state after a cut now"
PY
"$work/env/bin/python" "$work/case.py" 2>/dev/null
echo "as described: the next episode's first state follows a time limit"
