"""vlamem.wrap: memories by name and as runners, and what is refused when they do not fit the policy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import point_mass
import pytest
from memory_cases import Recalling, aura_for, config_for, runner, save_gate
from memory_policy_cases import Wide, noise_for, observations

import vlamem
from vlamem.memory.designs.aura import AuraConfig, HeadConfig
from vlamem.memory.registry import MemoryName, MemoryNameError, load_memory
from vlamem.memory.weights import WeightsError, identity
from vlamem.policies.memories import SHIPPED
from vlamem.policies.memory_policy import MemoryPolicy


def test_a_gate_of_another_policy_is_refused_and_both_are_named(tmp_path: Path) -> None:
    policy = Wide()
    mine = identity(policy.spec, "a" * 64)
    path = save_gate(tmp_path / "gate.safetensors", config_for(policy.spec), mine)
    name = MemoryName.parse(f"aura:{path}")
    for sha256 in ("a" * 64, None):  # the policy's own weights need not be known
        assert load_memory(name, policy, sha256, 1).spec.feature_size == 19
    assert vlamem.wrap(policy, str(name)).ticks
    with pytest.raises(WeightsError, match="was trained for policy 'points'"):
        load_memory(name, policy, "b" * 64, 1)
    save_gate(path, config_for(policy.spec), replace(mine, normaliser="another"))
    with pytest.raises(WeightsError, match="was trained for policy 'points'"):
        load_memory(name, policy, "a" * 64, 1)
    with pytest.raises(WeightsError, match="features of size 19"):
        vlamem.wrap(point_mass.policy(), aura_for(policy.spec))


def test_a_memory_for_other_chunks_or_contexts_is_refused() -> None:
    policy = Wide()
    for head, complaint in (
        (HeadConfig(chunk=(4, 7), context=3), r"chunks of \(4, 7\)"),
        (HeadConfig(chunk=(8, 7), context=5), "contexts of size 5"),
    ):
        with pytest.raises(WeightsError, match=complaint):
            MemoryPolicy(policy, [runner(AuraConfig(16, head))])


def test_a_success_memory_is_opened_by_its_file_and_an_empty_one_abstains(tmp_path: Path) -> None:
    policy = Wide()
    wrapped = vlamem.wrap(policy, f"success:{tmp_path / 'success.db'}", rows=2)
    obs, noise = observations(policy, 2), noise_for(policy, 2)
    chunk = wrapped.plan(wrapped.observe(obs), noise)
    np.testing.assert_array_equal(chunk, policy.sample(policy.encode(obs), noise))
    assert (tmp_path / "success.db").exists()


def test_wrap_takes_names_and_runners_in_the_order_given(tmp_path: Path) -> None:
    policy = Wide()
    mine = Recalling(policy.spec, 0.5, 1.0)
    wrapped = vlamem.wrap(policy, [mine, f"success:{tmp_path / 'success.db'}"])
    assert [memory.spec.name for memory in wrapped.memories] == ["recalling", "success"]
    assert vlamem.wrap(policy, "none").memories == ()
    assert vlamem.wrap(policy, mine).memories == (mine,)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"aura": "shipped"}, r"'aura' any more: write memory='aura' or 'aura:FILE'"),
        ({"success": "s.db"}, "memory='success:FILE'"),
        ({"way": "chunk"}, r"memory='aura\?inject="),
        ({"abstain_below": 0.5}, r"memory='aura\?abstain_below="),
        ({"replan_on_write": True}, r"memory='aura\?replan_on_write=true'"),
        ({"gate": "x"}, "no argument 'gate': it takes policy, memory, rows, seed, "),
    ],
)
def test_arguments_of_wrap_that_changed_their_name_are_refused_by_the_new_one(given: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        vlamem.wrap(Wide(), **given)


@pytest.mark.parametrize(("chunk", "inject"), [(None, "chunk"), (None, "both"), ((8, 7), "context")])
def test_a_memory_is_not_injected_as_it_was_not_trained_to(chunk: Any, inject: Any) -> None:
    config = AuraConfig(16, HeadConfig(chunk=chunk, context=3 if chunk is None else 0))
    with pytest.raises(ValueError, match=f"proposes no {'chunk' if chunk is None else 'context'}"):
        runner(config, inject=inject)


@pytest.mark.parametrize(
    ("name", "message"),
    [("aura?inject=shout", "'shout': expected .*context"), ("aura?abstain_below=2", "0 to 1")],
)
def test_impossible_injections_are_refused(name: str, message: str) -> None:
    with pytest.raises(MemoryNameError, match=message):
        MemoryName.parse(name, SHIPPED)
