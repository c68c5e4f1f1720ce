"""A conformance checker for memories, in the manner of gymnasium's check_env."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from vlamem.core.seeding import stream
from vlamem.memory.protocol import Memory, Params, State, StepOut, flatten, scan, state_bytes, step_by_step
from vlamem.testing.errors import ConformanceError, require

Step = Callable[[Params, State, np.ndarray, np.ndarray, np.ndarray], tuple[State, StepOut]]


def _equal(a: Any, b: Any, promise: str, tolerance: float = 0.0) -> None:
    """Two pytrees alike: the same bits at tolerance 0, else within `tolerance` of each array's largest entry."""
    others = flatten(b)
    for name, array in flatten(a).items():
        x, y = np.asarray(array), np.asarray(others[name])
        require(x.shape == y.shape and x.dtype == y.dtype, promise, f"{name} is {x.shape} and {y.shape}")
        if tolerance == 0.0 or x.dtype == np.bool_:
            require(np.array_equal(x, y, equal_nan=True), promise, f"{name} differs")
        else:
            off = float(np.abs(x - y).max(initial=0.0))
            require(off <= tolerance * max(1.0, float(np.abs(y).max(initial=0.0))), promise, f"{name} is off by {off}")


def _row(tree: Any, row: int) -> Any:
    return jax.tree.map(lambda x: x[row : row + 1], tree)


def _compiled(step: Any) -> Any:
    """`step` in one compiled call, its results in NumPy: each slice and comparison in JAX would compile anew."""
    jitted = jax.jit(step)
    return lambda *args: jax.tree.map(np.asarray, jitted(*args))


def _saved_and_restored(state: State) -> State:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_file({name: np.asarray(x, order="C") for name, x in flatten(state).items()}, path)
        arrays = load_file(path)
    names = list(flatten(state))
    return jax.tree.unflatten(jax.tree.structure(state), [arrays[name] for name in names])


def check_memory(
    memory: Memory,
    params: Params | None = None,
    *,
    ticks: int = 24,
    batch: int = 3,
    seed: int = 0,
    constant_bytes: bool = True,
    tolerance: float = 1e-5,
) -> None:
    """Checks that `memory` keeps every promise of `vlamem.memory.protocol.Memory`, on random features.

    The promises: the state keeps its shapes and bytes over the horizon; a reset row goes on as a new one does and the
    others are untouched; a batch gives what single rows give; the same input gives the same bits; a saved and restored
    state goes on alike; a feature row with NaN or infinity is refused, leaves the state as it was and poisons nothing;
    confidences are in [0, 1]; a feature of another size is a ValueError; `scan` gives what steps give, and opens and
    shuts a learned gate by force; what `to_config` describes is the same memory.

    Args:
        memory: what to check.
        params: its parameters; fresh ones when None.
        ticks: horizon of the check.
        batch: rows.
        seed: of features, event marks and fresh parameters.
        constant_bytes: False for a memory that is meant to grow.
        tolerance: relative, where two ways of computing may round differently.

    Raises ConformanceError naming the first promise that is broken.
    """
    if params is None:
        params = memory.init_params(jax.random.key(seed))
    draw = stream(seed, "check_memory")
    zs = draw.standard_normal((ticks, batch, memory.feature_size)).astype(np.float32)
    events = draw.random((ticks, batch)) < 0.3
    none = np.zeros(batch, bool)
    step: Step = _compiled(memory.step)

    state = jax.tree.map(np.asarray, memory.init(batch))
    states, outs = [state], []
    for t in range(ticks):
        state, out = step(params, state, zs[t], none, events[t])
        states.append(state)
        outs.append(out)
        _check_out(out, batch)
        require(not bool(out.refused.any()), "finite features are not refused", f"tick {t}")
    if constant_bytes:
        sizes = {state_bytes(s, batch) for s in states}
        require(len(sizes) == 1, "state bytes are constant over the horizon", str(sorted(sizes)))

    _check_determinism(memory, params, states, outs, zs, events)
    _check_reset(memory, step, params, states[-1], zs, events)
    _check_single_rows(memory, params, states, outs, zs, events, tolerance)
    _check_refusal(memory, step, params, states[-1], zs[0], events[0])
    _check_scan(memory, params, states, outs, zs, events, tolerance)
    _check_force(memory, params, zs, events)
    _check_config(memory)
    restored = _saved_and_restored(states[-1])
    _equal(
        step(params, restored, zs[0], none, events[0]),
        step(params, states[-1], zs[0], none, events[0]),
        "a restored state goes on as the saved one",
    )
    try:
        memory.step(params, memory.init(batch), zs[0][:, :-1], none, events[0])
    except ValueError:
        return
    raise ConformanceError("a feature of another size raises ValueError")


