from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aura_cases import HEAD, SIZE, features, learned
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

from vlamem.memory.designs.aura import GATE_KINDS, AuraConfig, AuraMemory, AuraParams, AuraState, pallas
from vlamem.memory.designs.aura.gate import straight_through
from vlamem.memory.designs.aura.step import look_ahead
from vlamem.memory.protocol import scan, state_bytes, step_by_step


def _open(memory: AuraMemory, params: AuraParams) -> tuple[AuraMemory, AuraParams]:
    return AuraMemory(replace(memory.config, gate="always")), params._replace(gate={})


def test_the_state_is_4224_bytes_a_row_at_any_horizon_and_feature_size():
    for size in (16, 4096):
        memory = AuraMemory(AuraConfig(size))
        state = memory.init(2)
        assert state_bytes(state, 2) == 4224
    memory, params = learned()
    state = memory.init(3)
    for ticks in (1, 100):
        state, _ = scan(memory, params, state, features(ticks, 3), np.zeros((ticks, 3), bool))
        assert state_bytes(state, 3) == 4224


@pytest.mark.parametrize(("bound", "met"), [(None, False), (3.0, True), (1e3, False)])
def test_one_write_follows_the_equations(bound, met):
    memory, params = _open(*learned(bound=bound))
    z = features(1, 1)[0]
    state = AuraState(0.1 * jnp.ones((1, 32, 32)), 0.2 * jnp.ones((1, 32)), jnp.zeros((1, 0)))
    new, out = memory.step(params, state, z, np.zeros(1, bool))

    x = (z[0] - np.asarray(params.mean)) * np.asarray(params.scale)
    k, q = (x @ np.asarray(m) for m in (params.Wk, params.Wq))
    k, q = k / np.linalg.norm(k), q / np.linalg.norm(q)
    W, b = np.full((32, 32), 0.1), np.full(32, 0.2)
    v = x @ np.asarray(params.Wv) + (W @ q + b) @ np.asarray(params.Wvr)
    e = v - (W @ k + b)
    beta, gamma = (1 / (1 + np.exp(-float(x))) for x in (params.beta_logit, params.gamma_logit))
    W, b = W + beta * np.outer(e, k), b + gamma * e
    fits = min(1.0, (bound or np.inf) / np.linalg.norm(W))
    assert (fits < 1) == met
    np.testing.assert_allclose(new.W[0], fits * W, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new.b[0], fits * b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.surprise[0], np.log1p(e @ e), rtol=1e-5)
    r = np.asarray(new.W[0]) @ q + np.asarray(new.b[0])
    head = params.head
    hidden = np.maximum(x @ np.asarray(head.z) + r @ np.asarray(head.r) + np.asarray(head.bias), 0)
    y = hidden @ np.asarray(head.out) + np.asarray(head.out_bias)
    np.testing.assert_allclose(out.answer[0], y[-8:], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(out.confidence[0], 1 / (1 + np.exp(-y[0])), rtol=1e-4)


def test_a_tick_without_a_write_leaves_the_state_to_the_bit():
    memory, params = learned()
    zs = features(50, 1)
    state, shut = memory.init(1), 0
    for z in zs:
        new, out = memory.step(params, state, z, np.zeros(1, bool))
        if not out.wrote[0]:
            shut += 1
            np.testing.assert_array_equal(new.W, state.W)
            np.testing.assert_array_equal(new.b, state.b)
        else:
            assert np.any(new.W != state.W)
        state = new
    assert 5 < shut < 50


@pytest.mark.parametrize(("sees_last_read", "moves"), [(0.0, False), (0.5, True)])
def test_a_second_identical_event_changes_the_state_because_the_value_sees_the_last_read_out(sees_last_read, moves):
    memory, params = _open(*learned())
    exact = {"beta_logit": jnp.array(40.0), "gamma_logit": jnp.array(-40.0), "Wq": params.Wk}
    params = params._replace(**exact, Wvr=sees_last_read * jnp.eye(32))
    z = features(1, 1)[0]
    once, _ = memory.step(params, memory.init(1), z, np.zeros(1, bool))
    twice, _ = memory.step(params, once, z, np.zeros(1, bool))
    change = float(jnp.linalg.norm(twice.W - once.W) / jnp.linalg.norm(once.W))
    assert (change > 0.4) == moves
    assert moves or change < 1e-5


@pytest.mark.parametrize(("kind", "bound"), [*((kind, None) for kind in GATE_KINDS), ("always", 3.0), ("learned", 3.0)])
def test_scan_gives_what_steps_give_with_resets_inside(kind, bound):
    memory = AuraMemory(AuraConfig(SIZE, HEAD, gate=kind, rate=0.3, bound=bound))
    params = memory.init_params(jax.random.key(0))
    ticks, rows = 21, 3
    zs = features(ticks, rows)
    draw = jax.random.uniform(jax.random.key(5), (2, ticks, rows))
    resets, events = draw[0] < 0.1, draw[1] < 0.3
    quick = jax.jit(lambda *a: scan(memory, *a))(params, memory.init(rows), zs, resets, events)
    plain = jax.jit(lambda *a: step_by_step(memory, *a))(params, memory.init(rows), zs, resets, events)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), quick, plain)


