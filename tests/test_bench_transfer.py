"""The transfer bench on a point in the plane: fresh states, a residual that is learned, controls, and the page."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_bench_deployment import CONDITION, kit

from vlamem.memory.success import MemoryOptions
from vlamem.memory.success.memory import SuccessMemory
from vlamem.memory.success.runner import layout_of, origin_of
from vlamem.scripts.config import preset
from vlamem.sim.bench.deployment.arms import Condition
from vlamem.sim.bench.deployment.measure import Search
from vlamem.sim.bench.deployment.play import Series, Trial, memory_of, play_series, read_trials
from vlamem.sim.bench.transfer.arms import control_arms, main_arms
from vlamem.sim.bench.transfer.cost import Cost
from vlamem.sim.bench.transfer.options import TransferBench
from vlamem.sim.bench.transfer.report import Found, figures_of, page_of, smaller
from vlamem.sim.bench.transfer.run import TransferError, deployment_of, learned, run, series_of, tasks_of


@pytest.fixture
def bench(tmp_path: Path) -> TransferBench:
    one = "press:camera=0.1"
    given = replace(preset(TransferBench, "bench_transfer"), conditions=(one,), controls=(one,), explore=2)
    return replace(given, trials=4, states=4, out=tmp_path / "run", results=tmp_path)


def test_no_initial_state_comes_twice(bench: TransferBench) -> None:
    (series, *_) = series_of(bench, (Condition.parse(bench.conditions[0]),), False)
    assert sorted(series.episodes()) == [0, 1, 2, 3]


def test_every_arm_is_played_once_and_the_controls_where_they_are_asked_for(bench: TransferBench) -> None:
    both = replace(bench, conditions=("press:camera=0.1", "press:table=0.01"))
    conditions = tuple(map(Condition.parse, both.conditions))
    main, controls = ([(s.condition.name, s.arm.name) for s in series_of(both, conditions, c)] for c in (False, True))
    assert len(main) == len(set(main)) == 2 * len(main_arms(bench))
    assert controls == [("press:camera=0.1", arm.name) for arm in control_arms(bench)]
    assert tasks_of(both) == ["press"]
    alone, controlled = (deployment_of(both, "press", c) for c in (False, True))
    assert alone.conditions == controlled.conditions == both.conditions
    assert (alone.prepare_episodes, controlled.prepare_episodes) == (0, both.prepare_episodes)
    assert alone.out != controlled.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"controls": ("press:table=0.1",)}, r"'press:table=0\.1' is not among the conditions"),
        ({"leave_out": ("press:table=0.1",)}, r"'press:table=0\.1' is not among the conditions"),
        ({"states": 3}, "4 trials need as many initial states, and there are 3"),
    ],
)
def test_what_cannot_be_played_is_named(bench: TransferBench, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TransferError, match=said):
        run(replace(bench, **changes), "", None)  # type: ignore[arg-type]  # not reached


def test_a_residual_series_explores_stores_every_trial_and_goes_on_where_it_was_stopped(
    bench: TransferBench, tmp_path: Path
) -> None:
    (arm,) = (a for a in main_arms(replace(bench, explore=6)) if a.name == "residual")
    series = Series(CONDITION, arm, 0, 8, 8)
    prepared = kit()
    assert "prior=residual" in memory_of(arm, "near", prepared, tmp_path / "memory.db")
    play_series(series, prepared, tmp_path / "whole")
    whole = read_trials(tmp_path / "whole" / series.folder)
    assert [t.spoke > 0 for t in whole[:2]] == [False, True]  # a control, then an offset
    play_series(replace(series, trials=3), prepared, tmp_path / "parts")
    play_series(series, prepared, tmp_path / "parts")
    parts = read_trials(tmp_path / "parts" / series.folder)
    assert [(t.success, t.steps, t.spoke) for t in parts] == [(t.success, t.steps, t.spoke) for t in whole]
    spec = prepared.policy.spec
    options = MemoryOptions(prior="residual")
    path = tmp_path / "whole" / series.folder / "memory.db"
    with SuccessMemory(path, origin_of(spec, prepared.sha256), layout_of(spec), options) as memory:
        trials = memory.store.trials(memory.origin)
    assert [t.outcome == "success" for t in trials] == [t.verdict == "success" for t in whole]
    assert not trials[0].offset.any()
    assert trials[1].offset.any()
    assert learned(path, series, prepared).trials == 8


def test_the_page_has_gains_over_the_last_half_in_pairs(bench: TransferBench) -> None:
    condition = Condition.parse(bench.conditions[0])
    won = {"policy": [True, True, False, False], "residual": [False, False, True, True]}
    won |= {"full": won["policy"], "critic": won["residual"], "unverified": [False] * 4}
    trials = {
        s: [
            Trial(i, i, x, 10, 2, "success" if x else "unknown", int(s.arm.name != "policy"))
            for i, x in enumerate(won[s.arm.name])
        ]
        for controls in (False, True)
        for s in series_of(bench, (condition,), controls)
    }
    search = {("states", 100_000): Search(100_000, 9, 0.1, 0.2, 1.0), ("random", 1_000_000): Search(1, 9, 1, 2, 1.0)}
    found = Found(trials, {}, {}, search, Cost((2.0, 4.0), (3.0, 3.0)))
    figures = figures_of(bench, found)
    assert figures["fresh_gain_points"].value == 100
    assert figures["fresh_gain_points"].n == 2
    assert figures["elite_gain_points"].value == 0
    assert figures["unverified_gain_points"].value == 0
    assert figures["critic_gain_points"].value == 100
    assert figures["critic_precision"].value == figures["critic_recall"].value == 1
    assert figures["retrieval_100k_p99_ms"].value == 0.2
    assert figures["retrieval_random_1m_p99_ms"].value == 2
    assert figures["decision_time_ratio"].value == 1
    page = page_of(bench, found)
    assert "| states | 100000 | 0.10 | 0.20 | 1.0000 |" in page.text
    assert page.name == "transfer"
    assert "| press:camera=0.1 | residual prior | 2 | 100 (" in page.text
    assert "residual prior, every trial passed" in page.text
    assert "trials 4 (default 200)" in page.text
    assert ("trials", "4", "200") in smaller(bench)
