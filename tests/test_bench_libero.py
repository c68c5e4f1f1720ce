"""The LIBERO bench: what it asks for, how it pairs, its page; and, with the benchmark installed, a smoke test."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bench_cases import Progress
from libero_cases import TASKS, needs_libero
from test_bench_deployment import kit, same

from vlamem.memory.train.gate import GateOptions
from vlamem.policies.memories import SHIPPED_GATE
from vlamem.policies.registry import find_policy, load_policy
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.bench.deployment import run as deployment
from vlamem.sim.bench.deployment.arms import MAIN, Condition
from vlamem.sim.bench.deployment.play import Series, Trial, play_series
from vlamem.sim.bench.libero import run as libero
from vlamem.sim.bench.libero.checks import LiberoBenchError, check, skill_tasks, split_task
from vlamem.sim.bench.libero.options import LiberoBench
from vlamem.sim.bench.libero.report import Found, SuccessPlayed, difference, page_of, write_ratio
from vlamem.sim.bench.libero.run import deployment_of
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.suites.tabletop.shift import Shift

JOBS = tuple(f"libero_object/{t}" for t in TASKS)


@pytest.fixture
def bench(tmp_path: Path) -> LiberoBench:
    twin = tmp_path / "libero_experts.json"
    twin.write_text('{"figures": {"expert_tasks_covered": {"value": 31}}}')
    return replace(
        preset(LiberoBench, "bench_libero"), policy="tiny", experts=twin, harm_tasks=JOBS, success_tasks=JOBS,
        harm_states=2, trials=4, out=tmp_path / "run", results=tmp_path,
    )  # fmt: skip


def record(arm: str, task: str, episode: int, success: bool, writes: int = 0, ticks: int = 0) -> EpisodeRecord:
    outcome = "success" if success else "failure"
    return EpisodeRecord(
        arm, task, "test", episode, 0, outcome, f"test/{episode}", steps=100, writes=writes, ticks=ticks
    )


def records(arm: str, good: tuple[bool, bool], **counts: int) -> list[EpisodeRecord]:
    return [record(arm, task, i, good[i], **counts) for task in TASKS for i in range(2)]


def test_a_job_of_another_suite_has_no_shift() -> None:
    one = Condition.parse(JOBS[0])
    assert one == Condition(TASKS[0], Shift(), "libero_object")
    assert (one.name, one.folder) == (JOBS[0], f"libero_object-{TASKS[0]}")
    with pytest.raises(ValueError, match="is not TASK:SHIFT=STRENGTH"):
        Condition.parse("libero_object/x:camera")


def test_an_environment_without_a_shift_is_played_as_one_whose_shift_is_nothing(tmp_path: Path) -> None:
    played = []
    for suite in ("point_mass:SUITE", "test_bench_deployment:SUITE"):
        series = Series(Condition("near", Shift(), suite), MAIN[1], 0, 5, 3)
        played.append(same(play_series(series, kit(), tmp_path)))
    assert len(played[0]) == 5
    assert played[0] == played[1]


def test_jobs_without_a_shift_can_be_added_to_a_run_folder_and_other_sizes_cannot(bench: LiberoBench) -> None:
    deployment._claim(deployment_of_one(bench, JOBS[:1]))
    deployment._claim(deployment_of_one(bench, JOBS))
    with pytest.raises(deployment.DeploymentError, match="states 50, asked for 9"):
        deployment._claim(replace(deployment_of_one(bench, JOBS), states=9))


def deployment_of_one(bench: LiberoBench, jobs: tuple[str, ...]) -> deployment.DeploymentBench:
    return deployment.DeploymentBench(
        "full", "tiny", jobs, 4, 1, 0, 0, jobs[0], (), 50, 4, 0.0, 8, 0, 1, 0, 0, 0, 1, bench.out, bench.results
    )


def test_pairs_are_of_one_task_state_and_seed() -> None:
    found = difference(records("aura", (True, False)), records("none", (False, False))[:3])
    assert found is not None
    assert (found.n, found.only_first, found.only_second) == (3, 2, 0)
    assert difference(records("aura", (True, True)), []) is None


def test_a_gate_that_never_opened_gives_a_lower_bound_of_the_ratio() -> None:
    always = records("always", (True, True), writes=50, ticks=50)
    shut = records("aura", (True, True), writes=0, ticks=50)
    assert write_ratio({"aura": shut, "always": always}) == (200, False)
    assert write_ratio({"aura": records("aura", (True, True), writes=5, ticks=50), "always": always}) == (10, True)


def test_page_and_figures_say_what_was_played(bench: LiberoBench) -> None:
    jobs = tuple(Condition.parse(job) for job in JOBS)
    trials = {
        Series(c, arm, 0, 4, 2): [Trial(i, i % 2, arm.name != "policy" or i < 2, 99, 9) for i in range(4)]
        for c in jobs
        for arm in MAIN
    }
    found = Found(
        31.0,
        {"libero_object": records("none", (True, False)), "libero_spatial": [record("none", "bowl", 0, True)]},
        {
            "alone": records("none", (True, False)),
            "aura": records("aura", (True, True), ticks=100),
            "always": records("aura", (False, False), writes=100, ticks=100),
        },
        SHIPPED_GATE,
        SuccessPlayed(deployment_of_one(bench, JOBS), kit(), trials),
    )
    page = page_of(bench, found)
    figures = {name: {"value": f.value, "n": f.n, "ci95": f.ci95} for name, f in page.figures.items()}
    assert figures["object_success"]["value"] == 0.5
    assert figures["spatial_success"]["n"] == 1
    assert figures["expert_tasks_covered"]["value"] == 31
    assert figures["aura_no_harm_points"]["value"] == 50
    assert figures["aura_no_harm_ci_low_points"]["value"] == figures["aura_no_harm_points"]["ci95"][0]
    assert figures["always_no_harm_points"]["value"] == -50
    assert figures["always_write_ratio"]["value"] == 400
    assert figures["success_memory_gain_points"] | {"ci95": None} == {"value": 100, "n": 4, "ci95": None}
    assert figures["success_memory_gain_all_trials_points"]["value"] == 50
    assert figures["replay_gain_points"]["value"] == 100
    assert "AURA-Mem did not write at all" in page.text
    assert f"| {TASKS[0]} | 2 | 50 (9 to 91) |" in page.text
    alone = page_of(bench, Found(31.0, found.skills))
    assert set(alone.figures) == {"object_success", "spatial_success", "expert_tasks_covered"}


def test_a_smoke_test_is_small_trains_nothing_and_writes_no_result() -> None:
    default = preset(LiberoBench, "bench_libero")
    assert default.sized() is default
    small = replace(default, preset="smoke").sized()
    assert small.parts == ("skills", "success")
    assert small.out == small.results == default.out / "smoke"
    assert (small.features, small.trials, small.states) == ((), 2, 2)
    with_gate = replace(default, preset="smoke", gate=SHIPPED_GATE).sized()
    assert with_gate.parts == default.parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"states": 51}, "states is 51: expected 1 to 50"),
        ({"trials": 0}, "trials is 0: expected 1 or more"),
        ({"parts": ()}, "no part is asked for"),
        ({"experts": Path("nowhere.json")}, "nowhere.json is missing: write it with 'vlamem bench libero-experts'"),
        ({"experts": Path(__file__)}, "does not say expert_tasks_covered"),
        ({"suites": (), "parts": ("harm",), "harm_tasks": ()}, "no task is named"),
    ],
)
def test_what_cannot_be_done_is_named(bench: LiberoBench, changes: dict[str, object], message: str) -> None:
    with pytest.raises(LiberoBenchError, match=message):
        check(replace(bench, **changes))


@needs_libero
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suites": ("libero_spatial",), "tasks": JOBS}, "not among .'libero_spatial'.: add it"),
        ({"harm_tasks": ("press",)}, "'press' is not SUITE/TASK"),
        ({"harm_tasks": ("libero_object/press",)}, "'press' is unknown in suite 'libero_object'"),
        ({"parts": ("harm",)}, "is not among them"),
        ({"harm_states": 21}, "21 states, they have 20"),
        ({"features": ()}, "neither --gate nor --features"),
        ({"success_tasks": ()}, "part success has no task"),
    ],
)
def test_parts_that_lack_something_are_named(bench: LiberoBench, changes: dict[str, object], message: str) -> None:
    with pytest.raises(LiberoBenchError, match=message):
        check(replace(bench, **changes))


@needs_libero
def test_the_default_can_be_done_but_for_what_has_to_be_recorded_first(bench: LiberoBench) -> None:
    default = replace(preset(LiberoBench, "bench_libero"), experts=bench.experts)
    check(default)
    assert [len(t) for t in skill_tasks(default).values()] == [10, 10]
    assert skill_tasks(replace(default, tasks=JOBS)) == {"libero_object": TASKS}
    assert len(default.harm_tasks) * default.harm_states >= 60
    assert {split_task(t)[0] for t in default.success_tasks} == set(default.suites)
    assert deployment_of(default).conditions == default.success_tasks


def test_both_memories_are_trained_alike_on_the_features_or_share_the_gate_that_is_given(
    bench: LiberoBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[GateOptions] = []

    def train(how: GateOptions, folder: Path, progress: object) -> None:
        trained.append(how)
        folder.mkdir(parents=True)
        shutil.copy(SHIPPED_GATE, folder / "gate.safetensors")

    monkeypatch.setattr(libero, "train_gate", train)
    source = find_policy("tiny")
    given = (load_policy(source), source.sha256, Progress())
    features = replace(bench, features=(Path("some"),))
    folder = bench.out / "gates"
    for _ in range(2):  # the second finds them there
        assert libero.memories(features, *given) == {
            arm: f"aura:{folder / arm / 'gate.safetensors'}" for arm in ("aura", "always")
        }
    assert [(how.gate, how.targets) for how in trained] == [("learned", "context"), ("always", "context")]
    assert "vlamem train-gate --features some --policy tiny --targets context --gate always" in trained[1].command
    alone = libero.memories(replace(bench, gate=SHIPPED_GATE, features=()), *given)
    assert alone == {"aura": f"aura:{SHIPPED_GATE}", "always": f"aura:{SHIPPED_GATE}?gate=always"}


@needs_libero
@pytest.mark.timeout(1800)  # processes load torch and a scene one after the other
def test_a_smoke_test_plays_every_part_and_a_second_call_plays_nothing_again(
    bench: LiberoBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--preset", "smoke", "--policy", "tiny", "--gate", str(SHIPPED_GATE), "--experts", str(bench.experts)]
    words += ["--out", str(tmp_path / "run")]
    folder = tmp_path / "run" / "smoke"
    files = ("skills/libero_object/episodes.jsonl", "success-predicate/prepared")
    assert main(["bench", "libero", *words]) == 0
    first = json.loads((folder / "libero.json").read_text())
    figures = first["figures"]
    assert figures["object_success"]["n"] == 2
    assert figures["aura_no_harm_points"]["n"] == 1
    assert figures["always_writes_per_tick"]["value"] == 1
    assert figures["success_memory_gain_all_trials_points"]["n"] == 2
    before = [(folder / name).stat().st_mtime_ns for name in files]
    assert main(["bench", "libero", *words]) == 0
    assert "3 of 3 series are played already" in capsys.readouterr().out
    assert [(folder / name).stat().st_mtime_ns for name in files] == before
    assert json.loads((folder / "libero.json").read_text())["figures"] == figures
