"""Teaches a memory through a frozen policy's own imitation loss, from demonstrations without an answer.

The memory, its gate and its head run in JAX over whole episodes; what is proposed at some ticks goes to a `Loss`, which
gives the policy's loss and its gradient by the proposal, and that comes back as the cotangent.

Two things keep the memory from reading the answer off the demonstrator's moving hand: the loss is asked for mostly at
moments of choice, where the policy's own samples disagree since nothing it sees tells what to do, and the head is given
no z. Whether they did is measured: a memory that remembers is of no use with another episode's state.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vlamem.core.seeding import integer_seed, stream
from vlamem.memory.protocol import Memory, Params, scan
from vlamem.memory.train.checkpoint import Checkpoint
from vlamem.memory.train.demonstrations import DemonstrationData, Loss, loss_units
from vlamem.memory.train.fit import Patience
from vlamem.memory.train.loop import TrainConfig, Training, begin, make_optimizer, pace, risen
from vlamem.memory.train.losses import DECIDED, charge
from vlamem.memory.train.swap import compare
from vlamem.memory.train.teach_batches import BareLoss, Batches, followed
from vlamem.memory.train.teach_options import TeachOptions

__all__ = ["Progress", "Taught", "TeachOptions", "teach"]

Progress = Callable[[int, dict[str, float]], None]
_CHECKPOINT_SECONDS = 60.0
_UNSURE = 0.05
"""Gain, as a share of the bare policy's loss, that the noise of a few batches shows as well."""
_SENTENCE = 0.1
"""Least spread of an entry of a sentence's vector that it is standardised by, in units of the vectors' own."""


@dataclass(frozen=True)
class Taught:
    """A memory that was taught.

    Attributes:
        params: as the memory takes them, of the look with the lowest loss after the write cost had fully come; the
            confidence is not fitted yet.
        history: a dict a look: what was trained on, and of each task the loss with its own state and with another
            episode's, in units of the bare policy's.
        updates, seconds: done and spent, over all calls.
    """

    params: Params
    history: list[dict[str, float]]
    updates: int
    seconds: float


class _Batch(NamedTuple):
    """What an update's forward pass takes.

    Attributes:
        zs, inside: see `Episodes`.
        at: [P, B], ticks of the moments.
        cost: [B], of writing at every tick.
    """

    zs: Any
    inside: Any
    at: Any
    cost: Any


def without_z(params: Params, size: int) -> Params:
    """`params` whose head is blind to z, the first `size` entries of the feature: scenes are few, and it would learn
    their answers by heart, or read them off the hand."""
    return params._replace(head=params.head._replace(z=params.head.z.at[:size].set(0.0)))