@pytest.mark.parametrize("bound", [None, 2.0])
def test_gradients_of_scan_equal_finite_differences(bound):
    with jax.enable_x64(True):
        memory = AuraMemory(AuraConfig(16, HEAD, gate="always", bound=bound))
        params = jax.tree.map(lambda x: x.astype(jnp.float64), memory.init_params(jax.random.key(0)))
        zs = jax.random.normal(jax.random.key(1), (19, 2, 16), jnp.float64)
        resets = jnp.zeros((19, 2), bool).at[11, 0].set(True)
        state = jax.tree.map(lambda x: x.astype(jnp.float64), memory.init(2))

        after, _ = scan(memory, params, state, zs, resets)
        assert bound is None or float(jnp.linalg.norm(after.W[1])) > 0.99 * bound

        def loss(p: AuraParams) -> jax.Array:
            _, out = scan(memory, p, state, zs, resets)
            return jnp.sum(jnp.sin(out.answer)) + jnp.sum(out.confidence)

        gradient, value = jax.grad(loss)(params), jax.jit(loss)
        for name in ("Wk", "Wq", "Wv", "Wvr", "beta_logit", "gamma_logit"):
            direction = jax.random.normal(jax.random.key(7), getattr(params, name).shape, jnp.float64)
            ahead = params._replace(**{name: getattr(params, name) + 1e-6 * direction})
            behind = params._replace(**{name: getattr(params, name) - 1e-6 * direction})
            measured = float(value(ahead) - value(behind)) / 2e-6
            np.testing.assert_allclose(float(jnp.sum(getattr(gradient, name) * direction)), measured, rtol=1e-4)


def test_straight_through_is_exactly_hard_forward_and_sigmoid_backward():
    logits = jnp.linspace(-5, 5, 101)
    assert set(np.unique(straight_through(logits))) == {0.0, 1.0}
    slope = jax.vmap(jax.grad(lambda x: straight_through(x[None])[0]))(logits)
    p = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(slope, p * (1 - p), rtol=1e-5)


def test_the_action_error_reaches_the_learned_gate_and_no_control():
    for kind, reached in (("learned", True), ("counterfactual", False), ("reconstruction", False)):
        memory = AuraMemory(AuraConfig(SIZE, HEAD, gate=kind))
        params = memory.init_params(jax.random.key(0))

        def loss(p: AuraParams, memory: AuraMemory = memory) -> jax.Array:
            _, out = scan(memory, p, memory.init(2), features(12, 2), jnp.zeros((12, 2), bool))
            return jnp.sum(out.answer**2)

        gradient = jax.tree.leaves(jax.grad(loss)(params).gate)
        assert any(bool(jnp.any(g != 0)) for g in gradient) == reached


@pytest.mark.parametrize(("kind", "low", "high"), [("always", 1, 1), ("never", 0, 0), ("random", 0.14, 0.26)])
def test_control_gates_write_at_their_rate(kind, low, high):
    memory = AuraMemory(AuraConfig(SIZE, HEAD, gate=kind, rate=0.2))
    params = memory.init_params(jax.random.key(0))
    _, out = scan(memory, params, memory.init(5), features(100, 5), jnp.zeros((100, 5), bool))
    assert low <= float(out.wrote.mean()) <= high


def test_the_periodic_gate_writes_at_equal_distances_from_each_reset():
    memory = AuraMemory(AuraConfig(SIZE, HEAD, gate="periodic", rate=0.25))
    params = memory.init_params(jax.random.key(0))
    resets = jnp.zeros((16, 1), bool).at[6].set(True)
    _, out = scan(memory, params, memory.init(1), features(16, 1), resets)
    assert np.flatnonzero(out.wrote[:, 0]).tolist() == [3, 9, 13]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reset_clears_a_state_that_is_not_finite_in_every_form(bad):
    memory, params = learned()
    zs, resets = features(20, 2), np.zeros((20, 2), bool)
    resets[0] = True
    spoilt = jax.tree.map(lambda x: jnp.full_like(x, bad), memory.init(2))
    wanted = step_by_step(memory, params, memory.init(2), zs, resets)
    for found in (scan(memory, params, spoilt, zs, resets), step_by_step(memory, params, spoilt, zs, resets)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)
    fused = pallas.step(params, state=spoilt, z=zs[0], reset=resets[0], config=memory.config, interpret=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fused))


