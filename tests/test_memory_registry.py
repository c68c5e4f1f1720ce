"""memory/registry.py and policies/memories.py: KIND[:FILE][?option=value], in every verb."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
from memory_cases import Recalling
from point_mass import PointPolicy

import vlamem
from vlamem.core.registry import Registry
from vlamem.memory.config import HeadConfig
from vlamem.memory.designs import DESIGNS
from vlamem.memory.protocol import named_arrays
from vlamem.memory.registry import KINDS, MemoryKind, MemoryName, MemoryNameError, MemoryRequest, load_memory
from vlamem.memory.weights import Header, WeightsError, identity, save_weights
from vlamem.policies.memories import SHIPPED, SHIPPED_GATE, parse_memories


@dataclass(frozen=True)
class RecallingOptions:
    """Options of a memory of one's own."""

    value: float = 0.5
    times: int = 1
    place: Path | None = None
    words: str = ""
    loud: bool = False

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times is {self.times}: expected 1 or more")


def load(request: MemoryRequest) -> Recalling:
    return Recalling(request.policy.spec, request.options.value, *[1.0] * request.rows)


KIND = MemoryKind(load, RecallingOptions, "none")
WITH_FILE = MemoryKind(load, RecallingOptions, "database")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "gate.safetensors"
    path.write_bytes(b"weights")
    return path


def test_a_name_has_a_kind_a_file_and_options(weights: Path) -> None:
    name = MemoryName.parse(f"aura:{weights}?inject=both&abstain_below=0.25&budget=0.02&replan_on_write=true")
    assert (name.kind, name.file) == ("aura", weights)
    options = name.read_options()
    assert (options.inject, options.abstain_below, options.budget, options.replan_on_write) == (
        "both",
        0.25,
        0.02,
        True,
    )
    assert name.label == "aura?inject=both&abstain_below=0.25&budget=0.02&replan_on_write=true"
    assert str(name) == f"aura:{weights}?inject=both&abstain_below=0.25&budget=0.02&replan_on_write=true"
    assert name.sha256 is not None
    assert MemoryName.parse(str(name)) == name


def test_options_that_are_left_out_have_their_defaults(weights: Path) -> None:
    options = MemoryName.parse(f"aura:{weights}").read_options()
    assert (options.inject, options.abstain_below, options.gate, options.budget) == ("context", 0.5, None, None)
    assert MemoryName.parse("success:kitchen.db?most_segments=null").read_options().most_segments is None


def test_a_database_need_not_be_there_and_has_no_hash() -> None:
    name = MemoryName.parse("success:nowhere/kitchen.db")
    assert name.file == Path("nowhere/kitchen.db")
    assert name.sha256 is None
    assert name.label == "success"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("aurora", "unknown memory 'aurora': did you mean 'aura'"),
        ("zzz", "unknown memory 'zzz': choose one of aura, success"),
        ("", "unknown memory ''"),
        ("aura:FILE?injct=chunk", "memory 'aura' has no option 'injct': did you mean 'inject'"),
        ("aura:FILE?zzz=1", "has no option 'zzz': choose one of inject, abstain_below"),
        ("aura:FILE?inject=shout", r"aura\?inject is 'shout': expected .*'context', 'chunk', 'both'"),
        ("aura:FILE?abstain_below=much", r"aura\?abstain_below is 'much': expected float"),
        ("aura:FILE?abstain_below=2", "abstain_below 2.0 is outside 0 to 1"),
        ("aura:FILE?replan_on_write=1", r"aura\?replan_on_write is '1': expected bool"),
        ("aura:FILE?seed=1.5", r"aura\?seed is '1.5': expected int"),
        ("aura:FILE?gate=sometimes", r"aura\?gate is 'sometimes': expected"),
        ("aura:FILE?budget=0.1&gate=always", "budget 0.1 is of the trained gate"),
        ("success:a.db?calibrated=perhaps", r"success\?calibrated is 'perhaps': expected bool"),
        ("success", "memory 'success' needs its file, success:FILE"),
        ("gru", "memory 'gru' needs weights, gru:FILE"),
        ("gru:nowhere.safetensors", "has no weights at nowhere.safetensors"),
    ],
)
def test_a_name_that_does_not_fit_says_what_was_expected(text: str, complaint: str, weights: Path) -> None:
    with pytest.raises(MemoryNameError, match=complaint):
        MemoryName.parse(text.replace("FILE", str(weights)))


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("always", "aura?gate=always"),
        ("never:gate.safetensors", "aura:gate.safetensors?gate=never"),
        ("random", "aura?gate=random"),
        ("periodic:g.safetensors", "aura:g.safetensors?gate=periodic"),
        ("baseline:gru.safetensors", "gru:gru.safetensors"),
    ],
)
def test_names_of_version_0_1_are_refused_by_the_new_one(text: str, now: str) -> None:
    with pytest.raises(MemoryNameError) as refused:
        MemoryName.parse(text)
    assert f"write '{now}'" in str(refused.value)