def _check_out(out: StepOut, batch: int) -> None:
    for name, x in flatten(out).items():
        require(x.shape[:1] == (batch,), "every answer has a row for each row", f"{name} is {x.shape}")
        require(bool(np.isfinite(x).all()), "answers are finite", name)
    for name in ("confidence", "gate"):
        x = getattr(out, name)
        require(bool(((x >= 0) & (x <= 1)).all()), f"{name} is in [0, 1]")
    require(bool((out.surprise >= 0).all()), "surprise is 0 or more")
    require(out.wrote.dtype == np.bool_ and out.refused.dtype == np.bool_, "wrote and refused are booleans")


def _check_determinism(
    memory: Memory, params: Params, states: list[State], outs: list[StepOut], zs: np.ndarray, events: np.ndarray
) -> None:
    traced_anew: Step = _compiled(memory.step)
    again = traced_anew(params, states[-2], zs[-1], np.zeros(zs.shape[1], bool), events[-1])
    _equal(again, (states[-1], outs[-1]), "the same input gives the same bits")


def _check_reset(memory: Memory, step: Step, params: Params, used: State, zs: np.ndarray, events: np.ndarray) -> None:
    """Row 0 is reset within the update, from a used state and from an empty one; nothing of the past may show."""
    batch = zs.shape[1]
    first = np.arange(batch) == 0
    after = step(params, used, zs[0], first, events[0])
    none = np.zeros(batch, bool)
    fresh = step(params, memory.init(batch), zs[0], none, events[0])
    untouched = step(params, used, zs[0], none, events[0])
    _equal(_row(after, 0), _row(fresh, 0), "a reset row goes on as a new one")
    for row in range(1, batch):
        _equal(_row(after, row), _row(untouched, row), "reset of one row leaves the others")


def _check_single_rows(
    memory: Memory,
    params: Params,
    states: list[State],
    outs: list[StepOut],
    zs: np.ndarray,
    events: np.ndarray,
    tolerance: float,
) -> None:
    step: Step = _compiled(memory.step)
    for row in range(zs.shape[1]):
        single = memory.init(1)
        for t in range(zs.shape[0]):
            at = slice(row, row + 1)
            single, out = step(params, single, zs[t, at], np.zeros(1, bool), events[t, at])
            _equal(out, _row(outs[t], row), f"a batch gives what single rows give (row {row}, tick {t})", tolerance)
        _equal(single, _row(states[-1], row), f"a batch leaves the state that single rows leave (row {row})", tolerance)


def _check_refusal(memory: Memory, step: Step, params: Params, used: State, z: np.ndarray, events: np.ndarray) -> None:
    batch = z.shape[0]
    none = np.zeros(batch, bool)
    clean_state, clean = step(params, used, z, none, events)
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = z.copy()
        spoilt[0, -1] = bad
        state, out = step(params, used, spoilt, none, events)
        _check_out(out, batch)
        require(bool(out.refused[0]) and not bool(out.refused[1:].any()), f"a row with {bad} is refused, alone")
        require(not bool(out.wrote[0]), f"a row with {bad} is not written")
        require(float(out.confidence[0]) == 0.0, f"a row with {bad} has confidence 0")
        _equal(_row(state, 0), _row(used, 0), f"a row with {bad} leaves its state as it was")
        for row in range(1, batch):
            _equal(_row((state, out), row), _row((clean_state, clean), row), f"{bad} in one row leaves the others")


def _check_scan(
    memory: Memory,
    params: Params,
    states: list[State],
    outs: list[StepOut],
    zs: np.ndarray,
    events: np.ndarray,
    tolerance: float,
) -> None:
    resets = np.zeros(zs.shape[:2], bool)
    runs = {"lax.scan over step": step_by_step} | ({"scan": scan} if hasattr(memory, "scan") else {})
    for name, run in runs.items():
        state, out = _compiled(partial(run, memory))(params, states[0], zs, resets, events)
        _equal(state, states[-1], f"{name} leaves the state that steps leave", tolerance)
        for t, expected in enumerate(outs):
            at = jax.tree.map(lambda x, t=t: x[t], out)
            _equal(at, expected, f"{name} gives what steps give (tick {t})", tolerance)


def _check_force(memory: Memory, params: Params, zs: np.ndarray, events: np.ndarray) -> None:
    if memory.gate_signal is None:
        return
    resets = np.zeros(zs.shape[:2], bool)
    forced = _compiled(partial(scan, memory))
    for force, decided in ((1e4, True), (-1e4, False)):
        by = np.full(zs.shape[:2], force, np.float32)
        _, out = forced(params, memory.init(zs.shape[1]), zs, resets, events, by)
        require(bool((out.wrote == decided).all()), f"a force of {force:g} on the logit decides every write")


def _check_config(memory: Memory) -> None:
    config = json.loads(json.dumps(memory.to_config()))
    again = type(memory).from_config(config)
    require(again == memory and hash(again) == hash(memory), "to_config describes the memory", f"{again}, not {memory}")
    require(config["feature_size"] == memory.feature_size, "to_config has the feature_size")