def teach(
    memory: Memory,
    data: DemonstrationData,
    loss: Loss,
    how: TeachOptions,
    folder: Path,
    progress: Progress = lambda i, last: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Taught:
    """Trains `memory` on `data`; `folder` takes checkpoints, and a killed run goes on from the last.

    Raises ValueError when `folder` holds a run of other options or data, or the memory proposes another context.
    """
    if memory.head.context != data.meta.context_size:
        raise ValueError(
            f"the head proposes contexts of {memory.head.context}, the policy takes {data.meta.context_size}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    config, run = how.train, Checkpoint(folder, _marks(memory, data, how))
    bare = BareLoss(data, loss, how.seed)
    fresh = _fresh(memory, data, how)
    done, seconds, history, kept = run.restore((fresh, jnp.zeros(len(data.tasks)), fresh.params, fresh.params))
    training, gain, averaged, best = kept
    gain = np.array(gain)
    fixed = replace(config, updates=1, learning_rate=1.0, write_cost=0.0, ramp=(0.0, 1.0))  # what the pace says instead
    forward, back = _compiled(memory, fixed, data.meta.feature_size, how.write_dropout)
    patience = Patience(config)
    for look in history:
        patience.see(look)
    shares = _shares(data, history, how.catch_up)
    began = saved = clock()
    with Batches(data, bare, how) as batches:
        while done < config.updates and patience.waited < how.patience:
            drawn = batches.at(done, shares)
            speed = pace(config, done)
            # nothing at all before something is gained: the optimizer makes whole steps of the smallest gradient
            least = how.floor if done >= config.ramp[1] * config.updates else 0.0
            owed = float(speed.cost) * np.maximum(gain - _UNSURE, least)[drawn.task]
            batch = _Batch(drawn.zs, drawn.inside, drawn.ticks, owed.astype(np.float32))
            key = jax.random.key(integer_seed(how.seed, "teach", "update", done))
            (proposed, _), pull, rate = forward(
                training.params, batch, key, 1.0 - risen(config.noise_anneal, done / config.updates)
            )
            # the moments lie row after row, what is proposed lies tick after tick
            residual = np.asarray(proposed).swapaxes(0, 1).reshape(-1, proposed.shape[-1])
            error, gradient = loss(drawn.moments, residual, integer_seed(how.seed, "teach", "noise", done))
            unit = bare.units[drawn.task].repeat(how.moments)
            scaled = (gradient / unit[:, None] / len(gradient)).reshape(how.rows, how.moments, -1).swapaxes(0, 1)
            training = back(training, pull, scaled.astype(np.float32), speed)
            share = min(how.average, done / (done + 10))
            averaged = _toward(averaged, training.params, 1 - share)
            gain = followed(gain, drawn, error)
            done += 1
            last = {"loss": float((error / unit).mean()), "rate": float(rate)}
            last |= {f"gain.{t}": float(g) for t, g in zip(data.tasks, gain, strict=True)}
            if done % how.look_every == 0 or done == config.updates:
                last |= _look(memory, averaged, data, loss)
                history.append({"update": float(done), **last})
                shares = _shares(data, history, how.catch_up)
                patience.see(history[-1])
                if patience.waited == 0:
                    best = averaged
            now = clock()
            if done == config.updates or now - saved >= _CHECKPOINT_SECONDS:
                run.save((training, jnp.asarray(gain), averaged, best), done, seconds + now - began, history)
                saved = now
            progress(done, last)
    return Taught(best, history, done, seconds + clock() - began)


def _shares(data: DemonstrationData, history: list[dict[str, float]], catch_up: float) -> dict[str, float]:
    """How often a demonstration of each task is drawn: up to 1 + `catch_up` times as often as one without a choice.

    By what another episode's state costs in the last look, in units of the bare policy's loss: nothing where nothing is
    remembered yet, more than 1 where the memory is right and another's is wrong.
    """
    last = history[-1] if history else {}
    shares = {}
    for task in data.tasks:
        kept = max(0.0, last.get(f"swapped.{task}", 0.0) - last.get(f"own.{task}", 0.0))
        shares[task] = 1.0 + catch_up * data.choice[task] / (1.0 + (2.0 * kept) ** 2)
    return shares


@jax.jit
def _toward(average: Params, params: Params, share: float) -> Params:
    return jax.tree.map(lambda a, p: a + share * (p - a), average, params)


def _look(memory: Memory, params: Params, data: DemonstrationData, loss: Loss) -> dict[str, float]:
    """Loss at each calibration episode's greatest moment of choice, in units of the bare policy's.

    The error is the mean over tasks, skills among them: what is lost there counts as what is gained elsewhere.
    """
    looks = {task: compare(memory, params, data, data.calibration[task], loss, most=1) for task in data.tasks}
    bare = np.array([float(look.bare.mean()) for look in looks.values()])
    found: dict[str, float] = {}
    for (task, look), alone, unit in zip(looks.items(), bare, loss_units(bare), strict=True):
        own, swapped = float(look.own.mean()), float(look.swapped.mean())
        found |= {f"own.{task}": own / unit, f"swapped.{task}": swapped / unit, f"bare.{task}": alone / unit}
        found |= {f"writes.{task}": float(look.writes.mean())}
    worse = [found[f"own.{task}"] - found[f"bare.{task}"] for task in data.tasks]
    return found | {"held_out_error": 1.0 + float(np.mean(worse))}


def _fresh(memory: Memory, data: DemonstrationData, how: TeachOptions) -> Training:
    """Parameters that propose nothing yet: the bare policy is where teaching starts."""
    drawn = data.sample(4 * how.rows, stream(how.seed, "teach", "standardise"))
    zs = jnp.asarray(data.episodes(drawn, [i % data.wordings for i in range(len(drawn))]).zs)
    training = begin(memory, how.train, zs, jax.random.key(integer_seed(how.seed, "teach", "init")))
    head, scale = training.params.head, training.params.scale
    # sentences are few: what hardly varies over those of training may vary in another wording
    most = 1.0 / (_SENTENCE * float(np.sqrt(np.mean(np.square(data.contexts)))) + 1e-6)
    size = data.meta.feature_size
    params = training.params._replace(
        head=head._replace(out=jnp.zeros_like(head.out), out_bias=jnp.zeros_like(head.out_bias)),
        scale=scale.at[size:].set(jnp.minimum(scale[size:], most)),
    )
    training = training._replace(params=without_z(params, size), state=())
    strong: Training = jax.tree.map(lambda x: jnp.asarray(np.array(x)), training)  # of no weak type
    return strong


@cache
def _compiled(
    memory: Memory, config: TrainConfig, size: int, dropout: float
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The forward pass, which gives proposals and their pull-back, and the update from a cotangent."""

    def proposed(params: Params, batch: _Batch, key: Array, noise: Array) -> tuple[tuple[Array, Array], Array]:
        rows = batch.zs.shape[1]
        resets = jnp.zeros(batch.zs.shape[:2], bool).at[0].set(True)
        learned = memory.gate_signal == "straight-through"
        force = None
        if learned:
            for_noise, for_dropout = jax.random.split(key)
            drawn = noise * jax.random.logistic(for_noise, resets.shape)
            force = jnp.where(jax.random.bernoulli(for_dropout, dropout, resets.shape), -DECIDED, drawn)
        _, out = scan(memory, params, memory.init(rows), batch.zs, resets, None, force)
        assert out.context is not None
        ticks = batch.inside.sum(0)
        paid = jnp.sum(jnp.where(batch.inside, charge(out.gate), 0.0), axis=0) / ticks
        rate = jnp.mean(jnp.sum(out.wrote & batch.inside, axis=0) / ticks)
        return (out.context[batch.at, jnp.arange(rows)], jnp.mean(batch.cost * paid)), rate

    def forward(params: Params, batch: _Batch, key: Array, noise: Array) -> Any:
        return jax.vjp(partial(proposed, batch=batch, key=key, noise=noise), params, has_aux=True)

    def back(training: Training, pull: Any, cotangent: Array, speed: Any) -> Training:
        (grads,) = pull((cotangent, jnp.ones(())))
        steps, optimizer = make_optimizer(config).update(grads, training.optimizer, training.params)
        params = optax.apply_updates(training.params, jax.tree.map(lambda s: speed.learning_rate * s, steps))
        params = memory.project(params, config.feedback)
        return training._replace(params=without_z(params, size), optimizer=optimizer)

    return jax.jit(forward), jax.jit(back)


def _marks(memory: Memory, data: DemonstrationData, how: TeachOptions) -> dict[str, Any]:
    episodes = [(e.task, e.episode, len(e.z)) for kept in data.training.values() for e in kept]
    recorded = hashlib.sha256(json.dumps(episodes).encode()).hexdigest()
    return {"memory": repr(memory), "how": asdict(how), "policy": asdict(data.meta.policy), "recorded": recorded}
