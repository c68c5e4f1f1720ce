"""What a trained arm does on the streams that every arm is scored on."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vlamem.memory.designs.aura import AuraMemory
from vlamem.memory.protocol import Memory, Params, scan
from vlamem.memory.train.loop import hold_rate
from vlamem.sim.bench.synthetic.arms import (
    ANSWERS,
    AT_BUDGET,
    EVENT_KEYS,
    FEATURES,
    HARD,
    Arm,
    Setting,
    batch_of,
    marks,
    settings,
)
from vlamem.sim.bench.synthetic.presets import Preset
from vlamem.sim.suites.synthetic import KINDS, EventConfig, Streams, event_streams, key_of, vocabulary


def seed_keys(family: str, what: str, seeds: int) -> Array:
    """A key for each training seed, by family and purpose."""
    return jnp.stack([key_of(seed, what, family) for seed in range(seeds)])


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
    outs = []
    for start in range(0, T, part):
        at = slice(start, start + part)
        state, out = run(params, state, streams.z[:, at], streams.reset[:, at], streams.event[:, at])
        outs.append(jax.tree.map(np.asarray, out))
    return tuple(np.concatenate(parts, axis=1) for parts in zip(*outs, strict=True))


@cache
def _drawer(ticks: int, rows: int) -> Callable[[Array, Array], Streams]:
    """Event streams of seeds by rate, compiled once for all rates."""
    config, words = EventConfig(ticks=ticks), vocabulary(0, keys=EVENT_KEYS, values=ANSWERS, size=FEATURES)
    return jax.jit(
        jax.vmap(lambda key, rate: event_streams(key, config, words, rows, jnp.reshape(rate, (1,))), in_axes=(0, None))
    )


@cache
def _schedule(schedule: str) -> Callable[..., Array]:
    return jax.jit(jax.vmap(lambda streams, key, rate: marks(schedule, streams, key, rate)))


@cache
def _scored_streams(family: str, ticks: int, length: int, rate: float | None, name: str, preset: Preset) -> Streams:
    """The streams [S, T, B] that every arm is scored on in one setting; horizons of one length share theirs."""
    keys, rows = seed_keys(name, "score", preset.seeds), preset.scored_rows
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
    keys = seed_keys(name, "marks", S)
    streams = _scored_streams(longest.family, preset.ticks, longest.ticks, longest.rate, name, preset)
    rate = jnp.asarray((rates or {}).get(longest.name, [0.1] * S))
    write_at = _schedule(arm.schedule)(streams, keys, rate) if arm.schedule else streams.event
    memory = arm.memory(preset.ticks if arm.constant else longest.ticks)
    if arm.gate in AT_BUDGET:
        params = _held(memory, params, longest, preset, keys, rate)
    answers, wrote, _ = play(memory, params, streams._replace(event=write_at), preset.ticks)
    query, right = np.asarray(streams.query), answers == np.asarray(streams.answer)
    return {
        s.name: [
            _counts(*(x[seed, : s.horizon] for x in (query, right, wrote, np.asarray(streams.kind))))
            for seed in range(S)
        ]
        for s in group
    }


def _counts(query: np.ndarray, right: np.ndarray, wrote: np.ndarray, kind: np.ndarray) -> dict[str, Any]:
    return {
        "asked": int(query.sum()),
        "right": int((right & query).sum()),
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
    streams = jax.vmap(lambda key: hard.draw(key, 1))(seed_keys("trace", "score", 1))
    _, wrote, gate = play(arm.memory(preset.ticks), first, streams, preset.ticks)
    return {
        "gate": [round(float(g), 4) for g in gate[0, :ticks, 0]],
        "wrote": [int(w) for w in wrote[0, :ticks, 0]],
        "kind": [int(k) for k in np.asarray(streams.kind)[0, :ticks, 0]],
    }
