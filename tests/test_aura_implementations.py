import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aura_cases import HEAD, SIZE, arrays, features, learned

from vlamem.memory.designs.aura import AuraConfig, AuraMemory, AuraTick, pallas
from vlamem.memory.designs.aura.dispatch import AuraRunner, implementation
from vlamem.memory.designs.aura.export import export_step, load_step
from vlamem.memory.protocol import params_of

FIELDS = ("confidence", "chunk", "context", "answer", "gate", "surprise")
TICKS, BOUND = 1000, 10.0
bounds = pytest.mark.parametrize("bound", [None, BOUND])


@functools.cache
def _expected(bound):
    memory, params = learned(bound=bound)
    zs = features(TICKS, 1).copy()
    zs[100, 0, 3], zs[101, 0, 0], zs[102] = np.nan, np.inf, zs[102] * 1e6
    resets = np.zeros((TICKS, 1), bool)
    resets[[0, 400]] = True
    step = jax.jit(memory.step)
    state, outs = memory.init(1), []
    for z, reset in zip(zs, resets, strict=True):
        state, out = step(params, state, z, reset)
        outs.append(jax.tree.map(np.asarray, out))
    assert 50 < sum(bool(out.wrote[0]) for out in outs) < 900
    size = float(np.linalg.norm(state.W))
    assert 0.9 * BOUND < size < (1.0001 * BOUND if bound else np.inf)
    return zs, resets, outs, jax.tree.map(np.asarray, state)


def _alike(actual, expected, name):
    for field in FIELDS:
        x, y = np.asarray(getattr(actual, field)), getattr(expected, field)
        y = y if x.shape == y.shape else y[0]
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * max(1.0, np.abs(y).max()), err_msg=f"{name} {field}")
    for field in ("wrote", "refused"):
        assert bool(np.asarray(getattr(actual, field)).all()) == bool(getattr(expected, field)[0]), f"{name} {field}"


