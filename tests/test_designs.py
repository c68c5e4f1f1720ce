"""memory/designs: the registry, what a weights file says of a design, and a design of one's own, examples/."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import recorded_features as rec

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs import DESIGNS, DesignError, design, make_design, name_of, register
from vlamem.memory.protocol import Memory, named_arrays, params_of
from vlamem.memory.train.gate import GateOptions, held_out_score_of, train_gate
from vlamem.memory.weights import Header, load_memory, load_weights, save_weights
from vlamem.scripts.main import main
from vlamem.testing import check_memory

HEAD = HeadConfig(chunk=(2, 3), context=4, hidden=8)
EXAMPLE = "examples.running_average:RunningAverage"
pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The design of the examples, which lie outside the package."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent.parent)
    yield EXAMPLE
    sys.modules.pop("examples.running_average", None)


@pytest.mark.parametrize("name", list(DESIGNS))
def test_every_design_is_read_back_from_its_weights_file(name: str, tmp_path: Path) -> None:
    memory = design(name).make(16, HEAD)
    assert isinstance(memory, Memory)
    assert name_of(memory) == name
    arrays = named_arrays(memory.init_params(jax.random.key(0)))
    save_weights(tmp_path / "x.safetensors", Header.of(memory, rec.POLICY, "made", {"right": 0.5}), arrays)
    header, again, params = load_memory(tmp_path / "x.safetensors", rec.POLICY)
    assert (again, header.design, header.feature_size, header.head) == (memory, name, 16, HEAD)
    for name, array in named_arrays(params).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_unknown_designs_and_options_are_named_with_the_nearest() -> None:
    with pytest.raises(DesignError, match="did you mean 'slots'"):
        design("slot")
    with pytest.raises(DesignError, match="needs the module 'nowhere'"):
        design("nowhere:Design")
    with pytest.raises(DesignError, match="expected option=value, got 'hidden'"):
        make_design("gru?hidden", 16, HEAD)
    with pytest.raises(ValueError, match="no setting 'hiden', the nearest is 'hidden'"):
        make_design("gru?hiden=8", 16, HEAD)
    with pytest.raises(ValueError, match="'hidden' of GruMemory is 'wide': expected int"):
        make_design("gru?hidden=wide", 16, HEAD)
    assert make_design("gru?hidden=8", 16, HEAD) == design("gru").make(16, HEAD, hidden=8)


def test_parameters_of_another_size_or_name_are_refused() -> None:
    small, wide = (design("gru").make(16, HEAD, hidden=n) for n in (4, 8))
    arrays = named_arrays(small.init_params(jax.random.key(0)))
    with pytest.raises(ValueError, match="parameter x has shape"):
        params_of(wide, arrays)
    with pytest.raises(ValueError, match="do not fit"):
        params_of(small, {**arrays, "more": arrays["x"]})


def test_a_design_of_ones_own_is_registered_by_one_line_and_keeps_every_promise(
    example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DESIGNS, "_entries", dict(DESIGNS._entries))
    register("running_average", example)
    memory = make_design("running_average?width=8&keep=0.5", 16, HEAD)
    check_memory(memory, ticks=6)
    assert name_of(memory) == EXAMPLE  # another process knows the path, not what was registered here
    with pytest.raises(ValueError, match="choose another name"):
        register("gru", example)


def test_a_design_of_ones_own_is_trained_saved_and_loaded_by_train_gate(
    example: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, out = rec.record(tmp_path / "features", 20), tmp_path / "run"
    words = ["--features", str(features), "--updates", "60", "--ticks", "40", "--rows", "4", "--hidden", "16"]
    words += ["--learning-rate", "0.02", "--out", str(out), "--design", f"{example}?keep=0.95&width=16"]
    assert main(["train-gate", *words]) == 0
    assert "held out" in capsys.readouterr().out
    header, memory, params = load_memory(out / "gate.safetensors", rec.POLICY)
    assert header.design == EXAMPLE
    assert memory.to_config()["keep"] == 0.95
    assert header.head.answer == 0
    assert "project.params.kernel" in load_weights(out / "gate.safetensors")[1]
    losses = [look["error"] for look in json.loads((out / "curves.json").read_text())]
    assert losses[-1] < losses[0] or len(losses) == 1
    score = held_out_score_of(out / "gate.safetensors", GateOptions((features,)))
    assert score.right == pytest.approx(header.metrics["held_out_right"], abs=1e-5)
    state = memory.init(1)
    for z in np.ones((3, 1, rec.D + rec.C), np.float32):
        state, step = memory.step(params, state, z, np.zeros(1, bool))
    assert bool(step.wrote[0])


def test_what_a_design_without_a_gate_cannot_do_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = rec.record(tmp_path / "features", 4)
    words = ["--features", str(features), "--out", str(tmp_path / "run"), "--design", "gru?hidden=8"]
    for more, says in (
        (["--budget", "0.1"], "leave out --budget"),
        (["--gate", "always"], "no setting 'gate'"),
        (["--method", "counterfactual"], "no setting 'gate'"),
    ):
        assert main(["train-gate", *words, *more]) == 2
        assert says in capsys.readouterr().err


def test_a_training_goes_on_from_a_design_without_a_gate(tmp_path: Path) -> None:
    how = GateOptions((rec.record(tmp_path / "features", 10),), design="gru?hidden=8", updates=2, ticks=32, rows=2)
    path, _ = train_gate(how, tmp_path / "first")
    again = GateOptions(how.features, updates=2, ticks=32, rows=2, start_from=path)
    header, memory, _ = load_memory(train_gate(again, tmp_path / "more")[0])
    assert (header.design, memory) == ("gru", load_memory(path)[1])
    assert not any(name.startswith("threshold_shift") for name in header.metrics)
