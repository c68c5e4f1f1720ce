"""sim/bench/throughput: what is compared with what, and the clocks around the parts of an episode."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import point_mass
import pytest
from bench_cases import Progress
from libero_cases import TASKS, needs_libero

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.policies.registry import PolicyError
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.bench.throughput import run as throughput
from vlamem.sim.bench.throughput import runs as throughput_runs
from vlamem.sim.bench.throughput.options import ThroughputBench
from vlamem.sim.bench.throughput.parts import SECONDS, TimedEnv, TimedPolicy
from vlamem.sim.bench.throughput.run import Run, ThroughputError, parts_of, run
from vlamem.sim.bench.throughput.runs import Arena
from vlamem.sim.gl import Backend
from vlamem.sim.suites.libero.assets import LiberoMissingError


def bench(tmp_path: Path, **changes: Any) -> ThroughputBench:
    sizes: dict[str, Any] = {
        "parts": ("tabletop",), "tasks": ("touch",), "episodes": 4, "libero_policy": "tiny", "libero_episodes": 2,
        "out": tmp_path / "out", "results": tmp_path,
    }  # fmt: skip
    return replace(preset(ThroughputBench, "bench_throughput"), **sizes | changes)


def arena(suite: str = "tabletop") -> Arena:
    return Arena(suite, ("touch",), "tiny", 4, 1, suite != "tabletop")


def test_a_smoke_test_plays_one_task_in_one_environment(tmp_path: Path) -> None:
    small = replace(bench(tmp_path), preset="smoke", tasks=("touch", "press")).sized()
    assert (small.tasks, small.episodes, small.batches, small.profile_episodes) == (("touch",), 2, (1,), 1)
    assert (len(small.libero_tasks), small.libero_episodes, small.libero_resets) == (1, 1, ("soft",))
    assert bench(tmp_path).sized() == bench(tmp_path)


def outcomes(*won: bool) -> dict[tuple[str, int], bool]:
    return {("touch", episode): success for episode, success in enumerate(won)}


SHARES = {"physics": 0.5, "render": 0.2, "encode": 0.1, "sample": 0.1, "rest": 0.1}


def test_the_ratio_is_to_the_fastest_setting_of_lerobot_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 40.0, 2: 20.0}
    monkeypatch.setattr(
        throughput, "play_lerobot",
        lambda bench, arena, batch: Run(f"batch {batch}", seconds[batch], outcomes(True, True, False, True)),
    )  # fmt: skip
    own = {4: 5.0, 1: 8.0}
    monkeypatch.setattr(
        throughput, "play_ours",
        lambda bench, arena, render, batch: Run(f"ours {batch}", own[batch], outcomes(True, True, True, True)),
    )  # fmt: skip
    monkeypatch.setattr(throughput, "profile", lambda *_: (SHARES, 100))
    page = run(bench(tmp_path), "vlamem bench throughput", Progress())
    figures = {name: {"value": f.value, "n": f.n} for name, f in page.figures.items()}
    assert figures["ratio_tabletop"]["value"] == pytest.approx(4.0)
    assert figures["episodes_per_hour"]["value"] == pytest.approx(4 * 3600 / 5.0)
    assert figures["success"]["value"] == 1.0
    assert figures["success_lerobot"]["value"] == 0.75
    assert figures["share_render"]["n"] == 100
    assert "+25 points" in page.text
    rows = [line.split(" | ") for line in page.text.splitlines() if line.startswith("| ours")]
    assert [(row[0], row[5]) for row in rows] == [("| ours 4", "1.00"), ("| ours 1", "1.60")]


@needs_libero
def test_on_libero_both_render_profiles_are_held_against_the_fastest_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frugal = {("hard", 1): 80.0, ("soft", 1): 36.0}
    hours = {("hard", 1): 90.0, ("hard", 2): 60.0, ("soft", 1): 40.0, ("soft", 2): 30.0}
    monkeypatch.setattr(
        throughput, "play_lerobot",
        lambda bench, arena, batch, reset: Run(
            f"{reset} {batch}", hours[reset, batch], outcomes(True, False), frugal.get((reset, batch))
        ),
    )  # fmt: skip
    own = {
        ("fast", 4): Run("fast", 6.0, outcomes(True, True), 9.0),
        ("fast", 1): Run("fast 1", 7.0, outcomes(True, True), 9.0),
        ("faithful", 4): Run("faithful", 10.0, outcomes(True, False)),
    }
    monkeypatch.setattr(throughput, "play_ours", lambda bench, arena, render, batch: own[render, batch])
    monkeypatch.setattr(throughput, "profile", lambda *_: (SHARES, 50))
    page = run(bench(tmp_path, parts=("libero",)), "vlamem bench throughput", Progress())
    figures = {name: {"value": f.value, "n": f.n} for name, f in page.figures.items()}
    assert figures["ratio_libero"]["value"] == pytest.approx(5.0)
    assert figures["ratio_libero_faithful"]["value"] == pytest.approx(3.0)
    assert figures["processor_ratio_libero"]["value"] == pytest.approx(4.0)
    assert figures["success_libero_faithful"]["value"] == figures["success_libero_lerobot"]["value"] == 0.5
    assert "faithful minus soft 2: +0 points" in page.text
    assert "ratio_tabletop" not in figures


def test_parts_that_cannot_be_run_are_left_out_with_a_line_or_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise LiberoMissingError("the LIBERO benchmark is not installed: make libero")

    monkeypatch.setattr(throughput, "find_paths", missing)
    lines: list[str] = []
    assert parts_of(bench(tmp_path, parts=()), lines.append) == ("tabletop",)
    assert lines[0] == "libero is left out: the LIBERO benchmark is not installed: make libero"
    assert "families" in lines[1]
    with pytest.raises(LiberoMissingError, match="make libero"):
        parts_of(bench(tmp_path, parts=("tabletop", "libero")), lines.append)
    with pytest.raises(ThroughputError, match="--families"):
        parts_of(bench(tmp_path, parts=("families",)), lines.append)
    with pytest.raises(PolicyError, match=r"no-such\.safetensors"):
        parts_of(bench(tmp_path, policy="no-such.safetensors"), lines.append)


def test_a_run_that_breaks_off_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "lerobot-eval"
    program.write_text("#!/bin/sh\necho no such policy >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(throughput_runs.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ThroughputError, match=r"(?s)ended with 3:.*no such policy"):
        throughput_runs.play_lerobot(bench(tmp_path), arena(), 1)


@needs_libero
def test_lerobot_eval_plays_the_same_tasks_of_libero_at_the_same_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "lerobot-eval"
    body = {"overall": {"eval_s": 7.0}, "per_task": [{"task_id": 7, "metrics": {"successes": [True, False]}}]}
    (tmp_path / "body.json").write_text(json.dumps(body))
    program.write_text(
        f'#!/bin/sh\necho "$MUJOCO_GL $@"\nfor w in "$@"; do case "$w" in --output_dir=*) o="${{w#*=}}";; esac; done\n'
        f'mkdir -p "$o" && cp {tmp_path}/body.json "$o/eval_info.json"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(throughput_runs.gl, "choose", lambda: Backend("osmesa", True))
    monkeypatch.setattr(throughput_runs.sys, "executable", str(tmp_path / "python"))
    one = replace(arena("libero_object"), tasks=TASKS[:1])
    found = throughput_runs.play_lerobot(bench(tmp_path), one, 2, "soft")
    assert found.seconds == 7.0
    assert found.successes == {(TASKS[0], 0): True, (TASKS[0], 1): False}
    log = (tmp_path / "out" / "libero_object" / "lerobot-2-soft" / "log.txt").read_text()
    for word in ("--env.task_ids=[7]", "--env.hard_reset=false", "--env.observation_width=84", "n_action_steps=8"):
        assert word in log
    assert log.startswith("osmesa ")


def test_tick_and_plan_of_a_policy_are_figures_and_a_line_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("lerobot")
    pytest.importorskip("transformers")
    from vlamem.sim.bench.throughput.families import cost_of, figures_of
    from vlamem.sim.bench.throughput.report import page_of

    cost = cost_of("lerobot_cases:act", 3)
    assert (cost.name, cost.tick.n, cost.plan.n) == ("act", 3, 3)
    assert cost.share > 0
    assert set(figures_of([cost])) == {"tick_ms_act", "plan_ms_act", "tick_share_act"}
    page = page_of(bench(tmp_path), figures_of([cost]), [], [cost])
    assert page.text.splitlines()[-1].startswith(f"| act | {cost.feature} | ")


@pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations
def test_the_smoke_preset_plays_with_both_programs_and_writes_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for needed in ("lerobot", "transformers", "robosuite"):
        pytest.importorskip(needed)
    from lerobot_cases import PLUGINS, installed_plugins

    def missing() -> None:
        raise LiberoMissingError("the LIBERO benchmark is not installed: make libero")

    monkeypatch.setattr(throughput, "find_paths", missing)
    (tmp_path / "site").mkdir()
    paths = [str(installed_plugins(tmp_path / "site")), *map(str, PLUGINS)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["--preset", "smoke", "--workers", "1", "--out", str(tmp_path / "run"), "--results", str(tmp_path)]
    assert main(["bench", "throughput", *words]) == 0
    assert "libero is left out: the LIBERO benchmark is not installed" in capsys.readouterr().out
    figures = json.loads((tmp_path / "throughput.json").read_text())["figures"]
    assert figures["ratio_tabletop"]["n"] == 2
    assert figures["processor_ratio_tabletop"]["value"] > 0
    assert sum(figures[f"share_{part}"]["value"] for part in SHARES) == pytest.approx(1.0)


def test_a_policy_with_a_clock_reads_as_many_observations_as_without_one() -> None:
    policy = point_mass.policy()
    assert TimedPolicy(policy).history == 1
    policy.history = 2  # type: ignore[attr-defined]  # as a checkpoint that reads two has it
    assert TimedPolicy(policy).history == 2


def test_clocks_change_no_action_and_run_only_inside_their_part() -> None:
    plain, timed = point_mass.SUITE.make("near"), TimedEnv(point_mass.SUITE.make("near"))
    policies = point_mass.policy(), TimedPolicy(point_mass.policy())
    SECONDS.clear()
    ends = []
    for env, policy in zip((plain, timed), policies, strict=True):
        env.render_on_step = False
        env.reset(options={"episode": 3, "split": "test", "wording": "training"})
        noise, ended, steps = stream(0, "noise"), False, 0
        while not ended:
            full = env.observe()
            seen = Observation({"top": full["top"][None]}, full["proprioception"][None], (full["instruction"],))
            drawn = noise.standard_normal((1, policy.spec.horizon, policy.spec.action.size), dtype=np.float32)
            last, _, terminated, truncated, _ = env.step(policy.sample(policy.encode(seen), drawn)[0, 0])
            ended, steps = terminated or truncated, steps + 1
        ends.append((steps, last["proprioception"].tolist()))
        assert bool(SECONDS) is (env is timed)
    assert ends[0] == ends[1]
    assert set(SECONDS) == {"physics", "render", "encode", "sample"}
    assert min(SECONDS.values()) > 0
    assert timed.render_on_step is False
