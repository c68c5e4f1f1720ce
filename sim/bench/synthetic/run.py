"""The synthetic benchmark: every arm trained on a family's mixed streams, scored on each of its settings.

Resumable arm by arm: each finished arm is one JSON file in the run folder, which a second run of the same preset takes
as it is.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache.compilation_cache import set_cache_dir
from jaxtyping import Array

from vlamem.core.files import write_atomically
from vlamem.memory.designs.aura import AuraMemory
from vlamem.memory.protocol import Memory, Params, flatten, scan, state_bytes
from vlamem.memory.train.loop import Draw, TrainConfig, hold_rate, train
from vlamem.memory.train.losses import Batch
from vlamem.memory.weights import Header, TrainedFor, save_weights
from vlamem.sim.bench.synthetic.arms import (
    ANSWERS,
    ARMS,
    AT_BUDGET,
    BY_NAME,
    EVENT_KEYS,
    FAMILIES,
    FAMILY,
    FEATURES,
    Arm,
    Setting,
    batch_of,
    curriculum,
    marks,
    settings,
)
from vlamem.sim.suites.synthetic import KINDS, EventConfig, Kind, Streams, event_streams, key_of, vocabulary

Report = Callable[[str], None]


@dataclass(frozen=True)
class Preset:
    """How much is run.

    Attributes:
        seeds: training runs an arm.
        updates: of each run.
        rows: streams a batch and a seed.
        ticks: of a training stream.
        scored_rows: streams a setting and a seed.
        families: of FAMILIES.
        arms: names of ARMS.
        sweep: learning rates tried for each arm on each family, one run of `sweep_updates` each, side by side; the
            lowest error is kept. As many as there are seeds share the compiled update with the runs proper.
        sweep_updates: updates of a run of the sweep.
    """

    seeds: int
    updates: int
    rows: int = 8
    ticks: int = 256
    scored_rows: int = 16
    families: tuple[str, ...] = FAMILIES
    arms: tuple[str, ...] = tuple(arm.name for arm in ARMS)
    sweep: tuple[float, ...] = ()
    sweep_updates: int = 100


MAIN = ("learned", "oracle", "always", "linear", "lru", "fifo", "kv_window", "gru", "random", "periodic")
RATES = (0.002, 0.005, 0.01, 0.02, 0.05)
PRESETS = {
    "full": Preset(seeds=5, updates=1000, rows=4, sweep=RATES),
    "quick": Preset(seeds=2, updates=1000, rows=4, families=("events",), arms=MAIN),
    "smoke": Preset(
        seeds=2, updates=8, rows=4, ticks=32, scored_rows=4, families=("events",), arms=("learned", "fifo", "random")
    ),
}
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


def _seed_keys(family: str, what: str, seeds: int) -> Array:
    return jnp.stack([key_of(seed, what, family) for seed in range(seeds)])


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


@cache
def _runner(memory: Memory) -> Callable[..., Any]:
    """A part of a stream, over seeds: state and (answer, wrote, gate)."""

    def run(params: Params, state: Any, zs: Array, resets: Array, events: Array) -> Any:
        state, out = scan(memory, params, state, zs, resets, events)
        return state, (jnp.argmax(jnp.asarray(out.answer), axis=-1), out.wrote, out.gate)

    return jax.jit(jax.vmap(run))


def play(memory: Memory, params: Params, streams: Streams, part: int) -> tuple[np.ndarray, ...]:
    """Answers, writes and gate [S, T, B] of S seeds' params over their own streams, `part` ticks at a time."""
    run = _runner(memory)
    S, T, B = streams.kind.shape
    state = jax.tree.map(lambda x: jnp.stack([x] * S), memory.init(B))
    said = []
    for start in range(0, T, part):
        at = slice(start, start + part)
        state, out = run(params, state, streams.z[:, at], streams.reset[:, at], streams.event[:, at])
        said.append(jax.tree.map(np.asarray, out))
    return tuple(np.concatenate(parts, axis=1) for parts in zip(*said, strict=True))


