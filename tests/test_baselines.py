"""Baselines: conformance of each, their bytes, and what makes each of them what it is."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from vlamem.memory.designs import design
from vlamem.memory.head import HeadConfig
from vlamem.memory.protocol import scan, state_bytes, step_by_step
from vlamem.testing import check_memory

HEAD = HeadConfig(answer=4)
pytestmark = pytest.mark.usefixtures("compiled_quickly")
NAMES = ("gru", "linear_attention", "slots", "fifo", "kv_window", "first_and_window", "kv_growing")
MEMORIES = {name: design(name).make(16, HEAD, **({"entries": 32} if name == "kv_growing" else {})) for name in NAMES}


@pytest.mark.parametrize("name", MEMORIES)
def test_every_baseline_conforms(name):
    check_memory(MEMORIES[name])


@pytest.mark.parametrize(
    ("name", "size"), [("gru", 4224), ("linear_attention", 4224), ("slots", 4224), ("fifo", 4128), ("kv_window", 4112)]
)
def test_fixed_size_baselines_take_the_bytes_of_aura_memory(name, size):
    assert state_bytes(MEMORIES[name].init(3), 3) == size


def test_a_growing_cache_takes_bytes_with_its_horizon():
    sizes = [state_bytes(design("kv_growing").make(16, HEAD, entries=h).init(1), 1) for h in (100, 200)]
    assert sizes[1] == 2 * sizes[0] == 200 * 257


@pytest.mark.parametrize("name", ["fifo", "kv_window", "first_and_window", "kv_growing"])
def test_attention_over_all_ticks_at_once_equals_tick_by_tick(name):
    memory = MEMORIES[name]
    params = memory.init_params(jax.random.key(0))
    zs = jax.random.normal(jax.random.key(1), (40, 3, 16)).at[7, 1, 0].set(jnp.nan)
    resets = jnp.zeros((40, 3), bool).at[11, 0].set(True).at[30, 2].set(True)
    runs = (jax.jit(partial(run, memory)) for run in (scan, step_by_step))
    (state, out), (state_steps, steps) = (run(params, memory.init(3), zs, resets) for run in runs)
    assert jnp.allclose(out.answer, steps.answer, atol=1e-5)
    assert jnp.array_equal(state.filled, state_steps.filled)
    assert jnp.allclose(state.kept, state_steps.kept, atol=1e-6)


def test_a_window_forgets_what_lies_further_back_and_a_growing_cache_does_not():
    zs = jax.random.normal(jax.random.key(2), (30, 1, 16))
    changed = zs.at[3].add(1.0)
    moved = {}
    for name in ("kv_window", "kv_growing"):
        memory = MEMORIES[name]
        params = memory.init_params(jax.random.key(0))
        run = jax.jit(partial(scan, memory))
        answers = [run(params, memory.init(1), x, jnp.zeros((30, 1), bool))[1].answer[-1] for x in (zs, changed)]
        moved[name] = float(jnp.abs(answers[0] - answers[1]).max())
    assert moved["kv_window"] == 0.0
    assert moved["kv_growing"] > 0.0


def test_slots_overwrite_the_slot_of_a_known_key_and_else_the_least_recently_used():
    memory = MEMORIES["slots"]
    params = memory.init_params(jax.random.key(0))._replace(q=jnp.zeros((16, 32)))
    keys = jax.random.normal(jax.random.key(3), (17, 1, 16))
    state, no, step = memory.init(1), jnp.zeros(1, bool), jax.jit(memory.step)
    for z in keys[:16]:
        state, _ = step(params, state, z, no)
    assert float(state.filled.sum()) == 16
    again, _ = step(params, state, keys[5], no)
    assert jnp.allclose(again.keys, state.keys, atol=1e-6), "a known key takes no new slot"
    replaced, _ = step(params, again, keys[16], no)
    changed = jnp.abs(replaced.keys - again.keys).max(-1)[0] > 1e-3
    assert int(changed.sum()) == 1
    oldest = jnp.argmax(again.idle[0])
    assert bool(changed[oldest])
    assert not bool(jnp.argmax(again.idle[0]) == jnp.argmin(again.idle[0]))
