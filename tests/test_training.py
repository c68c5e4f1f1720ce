"""Training: a run depends on its key alone, learns, and holds the write rate that was asked for."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlamem.memory.designs.aura import AuraConfig, AuraMemory
from vlamem.memory.head import HeadConfig
from vlamem.memory.protocol import Memory, Params, scan
from vlamem.memory.train.loop import OPTIMIZERS, TrainConfig, hold_rate, pace, standardised, train
from vlamem.memory.train.losses import Batch, Targets
from vlamem.sim.suites.synthetic import EventConfig, event_streams, key_of, vocabulary

WORDS = vocabulary(0, keys=4, values=4, size=24)
CONFIG = EventConfig(ticks=32, rates=(0.15,), noise=0.03)


def draw(key: jax.Array, rows: int = 16) -> Batch:
    streams = event_streams(key, CONFIG, WORDS, rows)
    targets = Targets(streams.query.astype(jnp.float32), answer=streams.answer)
    return Batch(streams.z, streams.reset, targets, streams.event)


def aura(gate: str) -> AuraMemory:
    return AuraMemory(AuraConfig(24, HeadConfig(answer=4, hidden=16), gate, key_size=8, value_size=8, gate_hidden=16))


def rate_of(memory: Memory, params: Params, batch: Batch) -> float:
    rows = batch.zs.shape[1]
    _, out = jax.jit(lambda p: scan(memory, p, memory.init(rows), batch.zs, batch.resets, batch.events))(params)
    return float(out.wrote.mean())


def first(tree: Params) -> Params:
    return jax.tree.map(lambda x: x[0], tree)


ASKED = (0.05, 0.12, 0.3)
"""Writes per tick: a third of what the events ask for, nearly that, and twice it."""


@pytest.fixture(scope="module")
def held():
    def run(rate: float):
        config = TrainConfig(updates=600, learning_rate=1e-2, rate=rate, carry=0.0)
        return train(aura("learned"), config, [(1.0, draw)], key_of(0, "budget")[None])

    return {rate: run(rate) for rate in ASKED}


def test_a_memory_learns_to_answer(held):
    error = held[0.3][1].action_error[:, 0]
    assert float(error[-20:].mean()) < 0.1 * float(error[:20].mean())


@pytest.mark.parametrize("rate", ASKED)
def test_the_multiplier_alone_holds_the_asked_rate_within_a_tenth_on_held_out_streams(held, rate):
    fresh = draw(key_of(1, "held out"), rows=512)
    assert rate_of(aura("learned"), first(held[rate][0].params), fresh) == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("rate", ASKED)
def test_a_threshold_moved_to_a_rate_holds_it_within_a_tenth_on_held_out_streams(held, rate):
    memory = aura("learned")
    params = hold_rate(memory, first(held[0.12][0].params), draw(key_of(2, "calibration"), rows=512), rate)
    assert rate_of(memory, params, draw(key_of(3, "held out"), rows=512)) == pytest.approx(rate, rel=0.1)


def test_the_noise_on_decisions_ends_only_where_a_rate_is_asked():
    for rate, noises in ((None, [1, 1, 1]), (0.2, [1, 0.5, 0])):
        config = TrainConfig(updates=100, rate=rate, noise_anneal=(0.6, 0.8))
        assert [float(pace(config, i).noise) for i in (59, 70, 81)] == pytest.approx(noises, abs=1e-5)


def test_gates_without_a_threshold_cannot_be_held():
    memory = aura("always")
    with pytest.raises(ValueError, match="no threshold to move"):
        hold_rate(memory, memory.init_params(jax.random.key(0)), draw(jax.random.key(1)), 0.1)
    with pytest.raises(ValueError, match="no threshold to move"):
        train(memory, TrainConfig(updates=1, rate=0.1), [(1.0, draw)], key_of(0, "o")[None])


@pytest.fixture(scope="module")
def short():
    return TrainConfig(updates=3)


def test_a_run_does_not_depend_on_the_runs_beside_it(short):
    keys = jnp.stack([key_of(seed, "run") for seed in range(2)])
    both, _ = train(aura("learned"), short, [(1.0, draw)], keys)
    alone, _ = train(aura("learned"), short, [(1.0, draw)], keys[1:])
    for x, y in zip(jax.tree.leaves(both.params), jax.tree.leaves(alone.params), strict=True):
        assert jnp.allclose(x[1], y[0], atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_changes_what_is_learned_and_not_what_is_measured(name):
    memory = aura("learned")
    trained, _ = train(memory, TrainConfig(updates=2, optimizer=name), [(1.0, draw)], key_of(0, "o")[None])
    params, none = first(trained.params), memory.init_params(jax.random.key(0))
    assert jnp.isfinite(params.Wk).all()
    assert params.Wk.shape == none.Wk.shape
    seen = standardised(params, draw(jax.random.key(5)).zs)
    assert jnp.allclose(params.scale, seen.scale, rtol=0.3), "mean and scale stay as measured"


def test_the_write_cost_rises_between_the_shares_of_its_ramp():
    config = TrainConfig(updates=100, write_cost=2.0, ramp=(0.2, 0.6))
    costs = [float(pace(config, i).cost) for i in (0, 20, 40, 60, 99)]
    assert costs == pytest.approx([0.1, 0.1, 1.0, 2.0, 2.0], rel=1e-5)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_budget_is_taken_between_0_and_1_and_refused_by_name_elsewhere(rate):
    if 0 < rate <= 1:
        assert TrainConfig(rate=rate).rate == rate
        assert AuraConfig(16, gate="random", rate=rate).rate == rate
    else:
        for make in (TrainConfig, lambda rate: AuraConfig(16, gate="random", rate=rate)):
            with pytest.raises(ValueError, match=r"outside \(0, 1\]"):
                make(rate=rate)


def test_unknown_optimizers_and_signals_are_named():
    with pytest.raises(ValueError, match="'sgdd' is not one of adamw, muon, adafactor"):
        TrainConfig(optimizer="sgdd")
    with pytest.raises(ValueError, match="signal 'x' is not one of"):
        TrainConfig(signal="x")