def test_the_shipped_weights_need_no_file() -> None:
    (name,) = parse_memories(("aura?inject=context",))
    assert name.file == SHIPPED_GATE == SHIPPED["aura"]
    assert name.label == "aura?inject=context"
    with pytest.raises(MemoryNameError, match="needs weights"):
        MemoryName.parse("aura")


def test_none_and_nothing_are_no_memory_and_the_same_one_twice_is_refused() -> None:
    assert parse_memories(("none",)) == parse_memories(()) == ()
    with pytest.raises(ValueError, match="'aura' is given twice: leave one out"):
        parse_memories(("aura", "aura"))
    assert len(parse_memories(("aura", "aura?gate=always"))) == 2
    with pytest.raises(MemoryNameError, match="unknown memory 'none'"):
        parse_memories(("aura", "none"))


def test_a_memory_of_ones_own_is_named_by_its_module(tmp_path: Path) -> None:
    name = MemoryName.parse("test_memory_registry:KIND?value=0.25")
    assert (name.kind, name.file) == ("test_memory_registry:KIND", None)
    runner = load_memory(name, PointPolicy(), None, 3)
    assert isinstance(runner, Recalling)
    assert vlamem.wrap(PointPolicy(), "test_memory_registry:KIND").memories[0].spec.name == "recalling"
    kept = MemoryName.parse("test_memory_registry:WITH_FILE:somewhere/mine.db?times=2")
    assert (kept.kind, kept.file) == ("test_memory_registry:WITH_FILE", Path("somewhere/mine.db"))
    assert str(kept) == "test_memory_registry:WITH_FILE:somewhere/mine.db?times=2"
    with pytest.raises(MemoryNameError, match="takes no file"):
        MemoryName.parse("test_memory_registry:KIND:mine.db")
    with pytest.raises(MemoryNameError, match="needs its file"):
        MemoryName.parse("test_memory_registry:WITH_FILE")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no_such.module:KIND", "needs the module 'no_such'"),
        ("test_memory_registry:NOTHING", "is not there .*expected package.module:ATTRIBUTE"),
        ("test_memory_registry:KIND?times=0", "times is 0: expected 1 or more"),
    ],
)
def test_a_memory_of_ones_own_that_is_not_there_says_so(text: str, complaint: str) -> None:
    with pytest.raises(MemoryNameError, match=complaint):
        MemoryName.parse(text)


@pytest.mark.parametrize("named", ["examples.running_average:RunningAverage", "mine", "slots"])
def test_every_memory_design_is_a_kind_that_its_weights_are_loaded_by(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent.parent)
    monkeypatch.setattr(DESIGNS, "_entries", dict(DESIGNS._entries))
    DESIGNS.register("mine", "examples.running_average:RunningAverage")
    policy = PointPolicy()
    memory = DESIGNS.get(named).make(policy.spec.feature_size, HeadConfig((8, 7)))
    header = Header.of(memory, identity(policy.spec, None), "made", {})
    save_weights(tmp_path / "m.safetensors", header, named_arrays(memory.init_params(jax.random.key(0))))
    name = MemoryName.parse(f"{named}:{tmp_path}/m.safetensors?inject=chunk")
    assert load_memory(name, policy, None, 2).spec.chunk_shape == (8, 7)
    with pytest.raises(WeightsError, match=f"write {header.design}:"):
        load_memory(MemoryName.parse(f"gru:{tmp_path}/m.safetensors"), policy, None, 2)


def test_options_are_read_by_their_types() -> None:
    text = "test_memory_registry:KIND?value=1&times=3&place=a/b.db&words=1&loud=yes"
    options = MemoryName.parse(text).read_options()
    assert options == RecallingOptions(1.0, 3, Path("a/b.db"), "1", True)
    assert isinstance(options.value, float)


def test_a_memory_is_registered_by_one_line() -> None:
    kinds: Registry[Any] = Registry("memory", {"mine": "test_memory_registry:KIND"}, MemoryNameError)
    assert kinds.get("mine") is KIND
    kinds.register("yours", "test_memory_registry:WITH_FILE")
    kinds.register("yours", "test_memory_registry:WITH_FILE")
    assert list(kinds) == ["mine", "yours"]
    assert "yours" in kinds
    with pytest.raises(ValueError, match="'mine' is test_memory_registry:KIND already"):
        kinds.register("mine", "test_memory_registry:WITH_FILE")
    with pytest.raises(ValueError, match=r"expected package\.module:ATTRIBUTE"):
        kinds.register("theirs", "test_memory_registry")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_that_is_registered_can_be_imported(kind: str) -> None:
    assert isinstance(KINDS.get(kind), MemoryKind)
