"""One arm of the synthetic benchmark: trained on a family's mixed streams, scored on each of its settings.

Each finished arm is one JSON file in the run folder, which a second run of the same preset takes as it is.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vlamem.core.files import write_atomically
from vlamem.memory.designs.aura import AuraMemory
from vlamem.memory.protocol import Memory, Params, flatten, state_bytes
from vlamem.memory.train.loop import Draw, TrainConfig, train
from vlamem.memory.train.losses import Batch
from vlamem.memory.weights import Header, TrainedFor, save_weights
from vlamem.sim.bench.synthetic.arms import AT_BUDGET, BY_NAME, FAMILY, HARD, Arm, batch_of, curriculum
from vlamem.sim.bench.synthetic.presets import Preset
from vlamem.sim.bench.synthetic.score import groups, score, seed_keys, trace
from vlamem.sim.suites.synthetic import Kind, Streams, key_of

Report = Callable[[str], None]
LEARNING_RATE = 1e-2


def training_config(arm: Arm, family: str, preset: Preset, learning_rate: float) -> TrainConfig:
    """How an arm is trained on a family; control gates with a threshold are held near a tenth while they train."""
    return TrainConfig(
        updates=preset.updates,
        learning_rate=learning_rate,
        write_cost=FAMILY[family].write_cost if arm.gate in ("learned", "counterfactual") else 0.0,
        ramp=FAMILY[family].ramp,
        signal="counterfactual" if arm.gate == "counterfactual" else "straight-through",
        rate=0.1 if arm.gate in ("novelty", "reconstruction") else None,
    )


@cache
def _draws(schedule: str | None, family: str, preset: Preset) -> list[tuple[float, Draw]]:
    """The curriculum of a family as training takes it; kept, so that all arms share what was compiled for it."""

    def draw(make: Callable[[Array, int], Streams]) -> Draw:
        def one(key: Array) -> Batch:
            for_streams, for_marks = jax.random.split(key)
            return batch_of(schedule, make(for_streams, preset.rows), for_marks)

        return one

    return [(until, draw(make)) for until, make in curriculum(family, preset.ticks)]


def sweep(arm: Arm, family: str, preset: Preset) -> dict[str, float]:
    """Mean error of the last fifth of a short run for each learning rate, as text of the rate."""
    updates = max(FAMILY[family].sweep_times, arm.sweep_times) * preset.sweep_updates
    config = replace(training_config(arm, family, preset, LEARNING_RATE), updates=updates)
    keys = jnp.stack([key_of(0, "sweep", family)] * len(preset.sweep))
    _, losses = train(
        arm.memory(preset.ticks),
        config,
        _draws(arm.schedule, family, preset),
        keys,
        list(preset.sweep),
    )
    error = np.asarray(losses.action_error)[-updates // 5 :].mean(0)
    return {f"{rate:g}": round(float(e), 4) for rate, e in zip(preset.sweep, error, strict=True)}


def marks_of(preset: Preset, arm: Arm, family: str) -> dict[str, Any]:
    """What an arm's results depend on, as JSON gives it back."""
    more = {"family": asdict(FAMILY[family]), "sweep_times": arm.sweep_times}
    of: dict[str, Any] = json.loads(json.dumps(asdict(preset) | more))
    return {name: value for name, value in of.items() if name not in ("families", "arms")}


def done_at(path: Path, of: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier run with the same marks, `of`, left at `path`, or None."""
    if not path.exists():
        return None
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return done if done.get("preset") == of else None


def run_arm(arm: Arm, family: str, preset: Preset, folder: Path, command: str, report: Report) -> dict[str, Any]:
    """Trains and scores one arm on one family, or reads what an earlier run of the same preset left."""
    path, of = folder / family / f"{arm.name}.json", marks_of(preset, arm, family)
    done = done_at(path, of)
    if done is not None:
        return done
    start = time.perf_counter()
    tried, rate = _learning_rate(arm, family, preset, folder)
    memory = arm.memory(preset.ticks)
    config = training_config(arm, family, preset, rate)
    keys = seed_keys(family, "train", preset.seeds)
    training, losses = train(memory, config, _draws(arm.schedule, family, preset), keys)
    rates = _rates_of_learned(family, preset, folder) if arm.name in AT_BUDGET else None
    scored: dict[str, list[dict[str, Any]]] = {}
    for group in groups(family, preset.ticks):
        if arm.constant or len(group) == 1:  # the cache of the longest horizon would be attended to at every tick
            scored |= score(arm, training.params, group, preset, rates)
    found: dict[str, Any] = {
        "arm": arm.name,
        "family": family,
        "preset": of,
        "learning_rate": rate,
        "sweep": tried,
        "state_bytes": state_bytes(memory.init(2), 2),
        "parameters": sum(int(np.prod(x.shape[1:])) for x in jax.tree.leaves(training.params)),
        "error": [[round(float(e), 4) for e in row] for row in np.asarray(losses.action_error)[::10]],
        "settings": scored,
    }
    if family == "events" and arm.gate in ("learned", "counterfactual"):
        found["trace"] = trace(arm, training.params, preset)
        _save(memory, training.params, found, folder / f"{arm.name}_gate.safetensors", command)
    found["seconds"] = round(time.perf_counter() - start, 1)
    write_atomically(path, json.dumps(found) + "\n")
    report(f"{family} {arm.name}: {found['seconds']:.0f} s")
    return found


def _learning_rate(arm: Arm, family: str, preset: Preset, folder: Path) -> tuple[dict[str, float], float]:
    """The sweep of an arm on a family, made once, and the rate that it chose."""
    if not preset.sweep:
        return {}, LEARNING_RATE
    path = folder / "sweep" / family / f"{arm.name}.json"
    of = marks_of(preset, arm, family)
    done = done_at(path, of)
    if done is None:
        done = {"preset": of, "error": sweep(arm, family, preset)}
        write_atomically(path, json.dumps(done) + "\n")
    tried = done["error"]
    return tried, float(min(tried, key=lambda rate: tried[rate]))


def _rates_of_learned(family: str, preset: Preset, folder: Path) -> dict[str, list[float]]:
    path = folder / family / "learned.json"
    done = done_at(path, marks_of(preset, BY_NAME["learned"], family))
    if done is None:
        raise FileNotFoundError(f"{path} is missing: arms at the learned gate's budget run after the learned arm")
    scores = done["settings"]
    return {name: [seed["writes"] / seed["ticks"] for seed in seeds] for name, seeds in scores.items()}


def _save(memory: Memory, params: Params, done: dict[str, Any], path: Path, command: str) -> None:
    """The first seed's parameters, with what they scored on the hard setting."""
    assert isinstance(memory, AuraMemory)
    if HARD not in done["settings"]:
        return
    scored = done["settings"][HARD][0]
    event = scored["kinds"][Kind.EVENT.name.lower()]
    metrics = {
        "accuracy": scored["right"] / max(1, scored["asked"]),
        "writes_per_tick": scored["writes"] / scored["ticks"],
        "p_write_event": event[0] / max(1, event[1]),
    }
    first = flatten(jax.tree.map(lambda x: x[0], params))
    save_weights(path, Header.of(memory, TrainedFor("synthetic events", "none", "none"), command, metrics), first)
