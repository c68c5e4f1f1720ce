"""`vlamem fit` killed and stopped: it never goes back behind a checkpoint, and ends in a gate that is whole."""

from pathlib import Path

import numpy as np

from vlamem.core.seeding import stream
from vlamem.core.tensors import TensorsError, read_tensors
from vlamem.memory.train.conditioning import Conditioned, write_conditioning
from vlamem.memory.train.features import EpisodeTicks, FeaturesMeta, FeatureWriter
from vlamem.memory.weights import WeightsError, identity, load_memory
from vlamem.policies.protocol import Teachable
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.faults.killed import Killed, kill_after
from vlamem.sim.bench.faults.kills import completed, verb_words

_DEMONSTRATIONS, _TICKS, _AFTER_S = 20, 24, 60.0


def kill_fits(folder: Path, kills: int, updates: int, seed: int, after_s: float = _AFTER_S) -> Killed:
    """Trains on demonstrations of nothing, drawn at random, which is as much work as on others.

    Each run is killed up to `after_s` after it had begun to work. Acknowledged are the updates of the checkpoints that
    were found after a kill; lost, those of a checkpoint that was there before and is not, or is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, out = stream(seed, "kill fits"), folder / "gate.safetensors"
    _record(folder / "data", rng)
    words = verb_words("fit", "tiny", folder / "data", "--out", out, "--updates", updates, "--rows", 2, "--hidden", 8)
    work, there, survived, lost, stops = out.with_suffix(""), 0, 0, 0, 0
    for number in range(kills):
        stop_s = float(rng.uniform(0.05, 2.0)) if number % 2 else 0.0
        stops += kill_after(words, float(rng.uniform(0, after_s)), stop_s, work.exists)
        found = _updates(work / "checkpoint.safetensors")
        survived, lost = survived + (found >= there), lost + max(0, there - found)
        there = max(there, found)
    done = completed(words) and _updates(work / "checkpoint.safetensors") >= there and _whole(out)
    return Killed("fit", kills, survived if done else 0, there, lost, stops)


def _updates(checkpoint: Path) -> int:
    """Updates of a checkpoint: 0 without one, -1 of one that cannot be read."""
    if not checkpoint.exists():
        return 0
    try:
        _, header = read_tensors(checkpoint)
    except TensorsError:
        return -1
    return int(header["done"])


def _whole(gate: Path) -> bool:
    try:
        load_memory(gate)
    except WeightsError:
        return False
    return True


def _record(folder: Path, rng: np.random.Generator) -> None:
    """A recording for TinyVLA, of as many demonstrations as a task needs."""
    source = find_policy("tiny")
    policy = load_policy(source)
    assert isinstance(policy, Teachable)
    spec, wordings = policy.spec, (("go", "move"), ("stop", "halt"))
    marks = identity(spec, source.sha256)
    chunk = (spec.horizon, spec.action.size)
    meta = FeaturesMeta(marks, spec.feature_size, spec.context_size, chunk, wordings, "drawn", "drawn")
    writer = FeatureWriter(folder, meta, np.stack([policy.context_of(list(g)) for g in wordings]))
    ticks = np.arange(0, _TICKS - spec.horizon, 2)
    for episode in range(_DEMONSTRATIONS):
        packed = rng.standard_normal((len(ticks), policy.packed_size)).astype(np.float16)
        rows = Conditioned(ticks, rng.uniform(0, 1, len(ticks)).astype(np.float32), packed)
        write_conditioning(folder, "nothing", episode, "expert", rows)
        z, actions = rng.standard_normal((_TICKS, spec.feature_size)), rng.uniform(-1, 1, (_TICKS, *chunk))
        told = np.zeros((_TICKS, 2), np.int32)
        writer.add("nothing", episode, "expert", EpisodeTicks(z, actions, told, np.zeros(_TICKS)), True)
    writer.close()
