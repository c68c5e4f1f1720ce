"""Fine-tunes a gate on task success: group-relative policy gradient (Shao et al. 2024) over its decisions to write.

A group is several episodes from one initial state and one memory state, with one noise of the policy: they differ by
the gate's drawn decisions alone, so the group's mean return is the baseline of each. With the decisions recorded, so
are the states that they led to; the gate's log-probability is then a sum over ticks of its logit for what it read, and
no gradient has to go back through time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vlamem.memory.protocol import Memory, Params, StepOut, flatten, scan
from vlamem.memory.train.checkpoint import Checkpoint, History


@dataclass(frozen=True)
class RlOptions:
    """How the gate is tuned on success.

    Attributes:
        updates: gradient updates.
        groups: initial states an update.
        group: episodes of each.
        learning_rate: of Adam.
        write_price: taken from the return for each write per tick.
        temperature: scale of the noise on the gate's logit. 1 draws a write with the gate's p; then one of a cue's many
            ticks is written by luck, and a gate that no longer would by itself, at p > 1/2, is not found out.
        seed: of initial states and decisions.
    """

    updates: int = 10
    groups: int = 4
    group: int = 6
    learning_rate: float = 3e-3
    write_price: float = 1.0
    temperature: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ValueError(f"group {self.group}: a return is compared with those of its group, which has 2 or more")
        if min(self.updates, self.groups) < 1 or self.temperature <= 0:
            raise ValueError(f"updates, groups and temperature must be positive, got {self}")


class Drawn(NamedTuple):
    """What a gate read, see Memory.gate_reading, and decided in one episode of T ticks."""

    reading: Any
    wrote: Bool[np.ndarray, "T"]


class Rollout(NamedTuple):
    """One episode: what the gate drew, and whether the task succeeded."""

    drawn: Drawn
    success: bool


class DrawingRow:
    """The recurrence of one row of a memory, whose learned gate draws its decisions; it keeps what the gate read."""

    def __init__(self, memory: Memory, params: Params, rng: np.random.Generator, temperature: float = 1.0) -> None:
        self._memory, self._params, self._rng, self._temperature = memory, params, rng, temperature
        self._step = _drawing_step(memory)
        self._kept: list[tuple[Any, bool]] = []
        self.feature_size, self.context_size = memory.feature_size, memory.head.context
        self.chunk_shape = memory.head.chunk
        self.reset()

    def reset(self, mask: Bool[np.ndarray, "1"] | None = None) -> None:
        """Back to the empty state, with nothing kept."""
        if mask is None or mask[0]:
            self._state: Any = self._memory.init(1)
            self._kept = []

    def step(self, features: Float[np.ndarray, "1 D"], rows: Int[np.ndarray, "1"]) -> StepOut:
        """One control step; a write is drawn."""
        noise = np.float32(self._temperature * self._rng.logistic())
        z = np.asarray(features, np.float32)
        self._state, *gave = self._step(self._params, self._state, z, noise)
        out: StepOut
        out, reading = jax.tree.map(np.asarray, gave)
        self._kept.append((jax.tree.map(lambda x: x[0], reading), bool(out.wrote[0])))
        return out

    def state(self, row: int = 0) -> dict[str, np.ndarray]:
        """A copy of the state by name."""
        return {name or "state": np.array(x[0]) for name, x in flatten(self._state).items()}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state that the group starts from."""
        leaves = [jnp.asarray(state[name])[None] for name in self.state()]
        self._state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)

    def drawn(self) -> Drawn:
        """What was read and decided since the reset."""
        readings, wrote = zip(*self._kept, strict=True)
        return Drawn(jax.tree.map(lambda *x: np.stack(x), *readings), np.array(wrote))


@cache
def _drawing_step(memory: Memory) -> Any:
    @jax.jit
    def step(params: Params, state: Any, z: Array, noise: Array) -> Any:
        after, out = scan(memory, params, state, z[None], jnp.zeros((1, 1), bool), None, noise.reshape(1, 1))
        out = jax.tree.map(lambda x: x[0], out)
        return after, out, memory.gate_reading(params, state, z, out)

    return step