@cache
def _drawer(ticks: int, rows: int) -> Callable[[Array, Array], Streams]:
    """Event streams of seeds by rate, compiled once for all rates."""
    config, words = EventConfig(ticks=ticks), vocabulary(0, keys=EVENT_KEYS, values=ANSWERS, size=FEATURES)
    return jax.jit(
        jax.vmap(lambda key, rate: event_streams(key, config, words, rows, jnp.reshape(rate, (1,))), in_axes=(0, None))
    )


@cache
def _teller(schedule: str) -> Callable[..., Array]:
    return jax.jit(jax.vmap(lambda streams, key, rate: marks(schedule, streams, key, rate)))


@cache
def _scored_streams(family: str, ticks: int, length: int, rate: float | None, name: str, preset: Preset) -> Streams:
    """The streams [S, T, B] that every arm is scored on in one setting; horizons of one length share theirs."""
    keys, rows = _seed_keys(name, "score", preset.seeds), preset.scored_rows
    if rate is not None:
        return _drawer(length, rows)(keys, jnp.asarray(rate))
    setting = next(s for s in settings(family, ticks) if s.ticks == length and name in (s.name, "horizons"))
    drawn: Streams = jax.jit(jax.vmap(lambda key: setting.draw(key, rows)))(keys)
    return drawn


def score(
    arm: Arm, params: Params, group: list[Setting], preset: Preset, rates: dict[str, list[float]] | None
) -> dict[str, list[dict[str, Any]]]:
    """What each seed's memory did on the streams that a group of settings shares, by setting.

    Counts of answers and of writes by kind of tick over each setting's horizon.
    """
    S, longest = params.mean.shape[0], group[-1]
    name = longest.name if len(group) == 1 else "horizons"
    # a key of its own: one derived from the streams' key may be the very one that decided where the events are
    keys = _seed_keys(name, "marks", S)
    streams = _scored_streams(longest.family, preset.ticks, longest.ticks, longest.rate, name, preset)
    rate = jnp.asarray((rates or {}).get(longest.name, [0.1] * S))
    told = _teller(arm.schedule)(streams, keys, rate) if arm.schedule else streams.event
    memory = arm.memory(preset.ticks if arm.constant else longest.ticks)
    if arm.gate in AT_BUDGET:
        params = _held(memory, params, longest, preset, keys, rate)
    answers, wrote, _ = play(memory, params, streams._replace(event=told), preset.ticks)
    asked, right = np.asarray(streams.asked), answers == np.asarray(streams.answer)
    return {
        s.name: [
            _counts(*(x[seed, : s.horizon] for x in (asked, right, wrote, np.asarray(streams.kind))))
            for seed in range(S)
        ]
        for s in group
    }


def _counts(asked: np.ndarray, right: np.ndarray, wrote: np.ndarray, kind: np.ndarray) -> dict[str, Any]:
    return {
        "asked": int(asked.sum()),
        "right": int((right & asked).sum()),
        "ticks": int(kind.size),
        "writes": int(wrote.sum()),
        "kinds": {name: [int((wrote & (kind == k)).sum()), int((kind == k).sum())] for k, name in enumerate(KINDS)},
    }


def groups(family: str, ticks: int) -> list[list[Setting]]:
    """The settings of a family, those together that one set of streams serves."""
    all_ = settings(family, ticks)
    horizons = [s for s in all_ if s.ticks > ticks]
    return [[s] for s in all_ if s.ticks == ticks] + ([horizons] if horizons else [])


@cache
def _holder(memory: AuraMemory) -> Callable[..., Params]:
    return jax.jit(jax.vmap(lambda p, streams, key, rate: hold_rate(memory, p, batch_of(None, streams, key), rate)))


def _held(memory: Memory, params: Params, setting: Setting, preset: Preset, keys: Array, rate: Array) -> Params:
    """`params` with thresholds moved to `rate` on streams of their own, of the training length."""
    assert isinstance(memory, AuraMemory)
    if setting.family == "events":
        events = 0.1 if setting.rate is None else setting.rate
        streams = _drawer(preset.ticks, preset.scored_rows)(keys, jnp.asarray(events))
    else:
        streams = jax.jit(jax.vmap(lambda key: setting.draw(key, preset.scored_rows)))(keys)
    return _holder(memory)(params, streams, keys, rate)


