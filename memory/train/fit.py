"""Trains a memory on recorded features of a frozen policy; JAX only, resumable.

Two stages: the memory learns what to propose and when to write (vlamem.memory.train.loop); then its confidence is
fitted to how often the proposal is right, on ticks of all kinds, so that it abstains where it knows nothing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import integer_seed, stream
from vlamem.memory.protocol import Memory, Params
from vlamem.memory.train.batches import TrainingSet
from vlamem.memory.train.checkpoint import Checkpoint
from vlamem.memory.train.compiled import HeadParts, Truth, calibration, looked, masked, state_sizes, updated
from vlamem.memory.train.loop import TrainConfig, Training, begin, pace
from vlamem.memory.train.losses import weighted_mean

_BOUND_EPISODES = 30
"""Most held-out episodes of a task that are looked at for the bound of the state."""
_BOUND_EVERY = 8
"""Ticks between two looks at the size of the state, which a write hardly moves."""
_CHECKPOINT_SECONDS = 60.0
"""Longest time between two checkpoints: on a slow machine a hundred updates are minutes."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a memory is trained on recorded features.

    Attributes:
        train: of the gradient updates; its `rate` is the budget of writes per tick.
        ticks, rows: of a batch.
        seed: of parameters and batches.
        validate_every: updates between two looks at held-out episodes.
        held_out: episodes a task for validation.
        patience: looks without a lower error, after the write cost has fully come, that end the training.
        checkpoint_every: updates between two checkpoints at most; a minute is not passed either.
        calibration: updates of the confidence.
    """

    train: TrainConfig = field(default_factory=lambda: TrainConfig(updates=800, rate=0.05))
    ticks: int = 192
    rows: int = 24
    seed: int = 0
    validate_every: int = 50
    held_out: int = 6
    patience: int = 6
    checkpoint_every: int = 100
    calibration: int = 200


class Score(NamedTuple):
    """What held-out episodes say.

    Attributes:
        error: of proposals in units of no memory's, over query ticks; over all that count where there are none.
        right: share of query ticks at which the oracle instruction is the nearest to what is proposed; nan without a
            context, and where there are no such ticks.
        rate: writes per tick.
        by_task: (right, rate) of each task.
    """

    error: float
    right: float
    rate: float
    by_task: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Trained:
    """A trained memory.

    Attributes:
        memory: what was trained, with the bound of its state, see `bounded`.
        params: in the policy's units.
        history: a dict a look: update, training error, rate, validation error and share right; what there was nothing
            to measure of is left out.
        score: at the end.
        updates: done.
        seconds: of training, over all calls.
        training_bytes: of parameters, optimizer and recurrent states, measured from the arrays.
    """

    memory: Memory
    params: Params
    history: list[dict[str, float]]
    score: Score
    updates: int
    seconds: float
    training_bytes: int


Progress = Callable[[int, dict[str, float]], None]


def train_memory(
    memory: Memory,
    data: TrainingSet,
    how: TrainingOptions,
    folder: Path,
    progress: Progress = lambda i, last: None,
    start: Params | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trained:
    """Trains `memory` on `data`; `folder` takes checkpoints, and a killed run goes on from the last.

    `start` are parameters to begin with, in training's units; fresh ones when None. `clock` [s] says when a checkpoint
    is due, and nothing of what is learned. Raises ValueError when `folder` holds a run of another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # "speak": the random streams have had this name since version 0.1, another would draw other batches
    config, key = how.train, jax.random.key(integer_seed(how.seed, "speak", "init"))
    first = data.batch(how.ticks, how.rows, stream(how.seed, "speak", "standardise"))
    # through NumPy, so that no array is of a weak type: the second update would compile again
    training = begin(memory, config, jnp.asarray(first.zs), key)
    training = training if start is None else training._replace(params=start)
    training = jax.tree.map(lambda x: jnp.asarray(np.array(x)), training)
    run = Checkpoint(folder, _marks(memory, how, data, start))
    done, seconds, noted, training = run.restore(training)
    history = [_measured(look) for look in noted]
    static = replace(config, updates=1, learning_rate=1.0, write_cost=0.0, carry=0.0, ramp=(0.0, 1.0))
    static = replace(static, rate=None if config.rate is None else 1.0)  # of all these the pace says
    step, parts = updated(memory, static), head_parts(memory, data)
    training = training._replace(params=masked(training.params, parts))
    held = _HeldOut(memory, data, how)
    patience, last = Patience(config), {"error": np.nan, "rate": np.nan}
    for look in history:
        patience.see(look)
    began = saved = clock()
    while done < config.updates and patience.waited < how.patience:
        batch = data.batch(how.ticks, how.rows, stream(how.seed, "speak", "batch", done))
        at = jax.random.key(integer_seed(how.seed, "speak", "update", done))
        training, losses = step(training, batch, at, pace(config, done), parts)
        done += 1
        last = {"error": float(losses.action_error), "rate": float(losses.rate)}
        if done % how.validate_every == 0 or done == config.updates:
            score = held.score(training.params)
            look = {"update": done, **last} | {
                "held_out_error": score.error, "right": score.right, "held_rate": score.rate
            }  # fmt: skip
            history.append(_measured(look))
            last |= history[-1]
            patience.see(last)
        now = clock()
        if done % how.checkpoint_every == 0 or done == config.updates or now - saved >= _CHECKPOINT_SECONDS:
            run.save(training, done, seconds + now - began, history)
            saved = now
        progress(done, last)
    size = training_bytes(training)
    memory = bounded(memory, training.params, data, how)
    held = _HeldOut(memory, data, how)
    params = calibrated(memory, training.params, data, how)
    score = held.score(params)
    seconds += clock() - began
    return Trained(memory, in_policy_units(memory, params, data), history, score, done, seconds, size)