@cache
def _gradient(memory: Memory, temperature: float) -> Any:
    """Of the weighted log-probability of an episode's decisions, by the gate."""

    def gradient(gate: Any, params: Params, drawn: Drawn, weight: Array) -> Any:
        return jax.grad(lambda g: -jnp.sum(weight * log_probability(g, params, memory, drawn, temperature)))(gate)

    return jax.jit(gradient)


def advantages(returns: Float[np.ndarray, "G"]) -> Float[np.ndarray, "G"]:
    """Returns less their group's mean; zeros where the group's returns are alike.

    Not over their standard deviation (Liu et al. 2025): a group that succeeds throughout differs by the price of a few
    writes, which would then weigh as much as success does in another.
    """
    return np.zeros_like(returns) if returns.std() < 1e-6 else returns - returns.mean()


def log_probability(
    gate: Any, params: Params, memory: Memory, drawn: Drawn, temperature: float = 1.0
) -> Float[Array, "T"]:
    """log-probability of each recorded decision under `gate`."""
    reading = jax.tree.map(jnp.asarray, drawn.reading)
    logit = memory.gate_logit(params._replace(gate=gate), reading) / temperature
    return jnp.where(jnp.asarray(drawn.wrote), jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))


def _padded(drawn: Drawn, advantage: float) -> tuple[Drawn, Float[np.ndarray, "T"]]:
    """An episode filled up to a multiple of 64 ticks, so that few lengths are compiled, and each tick's weight."""
    ticks = len(drawn.wrote)
    more = -ticks % 64
    weight = np.pad(np.full(ticks, advantage / ticks, np.float32), (0, more))
    return jax.tree.map(lambda x: np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)), drawn), weight


class Step(NamedTuple):
    """One update: share of episodes that succeeded, writes per tick, and how many groups had both outcomes."""

    success: float
    rate: float
    telling: int


Play = Callable[[int, int, Callable[[np.random.Generator], DrawingRow]], Sequence[Rollout]]
"""play(update, group, row) plays a group's episodes, each with a row made from a generator of its own."""


def tune_on_success(
    memory: Memory,
    params: Params,
    play: Play,
    how: RlOptions,
    progress: Callable[[Step], None] = lambda step: None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Params, list[Step]]:
    """`params` with a gate that writes where writing led to success; everything but the gate stays.

    With a `checkpoint` every update is kept, and a killed run goes on after the last; `progress` is called for
    those that were done before, too. Raises ValueError for a gate without parameters, or when the checkpoint is
    of another run.
    """
    if memory.gate_signal is None:
        raise ValueError(f"{memory} has no gate with something to learn: only learned gates are tuned on success")
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(how.learning_rate))
    gate: Any = jax.tree.map(jnp.asarray, params.gate)
    state: Any = optimizer.init(gate)
    done, spent = 0, 0.0
    history: History = []
    if checkpoint is not None:
        done, spent, history, (gate, state) = checkpoint.restore((gate, state))
    steps, began = [Step(h["success"], h["rate"], int(h["telling"])) for h in history], time.perf_counter()
    for step in steps:
        progress(step)

    gradient = _gradient(memory, how.temperature)
    for update in range(done, how.updates):
        grads = jax.tree.map(jnp.zeros_like, gate)
        played: list[Rollout] = []
        telling = 0
        for group in range(how.groups):
            now = params._replace(gate=gate)

            def row(rng: np.random.Generator, now: Params = now) -> DrawingRow:
                return DrawingRow(memory, now, rng, how.temperature)

            rollouts = play(update, group, row)
            returns = np.array([r.success - how.write_price * r.drawn.wrote.mean() for r in rollouts])
            gained = advantages(returns)
            telling += bool(gained.any())
            for r, advantage in zip(rollouts, gained, strict=True):
                if advantage:
                    more = gradient(gate, params, *_padded(r.drawn, advantage))
                    grads = jax.tree.map(lambda a, b: a + b / (how.groups * how.group), grads, more)
            played += rollouts
        moves, state = optimizer.update(grads, state)
        gate = optax.apply_updates(gate, moves)
        rate = float(np.mean([r.drawn.wrote.mean() for r in played]))
        steps.append(Step(float(np.mean([r.success for r in played])), rate, telling))
        if checkpoint is not None:
            seconds = spent + time.perf_counter() - began
            checkpoint.save((gate, state), update + 1, seconds, [s._asdict() for s in steps])
        progress(steps[-1])
    return params._replace(gate=gate), steps
