import json
import sys
from types import ModuleType

import numpy as np
import pytest

from vlamem.scripts.bench import main
from vlamem.sim.bench.kernels.rows import FEATURES as SIZE
from vlamem.sim.bench.kernels.rows import aura, delta_rule_row
from vlamem.sim.bench.kernels.scan import naive_scan
from vlamem.sim.bench.kernels.timing import Timing

FIGURES = (
    "tick_p50_us",
    "tick_p99_us",
    "kv_100k_time_ratio",
    "kv_100k_bytes_ratio",
    "state_bytes",
    "scan_steps_per_second",
    "scan_over_naive_ratio",
)


def test_the_smoke_setting_writes_the_page_and_its_twin_with_every_figure(tmp_path):
    assert main(["kernels", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "kernels.json").read_text())["figures"]
    for name in FIGURES:
        assert figures[name]["value"] > 0
    assert figures["state_bytes"]["value"] == 4224
    assert figures["kv_100k_bytes_ratio"]["value"] > 6000
    page = (tmp_path / "kernels.md").read_text()
    for row in ("AURA reference", "AURA xla", "GRU cell (JAX)", "100,000 cached steps"):
        assert row in page


def test_the_delta_rule_row_hands_its_state_on_as_flash_linear_attention_takes_it(monkeypatch):
    """The library runs on a GPU alone: its delta rule as it documents it, in plain torch, stands in for it."""
    torch = pytest.importorskip("torch")
    states = []

    def fused_recurrent_delta_rule(q, k, v, beta, scale=None, initial_state=None, output_final_state=False):
        rows, ticks, heads, size = q.shape
        assert (ticks, heads, size) == (1, 1, 32)
        assert beta.shape == (rows, ticks, heads)
        assert initial_state.shape == (rows, heads, size, size)
        assert output_final_state
        states.append(float(initial_state.abs().sum()))
        e = v[:, 0] - torch.einsum("nhkv,nhk->nhv", initial_state, k[:, 0])
        state = initial_state + beta[:, 0, :, None, None] * k[:, 0, :, :, None] * e[:, :, None]
        return scale * torch.einsum("nhkv,nhk->nhv", state, q[:, 0])[:, None], state

    module = ModuleType("fla.ops.delta_rule")
    module.fused_recurrent_delta_rule = fused_recurrent_delta_rule
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = delta_rule_row(3, 0.01, device="cpu")
    assert row.state == 4096
    assert states[0] == 0
    assert states[1] > 0


def test_the_naive_scan_gives_what_the_quick_one_gives():
    memory, params = aura()
    zs = np.random.default_rng(0).standard_normal((19, 2, SIZE), np.float32)
    (W, _), y = naive_scan(params, memory.init(2), zs)
    state, out = memory.scan(params, memory.init(2), zs, np.zeros((19, 2), bool))
    np.testing.assert_allclose(W, state.W, rtol=0, atol=1e-5)
    np.testing.assert_allclose(y[..., 1:], np.asarray(out.chunk).reshape(19, 2, -1), rtol=0, atol=1e-5)


def test_a_quantile_lies_in_its_interval():
    figure = Timing(np.arange(1000.0)).quantile(0.5)
    assert figure.value == 500
    assert figure.ci95 is not None
    assert figure.ci95[0] < 500 < figure.ci95[1]