def bounded(memory: Memory, params: Params, data: TrainingSet, how: TrainingOptions) -> Memory:
    """`memory` with the bound of its state: the largest size that held-out episodes take it to at any tick.

    A stream is kept in the range that was trained. AURA-Mem keeps a count in the size of W, which is largest in the
    middle of an episode, before what was counted is worked off: a bound that episodes meet there cuts it short. A
    design whose state needs no bound stays as it is.
    """
    if memory.state_size(memory.init(1)) is None:
        return memory

    length = -(-2 * how.ticks // _BOUND_EVERY) * _BOUND_EVERY
    largest = 0.0
    for task in data.tasks:
        rows = data.whole(task, _BOUND_EPISODES, length)
        if rows:
            zs = np.stack([row.feature for row in rows], axis=1)
            resets = np.zeros(zs.shape[:2], bool)
            resets[0] = True
            parts = (x.reshape(-1, _BOUND_EVERY, *x.shape[1:]) for x in (zs, resets))
            largest = max(largest, float(state_sizes(memory)(params, *parts).max()))
    bound = round(largest, 2)
    # nothing was held out, or nothing is written: whatever else is wrong with the weights, saving them will say
    return memory.with_bound(bound) if np.isfinite(bound) and bound > 0 else memory


def head_parts(memory: Memory, data: TrainingSet) -> HeadParts:
    """A head in two halves of its hidden layer: one for the context, one for the chunk.

    The context (and the confidence) is made of the read-out and of the instruction, not of z: a scene is seen at every
    tick and the scenes of a recording are few, so that a head that sees them learns their answers by heart and leaves
    the memory unused. The chunk, which has to go to a place, is made of everything.
    """
    head = memory.head
    z, out = np.ones((memory.feature_size, head.hidden), np.float32), np.zeros((head.hidden, head.outputs), np.float32)
    half = head.hidden if not head.chunk else head.hidden // 2 if head.context else 0  # that makes the context
    z[: data.meta.feature_size, :half] = 0
    size = head.chunk[0] * head.chunk[1] if head.chunk else 0
    out[half:, 1 : 1 + size] = 1
    out[:half, 1 + size :] = 1
    out[: half or None, 0] = 1
    return HeadParts(jnp.asarray(z), jnp.asarray(out))


def training_bytes(training: Training) -> int:
    """Bytes of parameters, as many of gradients, optimizer and recurrent states."""
    sizes = [sum(x.nbytes for x in jax.tree.leaves(part)) for part in training]
    return int(sizes[0] + sum(sizes))


def in_policy_units(memory: Memory, params: Params, data: TrainingSet, back: bool = False) -> Params:
    """`params` whose head proposes in the units of the policy: targets were divided by their scales in training.

    `back` makes those of training out of the policy's.
    """
    head, at = memory.head, 1
    factor: Float[np.ndarray, outputs] = np.ones(head.outputs, np.float32)
    if head.chunk:
        size = head.chunk[0] * head.chunk[1]
        factor[at : at + size], at = data.scales.chunk, at + size
    factor[at : at + head.context] = data.scales.context
    factor = (1 / factor).astype(np.float32) if back else factor
    made = params.head._replace(out=params.head.out * factor, out_bias=params.head.out_bias * factor)
    return params._replace(head=made)


def calibrated(memory: Memory, params: Params, data: TrainingSet, how: TrainingOptions) -> Params:
    """`params` whose confidence is how likely the proposal is to be needed and right; all else stays.

    Logistic regression on the head's hidden layer, the state carried from batch to batch where training carries it.
    Right means: of all instructions that the policy knows, what is proposed is nearest to the oracle instruction; for a
    memory without contexts, that it is needed.
    """
    bias = params.head.out_bias.at[0].set(0.0)
    params = params._replace(head=params.head._replace(out_bias=bias, out=params.head.out.at[:, 0].set(0.0)))
    optimizer, step = calibration(memory, how.calibration)
    canonical, scale = jnp.asarray(data.canonical), data.scales.context
    column: Any = (params.head.out[:, 0], params.head.out_bias[0])
    state, left = optimizer.init(column), memory.init(how.rows)
    for i in range(how.calibration):
        rows, resets = data.labelled(how.ticks, how.rows, stream(how.seed, "speak", "calibration", i))
        batch = data.targets(rows, resets)
        goal, query = (np.stack([getattr(r, name) for r in rows], axis=1) for name in ("goal", "query"))
        truth = Truth(goal, batch.zs[..., data.meta.feature_size :], canonical, scale)
        column, state, left = step(params, column, state, left, batch, truth, query)
    head = params.head._replace(
        out=params.head.out.at[:, 0].set(column[0]), out_bias=params.head.out_bias.at[0].set(column[1])
    )
    return params._replace(head=head)


def _measured(look: Mapping[str, float]) -> dict[str, float]:
    """What there was something to measure of: the others are nan."""
    return {name: x for name, x in look.items() if np.isfinite(x)}


class Patience:
    """How many looks at held-out episodes in a row, after the write cost has fully come, brought no lower error."""

    def __init__(self, config: TrainConfig) -> None:
        self._from, self._best, self.waited = config.ramp[1] * config.updates, np.inf, 0

    def see(self, look: Mapping[str, float]) -> None:
        """Takes one look: an entry of Trained.history. One at no episode, which has no error, says nothing."""
        error = look.get("held_out_error", np.nan)
        if look["update"] >= self._from and not np.isnan(error):
            self.waited = 0 if error < self._best - 1e-3 else self.waited + 1
            self._best = min(self._best, error)


def held_out_score(memory: Memory, params: Params, data: TrainingSet, how: TrainingOptions) -> Score:
    """What `how.held_out` held-out episodes of each task say of `params`, which propose in training's units."""
    return _HeldOut(memory, data, how).score(params)


class _HeldOut:
    """Whole held-out episodes of every task, run by one compiled function."""

    def __init__(self, memory: Memory, data: TrainingSet, how: TrainingOptions) -> None:
        self._ticks = np.array([e.ticks for t in data.tasks for _, e in data.held_out[t][: how.held_out]])
        length = int(self._ticks.max(initial=0))
        if not memory.carries_state_in_training:
            length = min(length, 2 * how.ticks)  # it has never gone on for longer; a cache is made for so many
        self._rows = {t: data.whole(t, how.held_out, length) for t in data.tasks if data.held_out[t]}
        self._all = [row for rows in self._rows.values() for row in rows]
        if not self._all:
            return
        resets = np.zeros((length, len(self._all)), bool)
        resets[0] = True
        self._batch = data.targets(self._all, resets)
        self._query = np.stack([r.query for r in self._all], axis=1)
        self._weight = jnp.asarray(self._query if self._query.any() else self._batch.targets.weight, jnp.float32)
        goal = np.stack([r.goal for r in self._all], axis=1)
        own = self._batch.zs[..., data.meta.feature_size :]
        self._truth = Truth(goal, own, data.canonical, data.scales.context)
        self._run = looked(memory)

    def score(self, params: Params) -> Score:
        """Error, share right and rate over the held-out episodes; nan when none was recorded."""
        if not self._all:
            return Score(np.nan, np.nan, np.nan, {})
        error, right, wrote = self._run(params, self._batch, self._truth)
        inside = np.arange(len(wrote))[:, None] < self._ticks
        by_task, at = {}, 0
        query, hit, written = self._query, np.asarray(right), np.asarray(wrote)
        for task, rows in self._rows.items():
            part = slice(at, at + len(rows))
            at += len(rows)
            share = float(hit[:, part][query[:, part] > 0].mean()) if query[:, part].any() else np.nan
            by_task[task] = (share, float(written[:, part][inside[:, part]].mean()))
        share = float(hit[query > 0].mean()) if query.any() else np.nan
        return Score(float(weighted_mean(error, self._weight)), share, float(written[inside].mean()), by_task)


def _marks(memory: Memory, how: TrainingOptions, data: TrainingSet, start: Params | None) -> dict[str, Any]:
    marks = {"memory": repr(memory), "how": asdict(how), "tasks": data.tasks, "targets": asdict(data.options)}
    recorded = [[asdict(e) for _, e in kept[t]] for kept in (data.training, data.held_out) for t in data.tasks]
    marks["recorded"] = hashlib.sha256(json.dumps(recorded).encode()).hexdigest()
    if start is not None:
        marks["start"] = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(start))).hexdigest()
    return marks | {"policy": asdict(data.meta.policy)}
