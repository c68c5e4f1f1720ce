"""sim/bench/patrol and its page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_cases import Progress

from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.bench.patrol.options import PatrolBench
from vlamem.sim.bench.patrol.report import growth, thirds
from vlamem.sim.bench.patrol.run import run
from vlamem.sim.bench.patrol.stream import PatrolError, Stream, read
from vlamem.sim.bench.rate import Rate
from vlamem.sim.suites.tabletop import SUITE


def test_a_short_stream_is_played_with_and_without_memory_and_kept(tmp_path: Path) -> None:
    words = ["--steps", "500", "--arms", "alone", "aura", "--workers", "1"]
    folders = ["--out", str(tmp_path / "run"), "--results", str(tmp_path / "page")]
    assert main(["bench", "patrol", *words, *folders]) == 0
    page = (tmp_path / "page/patrol.md").read_text()
    assert "| policy alone |" in page
    assert "| AURA-Mem |" in page
    assert "4224" in page
    found = read(tmp_path / "run/aura.json")
    assert found.queries
    assert found.ticks == 500
    assert found.state_bytes == 4224
    before = (tmp_path / "run/aura.json").stat().st_mtime_ns
    assert main(["bench", "patrol", *words, *folders]) == 0  # nothing is missing
    assert (tmp_path / "run/aura.json").stat().st_mtime_ns == before


def test_a_folder_of_other_options_is_refused(tmp_path: Path) -> None:
    bench = replace(preset(PatrolBench, "bench_patrol"), out=tmp_path)
    tmp_path.joinpath("bench.json").write_text("{}")
    with pytest.raises(PatrolError, match="other options"):
        run(bench, "", Progress())


@pytest.mark.parametrize(
    ("change", "says"),
    [({"steps": 10}, "expected 200 to 100000"), ({"arms": ("gru",)}, "choose from alone"), ({"workers": 0}, "workers")],
)
def test_impossible_options_are_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(preset(PatrolBench, "bench_patrol"), **change)  # type: ignore[arg-type]


def test_queries_are_counted_by_third_and_growth_is_the_slope_after_the_beginning() -> None:
    queries = [(step, step > 200) for step in range(50, 301, 50)]
    sampled = list(range(10, 1000, 10))
    resident = [500.0 if step < 90 else 100.0 + step / 1000 for step in sampled]
    found = Stream("aura", queries, sampled, resident)
    assert thirds(found, 300) == (Rate(0, 2), Rate(0, 2), Rate(2, 2))
    slope, (low, high) = growth(found)
    assert slope == pytest.approx(100.0)
    assert low <= slope <= high
    assert growth(Stream("aura", queries, sampled, [500.0] * len(sampled))) == (0.0, (0.0, 0.0))


def test_the_arm_is_homed_before_each_further_cue() -> None:
    env = SUITE.make("patrol", steps=400)
    env.render_on_step = False
    env.reset(options={"episode": 0, "split": "test"})
    joints = env.scene.robot._ref_joint_pos_indexes
    begin = env.scene.data.qpos[joints].copy()
    turning, homed = np.array([0, 0, 0, 0, 0, 0.3, -1.0]), []
    while env.task.status == "running":
        env.step(turning)
        if env.task.queries and env.task.now == env.task._start + 1:
            homed.append(float(np.abs(env.scene.data.qpos[joints] - begin).max()))
    turned = float(np.abs(env.scene.data.qpos[joints] - begin).max())
    env.close()
    assert homed
    assert max(homed) < 0.05 < turned