@bounds
def test_the_numpy_tick_equals_the_jax_step_over_1000_ticks(bound):
    zs, resets, outs, state = _expected(bound)
    tick = AuraTick(learned(bound=bound)[0].config, arrays())
    for t in range(TICKS):
        if resets[t, 0]:
            tick.reset()
        _alike(tick.tick(zs[t, 0]), outs[t], f"tick {t}")
    np.testing.assert_allclose(tick.W, state.W[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(tick.b, state.b[0], rtol=0, atol=1e-5)


def test_a_tick_without_a_proposal_leaves_the_same_state():
    zs = features(50, 1)
    with_head, without = (AuraTick(learned(bound=BOUND)[0].config, arrays()) for _ in range(2))
    for z in zs:
        actual, short = with_head.tick(z[0]), without.tick(z[0], propose=False)
        assert (actual.wrote, actual.gate, actual.surprise) == (short.wrote, short.gate, short.surprise)
        assert short.chunk is None
        assert short.confidence == 0
    np.testing.assert_array_equal(with_head.W, without.W)


@bounds
def test_the_fused_kernel_equals_the_jax_step_over_1000_ticks(bound):
    zs, resets, outs, state = _expected(bound)
    memory, params = learned(bound=bound)
    step = jax.jit(functools.partial(pallas.step, config=memory.config, interpret=True))
    own = memory.init(1)
    for t in range(TICKS):
        own, out = step(params, state=own, z=zs[t], reset=resets[t])
        _alike(out, outs[t], f"tick {t}")
    np.testing.assert_allclose(own.W, state.W, rtol=0, atol=1e-5)


def _stores(jaxpr, outputs, conditional=False):
    """(name, under a condition?) of every store to the refs `outputs`, by position, in a kernel's jaxpr."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            operands = equation.invars[1:]
            for branch in equation.params["branches"]:
                inner = {v: outputs[o] for v, o in zip(branch.jaxpr.invars, operands, strict=True) if outputs.get(o)}
                yield from _stores(branch.jaxpr, inner, True)
        elif equation.primitive.name == "swap" and equation.invars[0] in outputs:
            yield outputs[equation.invars[0]], conditional


def test_the_fused_kernel_has_no_store_of_the_state_outside_the_gate():
    memory, params = learned(bound=BOUND)
    z, reset = jnp.zeros((2, SIZE)), jnp.zeros(2, bool)
    made = jax.make_jaxpr(functools.partial(pallas.step, config=memory.config))(
        params, state=memory.init(2), z=z, reset=reset
    )
    (call,) = [e for e in made.eqns if e.primitive.name == "pallas_call"]
    kernel = call.params["jaxpr"]
    W_out, b_out, r_out = kernel.invars[12:15]
    found = set(_stores(kernel, {W_out: "W", b_out: "b", r_out: "r"}))
    assert found == {("W", True), ("b", True), ("r", False)}
    assert tuple(call.params["input_output_aliases"]) == ((0, 0), (1, 1))


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
def test_the_fused_kernel_lowers_for_cuda_with_the_state_in_place():
    from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

    memory, params = learned(bound=BOUND)
    params = jax.device_get(params)
    device = AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")
    state = jax.eval_shape(lambda: memory.init(2))
    z, reset = jax.eval_shape(lambda: (jnp.zeros((2, SIZE)), jnp.zeros(2, bool)))

    def step(state, z, reset):
        return pallas.step(params, state, z, reset, config=memory.config)

    with use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=device)):
        text = jax.jit(step).trace(state, z, reset).lower(lowering_platforms=("cuda",)).as_text()
    assert "triton" in text
    assert "output_operand_alias" in text


def test_the_exported_step_is_loaded_and_gives_what_the_step_gives(tmp_path):
    memory, params = learned(bound=BOUND)
    export_step(memory, params, tmp_path / "step.bin")
    run = load_step(tmp_path / "step.bin")
    for rows in (1, 3):
        state, z, reset = memory.init(rows), features(1, rows)[0], np.zeros(rows, bool)
        expected, out = memory.step(params, state, z, reset)
        W, b, actual = run(state.W, state.b, z, reset)
        np.testing.assert_allclose(W, expected.W, rtol=0, atol=1e-5)
        np.testing.assert_allclose(b, expected.b, rtol=0, atol=1e-5)
        np.testing.assert_allclose(actual["answer"], out.answer, rtol=0, atol=1e-5)


def test_rows_and_device_decide_which_implementation_runs():
    config = AuraConfig(SIZE, HEAD)
    assert implementation(config, 1, "cpu") == "reference"
    assert implementation(config, 1024, "cpu") == "xla"
    assert implementation(config, 1024, "gpu") == "pallas"
    assert implementation(AuraConfig(SIZE, HEAD, gate="novelty"), 1, "gpu") == "xla"


@pytest.mark.parametrize("rows", [2, 6])
def test_a_runner_gives_what_the_step_gives_and_goes_on_from_a_saved_state(rows):
    memory, params = learned(bound=BOUND)
    zs = features(8, rows)
    resets = np.zeros((8, rows), bool)
    resets[3, 0] = True
    runner, other = (AuraRunner(memory.config, arrays(), rows, "cpu") for _ in range(2))
    state = memory.init(rows)
    for t in range(8):
        state, expected = memory.step(params, state, zs[t], resets[t])
        out = runner.step(zs[t], resets[t])
        for field in FIELDS:
            np.testing.assert_allclose(getattr(out, field), getattr(expected, field), rtol=0, atol=1e-4)
        np.testing.assert_array_equal(out.wrote, expected.wrote)
        if t == 5:
            other.state = runner.state
        elif t > 5:
            np.testing.assert_array_equal(other.step(zs[t], resets[t]).answer, out.answer)


def test_a_runner_refuses_other_rows_sizes_and_parameters():
    runner = AuraRunner(learned(bound=BOUND)[0].config, arrays(), 2, "cpu")
    with pytest.raises(ValueError, match="2 rows"):
        runner.step(features(1, 3)[0], np.zeros(3, bool))
    with pytest.raises(ValueError, match="feature size 33"):
        runner.step(np.zeros((2, 33), np.float32), np.zeros(2, bool))
    with pytest.raises(ValueError, match="do not fit"):
        params_of(AuraMemory(AuraConfig(SIZE, HEAD, gate="always")), arrays())
