"""The arms and the settings of the synthetic benchmark."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlamem.memory.designs import design
from vlamem.memory.designs.aura import AuraConfig, AuraMemory
from vlamem.memory.head import HeadConfig
from vlamem.memory.protocol import Memory
from vlamem.memory.train.losses import Batch, Targets
from vlamem.sim.suites.synthetic import (
    EventConfig,
    RecallConfig,
    Streams,
    SurpriseConfig,
    event_streams,
    recall_streams,
    surprise_streams,
    vocabulary,
)

FEATURES = 64
EVENT_KEYS = 16
ANSWERS = 8
HEAD = HeadConfig(answer=ANSWERS)
EVENT_RATES = (0.02, 0.05, 0.1, 0.2)
BINDINGS = (8, 16, 32, 64)
HARD = "events 10%"
"""The hard setting: one tick in ten is an event, three in ten look like one and change nothing."""
HORIZONS = (128, 512, 1024, 2048, 4096)
FAMILIES = ("events", "recall", "surprise")
GRU_HIDDEN = 64
"""Entries of the parameter-matched GRU: 4,224 bytes of h would take 3.6 million parameters, 200 times AURA-Mem's."""


@dataclass(frozen=True)
class FamilyTraining:
    """How a family is trained, where families differ.

    Attributes:
        write_cost: of a tick, for the gates that are charged.
        ramp: shares of the updates between which that cost rises.
        sweep_times: how many times `Preset.sweep_updates` a run of the sweep takes.
    """

    write_cost: float = 1.5
    ramp: tuple[float, float] = (0.3, 0.7)
    sweep_times: int = 1


FAMILY = {
    "events": FamilyTraining(),
    "recall": FamilyTraining(write_cost=0.1, ramp=(0.5, 0.8), sweep_times=3),
    "surprise": FamilyTraining(),
}
"""On recall most ticks before the queries bind a key that an answer may need: what is right to charge where one tick in
ten does closes the gate for good, the larger numbers of bindings have to come before the cost, and every arm is at
chance for its first hundred updates."""


@dataclass(frozen=True)
class Arm:
    """One memory of the benchmark.

    Attributes:
        name: in files and tables.
        title: in prose.
        gate: of an AURA memory; None for the baselines.
        schedule: writes given from outside through the oracle gate: all, none, random or periodic.
        baseline: builds a baseline for streams of that many ticks.
        families: where it runs.
        constant: whether its state is of constant size over the horizon.
        sweep_times: how many times longer its sweep of learning rates is: what is best after a hundred updates may
            diverge later.
    """

    name: str
    title: str
    gate: str | None = None
    schedule: str | None = None
    baseline: Callable[[int], Memory] | None = None
    families: tuple[str, ...] = FAMILIES
    constant: bool = True
    sweep_times: int = 1

    def memory(self, ticks: int) -> Memory:
        """The memory of this arm, for streams of `ticks`."""
        if self.baseline is not None:
            return self.baseline(ticks)
        return AuraMemory(AuraConfig(FEATURES, HEAD, gate=self.gate or "oracle"))


STREAMY = ("events", "surprise")
ARMS = (
    Arm("learned", "AURA, straight-through", gate="learned"),
    Arm("oracle", "AURA, oracle gate", gate="oracle"),
    Arm("always", "AURA, always", schedule="always"),
    Arm("linear", "decaying linear attention", baseline=lambda ticks: design("linear_attention").make(FEATURES, HEAD)),
    Arm("lru", "LRU slots", baseline=lambda ticks: design("slots").make(FEATURES, HEAD), sweep_times=5),
    Arm("fifo", "FIFO", baseline=lambda ticks: design("fifo").make(FEATURES, HEAD)),
    Arm("kv_window", "KV window", baseline=lambda ticks: design("kv_window").make(FEATURES, HEAD)),
    Arm("gru", "GRU", baseline=lambda ticks: design("gru").make(FEATURES, HEAD, hidden=GRU_HIDDEN)),
    Arm("random", "AURA, random", schedule="random", families=STREAMY),
    Arm("periodic", "AURA, periodic", schedule="periodic", families=STREAMY),
    Arm("counterfactual", "AURA, counterfactual", gate="counterfactual", families=STREAMY),
    Arm("novelty", "AURA, novelty", gate="novelty", families=STREAMY),
    Arm("reconstruction", "AURA, reconstruction", gate="reconstruction", families=STREAMY),
    Arm(
        "kv_growing",
        "growing KV cache",
        baseline=lambda ticks: design("kv_growing").make(FEATURES, HEAD, entries=ticks),
        constant=False,
    ),
    Arm("never", "AURA, never", schedule="never", families=("events",)),
)
BY_NAME = {arm.name: arm for arm in ARMS}
FIXED_SIZE = ("always", "linear", "lru", "fifo", "kv_window", "gru")
"""Baselines of constant size that write at every tick: the best of them is the yardstick."""
AT_BUDGET = ("random", "periodic", "novelty", "reconstruction")
"""Controls that write as often as the learned gate does on the same streams."""


