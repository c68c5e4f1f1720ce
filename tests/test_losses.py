"""Losses: errors of proposals, the charge of a write, and the two signals that train the gate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlamem.memory.designs import design
from vlamem.memory.designs.aura import AuraConfig, AuraMemory
from vlamem.memory.head import HeadConfig
from vlamem.memory.protocol import scan
from vlamem.memory.train.losses import (
    Batch,
    Targets,
    action_error,
    charge,
    counterfactual_loss,
    straight_through_loss,
    weighted_mean,
)

T, B, D = 12, 3, 16
HEAD = HeadConfig(chunk=(2, 3), context=4, answer=5)
pytestmark = pytest.mark.usefixtures("compiled_quickly")


def aura(gate: str, head: HeadConfig = HEAD) -> AuraMemory:
    return AuraMemory(AuraConfig(D, head, gate=gate, key_size=4, value_size=4, gate_hidden=4))


def batch(answers: bool = True) -> Batch:
    zs = jax.random.normal(jax.random.key(0), (T, B, D))
    answer = jax.random.randint(jax.random.key(1), (T, B), 0, 5)
    return Batch(zs, jnp.zeros((T, B), bool), Targets(jnp.ones((T, B)), answer=answer if answers else None))


@pytest.fixture(scope="module")
def out():
    memory = aura("always")
    return scan(memory, memory.init_params(jax.random.key(2)), memory.init(B), batch().zs, batch().resets)[1]


def test_error_of_a_right_chunk_or_context_is_0(out):
    assert float(action_error(out, Targets(jnp.ones((T, B)), chunk=out.chunk)).max()) == 0
    assert float(action_error(out, Targets(jnp.ones((T, B)), context=out.context)).max()) == 0


def test_error_of_an_answer_is_its_cross_entropy(out):
    scored = jax.nn.softmax(out.answer)[3, 1]
    error = action_error(out, batch().targets)[3, 1]
    np.testing.assert_allclose(error, -np.log(scored[batch().targets.answer[3, 1]]), rtol=1e-5)


def test_targets_without_a_head_for_them_are_refused():
    memory = design("fifo").make(D, HeadConfig(answer=5))
    scored = scan(memory, memory.init_params(jax.random.key(0)), memory.init(B), batch().zs, batch().resets)[1]
    with pytest.raises(ValueError, match="targets have a chunk, the memory's head proposes none"):
        action_error(scored, Targets(jnp.ones((T, B)), chunk=jnp.zeros((T, B, 2, 3))))


def test_ticks_without_weight_do_not_count():
    x = jnp.asarray([[1.0], [jnp.float32(1e6)]])
    assert float(weighted_mean(x, jnp.asarray([[1.0], [0.0]]))) == 1.0
    assert float(weighted_mean(x, jnp.zeros((2, 1)))) == 0.0


def test_a_gate_sure_of_writing_still_feels_the_charge():
    gradient = jax.grad(lambda logit: charge(jax.nn.sigmoid(logit)))
    assert float(gradient(8.0)) > 0.99
    assert float(gradient(-8.0)) < 0.01


@pytest.mark.parametrize("gate", ["learned", "counterfactual"])
def test_a_cost_without_any_use_of_writing_closes_the_gate(gate):
    memory, unasked = aura(gate), batch()
    unasked = unasked._replace(targets=unasked.targets._replace(weight=jnp.zeros((T, B))))
    params, key = memory.init_params(jax.random.key(3)), jax.random.key(4)
    loss = straight_through_loss if gate == "learned" else functools.partial(counterfactual_loss, copies=4)
    grads = jax.jit(jax.grad(lambda p: loss(memory, p, unasked, jnp.asarray(1.0), key)[0]))(params)
    assert float(grads.gate["out_bias"]) > 0


@pytest.mark.parametrize("gate", ["learned", "counterfactual"])
def test_without_a_cost_the_gate_is_moved_by_the_action_error(gate):
    memory = aura(gate)
    params, key = memory.init_params(jax.random.key(3)), jax.random.key(4)
    loss = straight_through_loss if gate == "learned" else functools.partial(counterfactual_loss, copies=4)
    grads = jax.jit(jax.grad(lambda p: loss(memory, p, batch(), jnp.asarray(0.0), key)[0]))(params)
    assert float(jnp.abs(grads.gate["out"]).max()) > 0


def test_the_counterfactual_signal_opens_the_gate_where_a_write_pays():
    """One cue, then questions about it: with a memory that has learned to use it, the cue's write must be wanted."""
    memory = aura("counterfactual", HeadConfig(answer=2))
    answer = jnp.asarray([[0, 1, 0]] * T)
    cue = jnp.where(answer[0] == 1, 1.0, -1.0)
    zs = jnp.zeros((T, B, D)).at[0, :, 0].set(3 * cue).at[:, :, 1].set(1.0).at[0, :, 2].set(3.0)
    asked = jnp.ones((T, B)).at[0].set(0.0)
    cued = Batch(zs, jnp.zeros((T, B), bool), Targets(asked, answer=answer))
    params = memory.init_params(jax.random.key(5))

    @jax.jit
    def train_memory(params):
        def loss(p):
            p = p._replace(gate=jax.lax.stop_gradient(p.gate))
            return straight_through_loss(memory, p, cued, jnp.asarray(0.0), jax.random.key(0))[0]

        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)

    for _ in range(60):
        params = train_memory(params)

    def pull(shift):
        p = params._replace(gate=params.gate | {"z": params.gate["z"].at[2].add(shift)})
        return counterfactual_loss(memory, p, cued, jnp.asarray(0.1), jax.random.key(6), copies=32)[1][0].gate_loss

    _, out = scan(memory, params, memory.init(B), cued.zs, cued.resets)
    assert bool(out.wrote[0].all())
    direction = jnp.sign(params.gate["out"])
    assert float(jax.jit(jax.grad(pull))(jnp.zeros(4)) @ direction) < 0
