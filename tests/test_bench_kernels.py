import json

import numpy as np

from vlamem.sim.bench.kernels import FEATURES as SIZE
from vlamem.sim.bench.kernels import KernelBench, Timing, aura, naive_scan, run


def test_the_page_and_its_twin_hold_every_figure(tmp_path):
    bench = KernelBench((1,), 0.01, 16, 2, tmp_path, "vlamem bench kernels")
    page, twin = run(bench, lambda line: None)
    figures = json.loads(twin.read_text())["figures"]
    for name in ("tick_p50_us", "tick_p99_us", "kv_100k_time_ratio", "scan_steps_per_second", "scan_over_naive_ratio"):
        assert figures[name]["value"] > 0
    assert figures["state_bytes"]["value"] == 4224
    assert figures["kv_100k_bytes_ratio"]["value"] > 6000
    for row in ("AURA reference", "AURA xla", "GRU cell (JAX)", "100,000 cached steps"):
        assert row in page.read_text()


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
