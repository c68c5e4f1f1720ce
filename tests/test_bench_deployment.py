"""The deployment bench on a point in the plane: consecutive trials, resuming, pairing, and the page."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from bench_cases import Progress
from point_mass import SPEC, PointMass, PointPolicy, PointSuite
from safetensors.numpy import load_file

from vlamem.core.observation import Encoding, Observation
from vlamem.memory.success import RetrieveOptions
from vlamem.memory.success import memory as success_memory
from vlamem.memory.success.lifecycle.capacity import victims
from vlamem.memory.success.memory import MemoryOptions, SuccessMemory
from vlamem.memory.success.runner import layout_of, origin_of
from vlamem.scripts.config import preset
from vlamem.sim.bench.deployment.arms import CHANGING, MAIN, Condition, ablations
from vlamem.sim.bench.deployment.measure import DecisionTimes, Search, measure_commits, measure_search
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.bench.deployment.outcomes import late_difference, recovery
from vlamem.sim.bench.deployment.play import Kit, Series, SeriesError, Trial, play_series, read_trials
from vlamem.sim.bench.deployment.prepare import prepare
from vlamem.sim.bench.deployment.report import Found, page_of, smaller
from vlamem.sim.bench.deployment.run import DeploymentError, checked_conditions, plan, run
from vlamem.sim.suites.protocol import TaskInfo
from vlamem.sim.suites.registry import SUITES
from vlamem.sim.suites.tabletop.shift import Shift

CONDITION = Condition("near", Shift("actuator", 0.3), "test_bench_deployment:SUITE")
COMMAND = "vlamem bench deployment"


class UnitKeys(PointPolicy):
    """Keys of unit length, as the contract asks for."""

    def encode(self, obs: Observation) -> Encoding:
        seen = super().encode(obs)
        key = seen.z / np.maximum(np.linalg.norm(seen.z, axis=1, keepdims=True), 1e-6)
        return Encoding(seen.z, key.astype(np.float32), seen.context)

    def sample(self, encoding, noise, proposal=None):
        bare = super().sample(encoding, noise)
        if proposal is None:
            return bare
        c = proposal.chunk_weight[:, None, None]
        return np.where(c > 0, (1 - c) * bare + c * proposal.chunk, bare).astype(np.float32)


def unit_keys() -> UnitKeys:
    """Factory for `--policy`."""
    return UnitKeys(SPEC)


class ShiftedPoint(PointMass):
    """A point whose motor is biased."""

    def __init__(self, shift: Shift = CONDITION.shift) -> None:
        super().__init__("near", 16, False, 0)
        self.shift = shift

    def step(self, action):
        bias = np.zeros(7)
        bias[0] = self.shift.strength
        return super().step(np.asarray(action, float) + bias)


class ShiftedPoints(PointSuite):
    """The task near under a shift; keeps those that environments were made with."""

    made: ClassVar[list[Shift]] = []

    def make(self, task, *, image_size=16, render="fast", guessing=False, shift="none:0"):
        self.made.append(Shift.parse(shift.replace(":", "=")))
        return ShiftedPoint(self.made[-1])


SUITE = ShiftedPoints(TaskInfo("near", "skill", "", 0.1, 40, ("go to the mark",)))


def kit() -> Kit:
    return Kit(UnitKeys(SPEC), None, 4, 0, RetrieveOptions(threshold=0.9), {}, {}, "test_bench_deployment:unit_keys")


def series(arm: str = "full", trials: int = 6, **options: object) -> Series:
    chosen = next(a for a in (*MAIN, *ablations((0, 5)), *CHANGING) if a.name == arm)
    return Series(CONDITION, chosen, 0, trials, 3, **options)


def played(folder, one: Series) -> list[Trial]:
    new = play_series(one, kit(), folder)
    trials = read_trials(folder / one.folder)
    assert new == trials[len(trials) - len(new) :]
    return trials


def same(trials: list[Trial]) -> list[Trial]:
    return [replace(t, commit_ms=0.0) for t in trials]


def test_a_memory_fills_from_verified_successes_alone(tmp_path):
    trials = played(tmp_path, series("oracle"))
    assert [t.trial for t in trials] == list(range(6))
    for before, after in pairwise(trials):
        assert after.success or after.segments == before.segments
    assert trials[-1].segments > 0
    assert trials[0].spoke == 0
    with SuccessMemory(
        tmp_path / series("oracle").folder / "memory.db", origin_of(SPEC, None), layout_of(SPEC), MemoryOptions()
    ) as memory:
        heads = memory.store.episode_heads(memory.origin)
        stored = {h.identity.rpartition("/")[2] for h in heads if h.outcome == "success"}
    assert stored == {str(t.trial) for t in trials if t.success}


def test_a_series_that_was_stopped_goes_on_to_the_same_trials(tmp_path):
    whole = played(tmp_path / "whole", series())
    one = series()
    play_series(replace(one, trials=3), kit(), tmp_path / "parts")
    file = tmp_path / "parts" / one.folder / "episodes.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][: len(lines[2]) // 2])  # the third was cut short
    assert same(played(tmp_path / "parts", one)) == same(whole)


def test_a_trial_that_breaks_is_named(tmp_path, monkeypatch):
    def broken(self, action):
        raise RuntimeError("the solver diverged")

    monkeypatch.setattr(PointMass, "step", broken)
    with pytest.raises(SeriesError, match="trial 0 of task 'near' broke: RuntimeError: the solver diverged"):
        play_series(series("policy"), kit(), tmp_path)


def test_arms_share_initial_states_and_noise(tmp_path):
    bare, nothing = (played(tmp_path, series(name)) for name in ("policy", "capacity_0"))
    assert [t.state for t in bare] == [t.state for t in nothing]
    assert [(t.success, t.steps) for t in bare] == [(t.success, t.steps) for t in nothing]


@pytest.mark.parametrize("arm", ["capacity_5", "fifo_5", "random_5"])
def test_a_full_memory_evicts_as_its_arm_says(tmp_path, arm, monkeypatch):
    asked = []
    monkeypatch.setattr(success_memory, "victims", lambda *a: asked.append(a[2]) or victims(*a))
    trials = played(tmp_path, series(arm))
    assert max(t.segments for t in trials) <= 5
    assert asked
    assert set(asked) == {"utility" if arm == "capacity_5" else arm.partition("_")[0]}


def test_orders_go_through_all_states_again_and_again():
    states = series(trials=9).episodes()
    for lap in range(3):
        assert sorted(states[3 * lap : 3 * lap + 3]) == [0, 1, 2]
    assert not np.array_equal(states, replace(series(trials=9), order=1).episodes())
    np.testing.assert_array_equal(states[:5], series(trials=5).episodes())


def test_the_shift_changes_half_way_in_the_arms_that_say_so(tmp_path):
    after = Shift("actuator", -0.3)
    ShiftedPoints.made.clear()
    played(tmp_path, series("full_change", after=after))
    assert ShiftedPoints.made == [CONDITION.shift, after]


def test_the_plan_has_every_arm_once():
    bench = options("x", ".", ablation_trials=4)
    names = [(s.condition.name, s.arm.name, s.order) for s in plan(bench)]
    assert len(names) == len(set(names)) == 2 * 3 + len(ablations((0,))) + len(CHANGING)
    assert {a.name for a in ablations((0, 9, 5))} - {a.name for a in ablations((0,))} == {
        "capacity_5", "capacity_9", "fifo_5", "random_5",
    }  # fmt: skip


def test_recovery_is_the_first_time_at_which_the_recent_rate_is_the_bare_policys():
    bare = [True, False] * 40
    assert recovery(bare, bare) == 10
    assert recovery([True] * 40 + [False] * 10 + [True] * 30, bare) == 20
    assert recovery([False] * 80, [True] * 80) is None


def test_differences_are_over_the_last_half_in_pairs():
    bare, full = series("policy", 4), series("full", 4)
    trials = {
        bare: [Trial(i, 0, s, 1, 1) for i, s in enumerate([True, True, False, False])],
        full: [Trial(i, 0, s, 1, 1) for i, s in enumerate([False, False, True, False])],
    }
    found = late_difference(trials, CONDITION, "full", (0,), 4)
    assert found is not None
    assert (found.n, found.value, found.only_first) == (2, 0.5, 1)


def options(out, results, **changes: object) -> DeploymentBench:
    given = {
        "preset": "full", "policy": "tiny", "conditions": ("touch:camera=0.1", "touch:table=0.01"), "trials": 4,
        "orders": 1, "long_trials": 0, "ablation_trials": 0, "ablation": "touch:camera=0.1", "capacities": (0,),
        "states": 2, "prepare_episodes": 4, "prepare_offset": 0.0, "execute": 8, "seed": 0, "workers": 1,
        "search_segments": 100, "commits": 1, "kills": 0, "timing_trials": 1, "out": out, "results": results,
    }  # fmt: skip
    return DeploymentBench(**(given | changes))


def test_the_whole_bench_runs_and_a_second_call_plays_nothing_again(tmp_path, monkeypatch):
    monkeypatch.setitem(SUITES._entries, "tabletop", "test_bench_deployment:SUITE")
    name = "near:actuator=0.3"
    bench = options(
        tmp_path / "run", tmp_path / "results", policy="test_bench_deployment:unit_keys",
        conditions=(name,), ablation=name, trials=6, states=3, execute=4,
        ablation_trials=4, prepare_episodes=6, timing_trials=3,
    )  # fmt: skip
    progress = Progress()
    page = run(bench, COMMAND, progress)
    assert page.figures["retrieval_recall"].value == 1
    assert page.figures["mean_gain_points"].n == 3
    assert "decision_time_ratio" in page.figures
    assert "## Ablations: near:actuator=0.3" in page.text
    trials = [read_trials(bench.out / s.folder) for s in plan(bench)]
    assert [len(t) for t in trials] == [s.trials for s in plan(bench)]
    run(bench, COMMAND, progress)
    assert [read_trials(bench.out / s.folder) for s in plan(bench)] == trials
    assert f"{len(trials)} of {len(trials)} series are played already" in progress.lines
    with pytest.raises(DeploymentError, match="holds a bench with seed 0, asked for 1"):
        run(replace(bench, seed=1), COMMAND, progress)


def test_page_and_figures_come_from_the_same_trials(tmp_path):
    bench = options(tmp_path, tmp_path, ablation_trials=4)
    trials = {
        s: [
            Trial(i, 0, s.arm.name != "policy" or i % 2 == 0, 9, 2, "success" if i % 2 else "unknown", int(i > 0))
            for i in range(s.trials)
        ]
        for s in plan(bench)
    }
    found = Found(
        trials, [Search(100, 9, 0.1, 0.2, 1.0)], [3.0, 4.0], (2, 2),
        DecisionTimes((10.0, 10.0, 8.0), (4.0, 11.0, 8.8), (True, False, False), (5.0,), (2.5,)),
    )  # fmt: skip
    page = page_of(bench, found, kit())
    figures = {name: {"value": f.value, "n": f.n} for name, f in page.figures.items()}
    assert figures["mean_gain_points"]["value"] == 50
    assert figures["mean_gain_points"]["n"] == 4
    assert figures["decision_time_ratio"]["value"] == pytest.approx(0.88)
    assert figures["decision_spoken_ratio"]["value"] == pytest.approx(0.4)
    assert figures["decision_silent_ratio"]["value"] == pytest.approx(1.1)
    assert figures["decision_silent_ratio"]["n"] == 2
    assert figures["success_where_spoken"]["value"] == 1
    assert figures["alone_where_spoken"]["n"] == figures["success_where_spoken"]["n"]
    assert figures["alone_where_spoken"]["value"] < 1
    assert figures["sampling_time_ratio"]["value"] == 0.5
    assert figures["kills_survived"]["value"] == 2
    assert figures["critic_precision"]["value"] == 1
    for part in ("touch:table=0.01", "blending at the output", "capacity 0", "deployment_curves.png"):
        assert part in page.text
    assert (tmp_path / "deployment_curves.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ablation": "press:camera=1"}, "is not among"),
        ({"conditions": ("touch",), "ablation": "touch"}, "is not TASK:SHIFT=STRENGTH"),
        ({"conditions": ("touch:wind=1",), "ablation": "touch:wind=1"}, "shift 'wind' is unknown"),
        ({"conditions": ("jump:camera=1",), "ablation": "jump:camera=1"}, "task 'jump' is unknown"),
        ({"states": 0}, "states is 0"),
    ],
)
def test_what_cannot_be_done_is_named(changes, message):
    with pytest.raises(DeploymentError, match=message):
        checked_conditions(options("x", ".", **changes))


def test_preparation_is_recorded_once_and_says_what_is_missing(tmp_path):
    said: list[str] = []
    for _ in range(2):
        calibration, critic = prepare("near", [CONDITION], 6, ShiftedPoint, kit(), tmp_path, said.append)
        assert calibration is None or 0 < calibration.precision <= 1
        assert critic is None
    assert sum("recorded for calibration" in line for line in said) == 0
    assert sum("too few for a critic" in line for line in said) == 2
    assert (tmp_path / "prepared" / "near" / "episodes.safetensors").exists()


def test_every_second_episode_of_the_preparation_has_the_offset_that_is_asked_for(tmp_path):
    states = {}
    for name, offset in (("plain", 0.0), ("offset", 0.5)):
        prepare("near", [CONDITION], 4, ShiftedPoint, kit(), tmp_path / name, print, offset)
        states[name] = load_file(tmp_path / name / "prepared" / "near" / "episodes.safetensors")
    same = [np.array_equal(states["plain"][f"{i}.states"], states["offset"][f"{i}.states"]) for i in range(4)]
    assert same == [True, False, True, False]


def test_without_episodes_nothing_is_prepared(tmp_path):
    assert prepare("near", [CONDITION], 0, ShiftedPoint, kit(), tmp_path, print) == (None, None)
    assert not (tmp_path / "prepared").exists()


def test_a_smaller_run_says_what_was_not_run():
    default = preset(DeploymentBench, "bench_deployment")
    assert smaller(default) == []
    assert smaller(replace(default, trials=9, conditions=("touch:camera=0.1",))) == [
        ("conditions", "touch:camera=0.1", ", ".join(default.conditions)),
        ("trials", "9", "200"),
    ]


def test_a_smoke_test_is_small_and_writes_no_result():
    default = preset(DeploymentBench, "bench_deployment")
    assert default.sized() is default
    small = replace(default, preset="smoke").sized()
    assert (small.conditions, small.ablation, small.trials) == (("touch:actuator=0.25",), "touch:actuator=0.25", 6)
    assert small.out == small.results == default.out / "smoke"
    assert replace(default, preset="smoke", results=Path("here")).sized().results == Path("here")
    assert len(plan(small)) == len(MAIN)


def test_measurements_are_of_what_they_say(tmp_path):
    found = measure_search(3000, 30, 12)
    assert found.recall == 1.0
    assert 0 < found.p50 <= found.p99
    times = measure_commits(tmp_path, layout_of(SPEC), 3, 4)
    assert len(times) == 3
    assert min(times) > 0