def trace(arm: Arm, params: Params, preset: Preset, seed: int = 0, ticks: int = 192) -> dict[str, Any]:
    """One row's gate and writes over its first ticks of a stream of the hard setting."""
    first = jax.tree.map(lambda x: x[seed : seed + 1], params)
    hard = next(s for s in settings("events", preset.ticks) if s.name == HARD)
    streams = jax.vmap(lambda key: hard.draw(key, 1))(_seed_keys("trace", "score", 1))
    _, wrote, gate = play(arm.memory(preset.ticks), first, streams, preset.ticks)
    return {
        "gate": [round(float(g), 4) for g in gate[0, :ticks, 0]],
        "wrote": [int(w) for w in wrote[0, :ticks, 0]],
        "kind": [int(k) for k in np.asarray(streams.kind)[0, :ticks, 0]],
    }


HARD = "events 10%"
"""The hard setting: one tick in ten is an event, three in ten look like one and change nothing."""


def _marks_of(preset: Preset, arm: Arm, family: str) -> dict[str, Any]:
    """What an arm's results depend on, as JSON gives it back."""
    more = {"family": asdict(FAMILY[family]), "sweep_times": arm.sweep_times}
    of: dict[str, Any] = json.loads(json.dumps(asdict(preset) | more))
    return {name: value for name, value in of.items() if name not in ("families", "arms")}


def _done(path: Path, of: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier run with the same marks, `of`, left at `path`, or None."""
    if not path.exists():
        return None
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return done if done.get("preset") == of else None


def run_arm(arm: Arm, family: str, preset: Preset, folder: Path, command: str, report: Report) -> dict[str, Any]:
    """Trains and scores one arm on one family, or reads what an earlier run of the same preset left."""
    path, of = folder / family / f"{arm.name}.json", _marks_of(preset, arm, family)
    done = _done(path, of)
    if done is not None:
        return done
    start = time.perf_counter()
    tried, rate = _learning_rate(arm, family, preset, folder)
    memory = arm.memory(preset.ticks)
    config = training_config(arm, family, preset, rate)
    keys = _seed_keys(family, "train", preset.seeds)
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
    of = _marks_of(preset, arm, family)
    done = _done(path, of)
    if done is None:
        done = {"preset": of, "error": sweep(arm, family, preset)}
        write_atomically(path, json.dumps(done) + "\n")
    tried = done["error"]
    return tried, float(min(tried, key=lambda rate: tried[rate]))


def _rates_of_learned(family: str, preset: Preset, folder: Path) -> dict[str, list[float]]:
    path = folder / family / "learned.json"
    done = _done(path, _marks_of(preset, BY_NAME["learned"], family))
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


def finished(preset: Preset, folder: Path) -> dict[str, dict[str, Any]]:
    """The arms of a preset that are done, in the form of `run`.

    Raises FileNotFoundError when there is none.
    """
    found: dict[str, dict[str, Any]] = {}
    for family in preset.families:
        for arm in ARMS:
            done = _done(folder / family / f"{arm.name}.json", _marks_of(preset, arm, family))
            if arm.name in preset.arms and done is not None:
                found.setdefault(family, {})[arm.name] = done
    if not found:
        raise FileNotFoundError(f"{folder} holds no finished arm: run 'vlamem bench synthetic' without --only-page")
    return found


def run(preset: Preset, folder: Path, command: str, report: Report) -> dict[str, dict[str, Any]]:
    """Every family's every arm, {family: {arm: what run_arm gives}}; the families' main arms come first.

    What was compiled is kept beside the arms: seven tenths of a short run are compilation.
    """
    set_cache_dir(str(folder.parent / "compiled"))
    found: dict[str, dict[str, Any]] = {family: {} for family in preset.families}
    for names in (MAIN, tuple(a.name for a in ARMS if a.name not in MAIN)):
        for family in preset.families:
            for name in names:
                if name in preset.arms and family in BY_NAME[name].families:
                    found[family][name] = run_arm(BY_NAME[name], family, preset, folder, command, report)
    return found
