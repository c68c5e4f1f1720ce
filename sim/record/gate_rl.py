"""`vlamem train-gate --method rl`: plays the groups of episodes on which a gate is tuned."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.protocol import named_arrays
from vlamem.memory.runner import InjectOptions, RecurrentRunner
from vlamem.memory.train.checkpoint import Checkpoint
from vlamem.memory.train.curves import write_curves
from vlamem.memory.train.policy_gradient import DrawingRow, RlOptions, Rollout, Step, tune_on_success
from vlamem.memory.weights import Header, identity, load_memory, save_weights
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy, weights_hash
from vlamem.sim.rollout.loop import EpisodeLoop
from vlamem.sim.rollout.row import Row, Start
from vlamem.sim.suites.protocol import SuiteEnv
from vlamem.sim.suites.registry import DEFAULT_SUITE, load_suite, select_tasks


def play_episode(
    env: SuiteEnv, policy: MemoryPolicy, task: str, episode: int, execute: int, noise: np.random.Generator
) -> bool:
    """One episode of split "train" with a memory that ticks at every step; whether it succeeded."""
    env.render_on_step = False
    start = Start(task, episode, {"episode": episode, "split": "train", "wording": "training"}, noise)
    row = Row(0, env, start, policy.spec.cameras, policy.policy.history)
    EpisodeLoop(ChunkRunner(policy, 1, execute)).play([row])
    return row.success


def tune_in_suite(
    policy_name: str,
    gate: Path,
    tasks: Sequence[str],
    how: RlOptions,
    out: Path,
    command: str,
    execute: int = 8,
    suite: str = DEFAULT_SUITE,
    progress: Callable[[Step], None] = lambda step: None,
) -> tuple[Path, list[Step]]:
    """Tunes the gate of a weights file on success in `tasks` of a suite; writes out/gate.safetensors and the curves.

    A killed run goes on after its last update. Raises WeightsError for a gate of another policy, SuiteError for an
    unknown task, ValueError when `out` holds another training.
    """
    source = find_policy(policy_name)
    policy: FrozenPolicy = load_policy(source)
    used_with = identity(policy.spec, weights_hash(policy, source))
    header, memory, start = load_memory(gate, used_with)
    found, size = load_suite(suite), policy.spec.image_size
    tasks = select_tasks(found, tasks)
    marks = {
        "how": asdict(how),
        "start": hashlib.sha256(gate.read_bytes()).hexdigest(),
        "policy": asdict(used_with),
        "suite": suite,
        "tasks": list(tasks),
        "execute": execute,
    }

    def play(update: int, group: int, row: Callable[[np.random.Generator], DrawingRow]) -> list[Rollout]:
        task = tasks[(update * how.groups + group) % len(tasks)]
        episode = 200_000 + update * how.groups + group
        env = found.make(task, image_size=size)
        played = []
        for member in range(how.group):
            made = row(stream(how.seed, "rl", update, group, member))
            inject = InjectOptions("context" if memory.head.context else "chunk")
            wrapped = MemoryPolicy(policy, [RecurrentRunner(header.design, made, inject)])
            noise = stream(how.seed, "rl noise", task, episode)
            success = play_episode(env, wrapped, task, episode, execute, noise)
            played.append(Rollout(made.drawn(), success))
        env.close()
        return played

    checkpoint = Checkpoint(out, marks)
    params, steps = tune_on_success(memory, start, play, how, progress, checkpoint)
    # those of the gate before are not of this one
    metrics = {"rl_success": steps[-1].success, "rl_writes_per_tick": steps[-1].rate}
    path = out / "gate.safetensors"
    save_weights(path, Header.of(memory, header.trained_for, command, metrics), named_arrays(params))
    history = [{"update": i, **step._asdict()} for i, step in enumerate(steps, 1)]
    write_curves(out, history, ("success",), ("rate",), "share of episodes that succeeded")
    return path, steps