@dataclass(frozen=True)
class Setting:
    """One kind of stream that is scored.

    Attributes:
        name: in tables.
        family: of FAMILIES.
        draw: streams of `ticks`, from a key and a number of rows.
        ticks: length that is drawn.
        horizon: ticks that count, from the first; streams of one length serve all shorter horizons.
        rate: of events, where that is all that sets it apart from the other settings of its length.
    """

    name: str
    family: str
    draw: Callable[[Array, int], Streams]
    ticks: int
    horizon: int
    rate: float | None = None


def _fold(streams: Streams, parts: int) -> Streams:
    """Rows laid end to end, `parts` in one, each starting with a reset."""

    def lay(x: Array) -> Array:
        T, B = x.shape[:2]
        return jnp.moveaxis(x.reshape(T, B // parts, parts, *x.shape[2:]), 2, 0).reshape(
            parts * T, B // parts, *x.shape[2:]
        )

    if parts == 1:
        return streams
    return Streams(*map(lay, streams._replace(reset=streams.reset.at[0].set(True))))


def _events(rates: tuple[float, ...], ticks: int, total: int) -> Callable[[Array, int], Streams]:
    words = vocabulary(0, keys=EVENT_KEYS, values=ANSWERS, size=FEATURES)
    config = EventConfig(ticks=ticks, rates=rates)
    parts = max(1, total // ticks)
    return lambda key, rows: _fold(event_streams(key, config, words, rows * parts), parts)


def _surprise(ticks: int, total: int) -> Callable[[Array, int], Streams]:
    words = vocabulary(0, keys=EVENT_KEYS, values=ANSWERS, size=FEATURES)
    config, parts = SurpriseConfig(ticks=ticks), max(1, total // ticks)
    return lambda key, rows: _fold(surprise_streams(key, config, words, rows * parts), parts)


def _recall(bindings: tuple[int, ...], total: int) -> Callable[[Array, int], Streams]:
    """Recall episodes of 128 ticks, or for short totals of that many, with fewer queries."""
    words = vocabulary(0, keys=max(BINDINGS), values=ANSWERS, size=FEATURES)
    length = min(128, total)
    config = RecallConfig(bindings, queries=length - max(bindings) - max(bindings) // 4)
    return lambda key, rows: _fold(recall_streams(key, config, words, rows * (total // length)), total // length)


def settings(family: str, ticks: int) -> list[Setting]:
    """What is scored in a family; all but the horizons have `ticks` ticks."""
    if family == "recall":
        return [
            Setting(f"recall N={n}", family, _recall((n,), ticks), ticks, ticks) for n in BINDINGS if n * 5 // 4 < ticks
        ]
    if family == "surprise":
        return [Setting("surprise", family, _surprise(ticks, ticks), ticks, ticks)]
    rates = [Setting(f"events {r:.0%}", family, _events((r,), ticks, ticks), ticks, ticks, r) for r in EVENT_RATES]
    longest = ticks * 16
    long = _events((0.1,), longest, longest)
    return rates + [Setting(f"horizon {h}", family, long, longest, h) for h in HORIZONS if h <= longest]


def curriculum(family: str, ticks: int) -> list[tuple[float, Callable[[Array, int], Streams]]]:
    """What a family is trained on: all its settings mixed, before them the easiest: short episodes, or few bindings."""
    if family == "recall":
        fitting = tuple(n for n in BINDINGS if n * 5 // 4 < min(128, ticks))
        return [(0.3, _recall(fitting[:1], ticks)), (1.0, _recall(fitting, ticks))]
    if family == "surprise":
        return [(0.4, _surprise(min(64, ticks), ticks)), (1.0, _surprise(ticks, ticks))]
    return [(0.4, _events(EVENT_RATES, min(64, ticks), ticks)), (1.0, _events(EVENT_RATES, ticks, ticks))]


def marks(schedule: str | None, streams: Streams, key: Array, rate: Float[Array, "B"]) -> Bool[Array, "T B"]:
    """The writes of an oracle gate: the events, or those of Arm.schedule, blind to them."""
    shape = streams.event.shape
    if schedule == "always":
        return jnp.ones(shape, bool)
    if schedule == "never":
        return jnp.zeros(shape, bool)
    if schedule == "random":
        return jax.random.uniform(key, shape) < rate
    if schedule == "periodic":
        tick = jnp.arange(shape[0])[:, None]
        return jnp.floor((tick + 1) * rate) > jnp.floor(tick * rate)
    return streams.event


def batch_of(schedule: str | None, streams: Streams, key: Array) -> Batch:
    """A training batch; random and periodic writing are given as many writes as each row has events."""
    rate = jnp.mean(streams.event.astype(jnp.float32), axis=0)
    return Batch(
        streams.z,
        streams.reset,
        Targets(streams.query.astype(jnp.float32), answer=streams.answer),
        marks(schedule, streams, key, rate),
    )
