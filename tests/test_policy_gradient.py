"""memory/train/policy_gradient.py: group-relative policy gradient on a gate, with a player that needs no simulator."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlamem.core.seeding import stream
from vlamem.memory.designs.aura import AuraConfig, AuraMemory, HeadConfig
from vlamem.memory.train.checkpoint import Checkpoint
from vlamem.memory.train.policy_gradient import (
    DrawingRow,
    RlOptions,
    Rollout,
    Step,
    advantages,
    log_probability,
    tune_on_success,
)

MEMORY = AuraMemory(AuraConfig(16, HeadConfig(context=3, hidden=8)))


def params() -> Any:
    return MEMORY.init_params(jax.random.key(0))


def features(seed: int, cue: int) -> np.ndarray:
    """Twelve ticks; tick `cue` shows what is worth a write."""
    z = 0.2 * stream(0, "rl", seed).standard_normal((12, 16)).astype(np.float32)
    z[cue, :4] += 2.0
    return z


def decisions(row: DrawingRow, zs: np.ndarray) -> list[bool]:
    return [bool(row.step(z[None], np.array([0])).wrote[0]) for z in zs]


def play(update: int, group: int, row: Callable[[np.random.Generator], DrawingRow]) -> list[Rollout]:
    """An episode succeeds when the cue was written."""
    cue = 2 + (update + group) % 8
    rollouts = []
    for member in range(6):
        made = row(stream(1, update, group, member))
        wrote = decisions(made, features(update * 10 + group, cue))
        rollouts.append(Rollout(made.drawn(), wrote[cue]))
    return rollouts


def test_a_gate_learns_to_write_what_leads_to_success_and_little_else() -> None:
    how = RlOptions(updates=24, groups=4, group=6, learning_rate=5e-2, write_price=1.0, temperature=1.0)
    steps: list[Step] = []
    tuned, _ = tune_on_success(MEMORY, params(), play, how, steps.append)
    first, last = steps[:5], steps[-5:]
    assert np.mean([s.success for s in last]) > np.mean([s.success for s in first]) + 0.05
    assert np.mean([s.rate for s in last]) < np.mean([s.rate for s in first]) - 0.15
    for name in ("Wk", "Wv", "head"):
        for a, b in zip(jax.tree.leaves(getattr(tuned, name)), jax.tree.leaves(getattr(params(), name)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_killed_run_goes_on_after_its_last_update_to_the_same_gate(tmp_path: Path) -> None:
    how = RlOptions(updates=4, groups=2, group=6, learning_rate=5e-2)
    marks = {"how": asdict(how)}

    class KilledError(Exception):
        pass

    played: list[int] = []

    def dying(update: int, group: int, row: Callable[[np.random.Generator], DrawingRow]) -> list[Rollout]:
        played.append(update)
        if played == [0, 0, 1, 1, 2, 2]:
            raise KilledError
        return play(update, group, row)

    whole, steps = tune_on_success(MEMORY, params(), play, how)
    with pytest.raises(KilledError):
        tune_on_success(MEMORY, params(), dying, how, checkpoint=Checkpoint(tmp_path, marks))
    reported: list[Step] = []
    resumed, again = tune_on_success(MEMORY, params(), dying, how, reported.append, Checkpoint(tmp_path, marks))
    assert played == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3]
    assert reported == again == steps
    for name, array in whole.gate.items():
        np.testing.assert_allclose(array, resumed.gate[name], rtol=1e-6, atol=1e-7, err_msg=name)
    with pytest.raises(ValueError, match="holds another training"):
        tune_on_success(MEMORY, params(), play, how, checkpoint=Checkpoint(tmp_path, {"how": "another"}))


def test_recorded_decisions_have_the_probability_with_which_they_were_drawn() -> None:
    row = DrawingRow(MEMORY, params(), stream(0, "row"))
    wrote = decisions(row, features(3, 4))
    drawn = row.drawn()
    log_p = np.asarray(log_probability(params().gate, params(), MEMORY, drawn))
    assert (log_p <= 0).all()
    state, force = MEMORY.init(1), jnp.where(jnp.asarray(drawn.wrote), 1e4, -1e4)[:, None]
    z, s, _ = drawn.reading
    _, out = MEMORY.scan(params(), state, z[:, None], jnp.zeros((12, 1), bool), None, force)
    np.testing.assert_allclose(out.surprise[:, 0], s, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(wrote, drawn.wrote)


def test_a_group_whose_returns_are_alike_teaches_nothing() -> None:
    np.testing.assert_array_equal(advantages(np.ones(4)), np.zeros(4))
    found = advantages(np.array([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, [0.5, -0.5, -0.5, 0.5])


def test_the_price_of_a_write_weighs_no_more_where_all_succeed() -> None:
    rates = np.array([0.02, 0.03, 0.02, 0.05])
    all_succeed, one_fails = advantages(1 - 0.1 * rates), advantages(np.array([1, 1, 1, 0]) - 0.1 * rates)
    assert np.abs(all_succeed).max() < 0.01 * np.abs(one_fails).max()


def test_a_cold_gate_draws_what_it_would_decide() -> None:
    zs = features(3, 4)
    _, out = MEMORY.scan(params(), MEMORY.init(1), zs[:, None], jnp.zeros((12, 1), bool))
    cold = DrawingRow(MEMORY, params(), stream(0, "row"), temperature=1e-6)
    assert decisions(cold, zs) == np.asarray(out.wrote[:, 0]).tolist()
    assert RlOptions().temperature < 1


def test_a_gate_without_parameters_and_a_group_of_one_are_refused() -> None:
    always = AuraMemory(AuraConfig(16, HeadConfig(context=3), gate="always"))
    with pytest.raises(ValueError, match="no gate with something to learn"):
        tune_on_success(always, always.init_params(jax.random.key(0)), play, RlOptions())
    with pytest.raises(ValueError, match="2 or more"):
        RlOptions(group=1)