def test_the_oracle_gate_writes_on_events_alone_and_asks_for_them():
    memory = AuraMemory(AuraConfig(SIZE, HEAD, gate="oracle"))
    params = memory.init_params(jax.random.key(0))
    events = jax.random.uniform(jax.random.key(3), (20, 2)) < 0.3
    _, out = scan(memory, params, memory.init(2), features(20, 2), jnp.zeros((20, 2), bool), events)
    np.testing.assert_array_equal(out.wrote, events)
    with pytest.raises(ValueError, match="event marks"):
        memory.step(params, memory.init(2), features(1, 2)[0], jnp.zeros(2, bool))


def test_the_novelty_gate_writes_what_it_has_not_just_written():
    memory = AuraMemory(AuraConfig(SIZE, HEAD, gate="novelty"))
    params = memory.init_params(jax.random.key(0))
    one, other = features(2, 1)
    zs = np.stack([one, one, other, other, one])
    _, out = scan(memory, params, memory.init(1), zs, jnp.zeros((5, 1), bool))
    assert out.wrote[:, 0].tolist() == [True, False, True, False, True]


bad_rows = numpy_arrays(
    np.float32,
    (2, SIZE),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@settings(max_examples=60, deadline=None)
@given(bad_rows)
def test_no_feature_whatever_poisons_the_state(z):
    memory, params = learned()
    state, _ = jax.jit(memory.step)(params, memory.init(2), features(1, 2)[0], np.zeros(2, bool))
    new, out = jax.jit(memory.step)(params, state, z, np.zeros(2, bool))
    for x in jax.tree.leaves((new, out)):
        assert np.isfinite(x).all()
    for row in range(2):
        if not np.isfinite(z[row]).all():
            assert out.refused[row]
        if out.refused[row]:
            assert not out.wrote[row]
            assert out.confidence[row] == 0
            np.testing.assert_array_equal(new.W[row], state.W[row])
            np.testing.assert_array_equal(new.b[row], state.b[row])


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_a_rate_outside_0_to_1_is_an_error_that_names_it(rate):
    with pytest.raises(ValueError, match=f"rate {rate}"):
        AuraConfig(SIZE, HEAD, gate="random", rate=rate)


@pytest.mark.parametrize("bound", [-0.1, 0.0, np.nan])
def test_a_bound_that_is_not_positive_is_an_error_that_names_it(bound):
    with pytest.raises(ValueError, match=f"bound {bound}"):
        AuraConfig(SIZE, HEAD, bound=bound)


@pytest.mark.parametrize("size", [8, 8192])
def test_a_feature_size_out_of_range_is_an_error(size):
    with pytest.raises(ValueError, match=r"16\.\.4096"):
        AuraConfig(size)


def test_a_feature_of_another_size_is_an_error_that_names_both():
    memory, params = learned()
    with pytest.raises(ValueError, match=r"33 does not match this memory \(32\)"):
        memory.step(params, memory.init(1), np.zeros((1, 33)), np.zeros(1, bool))


def test_keys_and_queries_have_unit_length():
    memory, params = learned()
    x, _ = look_ahead(params, memory.config, features(4, 2))
    np.testing.assert_allclose(np.linalg.norm(x.k, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(x.q, axis=-1), 1, rtol=1e-5)


def test_under_a_bound_a_state_stays_where_it_grows_with_its_stream_without_one():
    lasting, varying = jax.random.normal(jax.random.key(2), (1, 1, SIZE)), features(4000, 4)
    sizes: dict[float | None, list[float]] = {None: [], 5.0: []}
    for bound, found in sizes.items():
        memory, params = _open(*learned(bound=bound))
        run = jax.jit(lambda state, zs, m=memory, p=params: scan(m, p, state, zs, jnp.zeros(zs.shape[:2], bool))[0])
        state = memory.init(4)
        for part in np.split(lasting + 0.1 * varying, 8):  # keys that hardly vary, as a robot's do
            state = run(state, part)
            found.append(float(jnp.linalg.norm(state.W, axis=(1, 2)).max()))
    assert sizes[None][-1] > 1.2 * sizes[None][0] > 5
    assert max(sizes[5.0]) <= 5 * (1 + 1e-5)
