import jax.numpy as jnp
import pytest
from aura_cases import HEAD, learned

from vlamem.memory.designs.aura import GATE_KINDS, AuraConfig, AuraMemory
from vlamem.testing import ConformanceError, check_memory

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("kind", GATE_KINDS)
def test_aura_keeps_every_promise(kind):
    check_memory(AuraMemory(AuraConfig(32, HEAD, gate=kind)), ticks=8)


class _Leaky(AuraMemory):
    def step(self, params, state, z, reset, event=None):
        return super().step(params, state, z, jnp.zeros_like(reset), event)


class _Mixing(AuraMemory):
    def step(self, params, state, z, reset, event=None):
        state, out = super().step(params, state, z, reset, event)
        return state._replace(b=state.b + state.b.mean()), out


class _Poisoned(AuraMemory):
    def step(self, params, state, z, reset, event=None):
        state, out = super().step(params, state, z, reset, event)
        return state._replace(b=state.b + z.sum(-1, keepdims=True)), out


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (_Leaky, "a reset row goes on as a new one"),
        (_Mixing, "single rows|a reset row|leaves the others"),
        (_Poisoned, "finite|leaves its state"),
    ],
)
def test_a_memory_that_breaks_a_promise_is_told_which(broken, promise):
    memory, params = learned()
    with pytest.raises(ConformanceError, match=promise):
        check_memory(broken(memory.config), params, ticks=6)
