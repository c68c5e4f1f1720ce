"""A frozen policy over hundreds of consecutive trials, with and without a success memory: the page deployment.md.

One robot, one job, a fixed local shift that the policy never saw. The memory is empty at the first trial. Arms are
compared in pairs: the same shift, order, trial, initial state and noise. Stopped anywhere, the same command goes on.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlamem.core.bench import Page, Progress
from vlamem.core.files import write_atomically
from vlamem.memory.success import Calibration, ProgressCritic, RetrieveOptions
from vlamem.memory.success.runner import layout_of
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.deployment.arms import CHANGING, MAIN, Arm, Condition, ablations, conditions_of
from vlamem.sim.bench.deployment.crash import run as crash_test
from vlamem.sim.bench.deployment.measure import measure_commits, measure_decisions, measure_search
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.bench.deployment.play import Kit, Series, Trial, open_memory, play_series, read_trials
from vlamem.sim.bench.deployment.prepare import files_of, prepare
from vlamem.sim.bench.deployment.report import Found, page_of
from vlamem.sim.rollout.engines.pool import spread
from vlamem.sim.rollout.engines.worker import THREADS
from vlamem.sim.suites.protocol import SuiteEnv
from vlamem.sim.suites.registry import load_suite
from vlamem.sim.suites.tabletop.shift import Shift

Report = Callable[[str], None]


class DeploymentError(ValueError):
    """A bench that cannot be done as asked; the message names the value, what was expected and the mend."""


def checked_conditions(bench: DeploymentBench) -> tuple[Condition, ...]:
    """The conditions. Raises DeploymentError for one that is none, or for sizes below 1."""
    for name in ("trials", "orders", "states", "execute", "workers", "timing_trials"):
        if getattr(bench, name) < 1:
            raise DeploymentError(f"{name} is {getattr(bench, name)}: expected 1 or more")
    try:
        found = conditions_of(bench)
    except ValueError as error:
        raise DeploymentError(str(error)) from error
    if not found or bench.ablation not in bench.conditions:
        raise DeploymentError(
            f"ablation condition {bench.ablation!r} is not among {list(bench.conditions)}: choose one"
        )
    for condition in found:
        tasks = load_suite(condition.suite).tasks
        if condition.task not in tasks:
            raise DeploymentError(f"task {condition.task!r} is unknown: choose one of {', '.join(tasks)}")
    return found


def open_env(condition: Condition, size: int) -> SuiteEnv:
    """The environment of a condition, with images of `size` pixels."""
    shift: dict[str, Any] = {}
    if condition.shift != Shift():
        shift["shift"] = f"{condition.shift.kind}:{condition.shift.strength!r}"
    return load_suite(condition.suite).make(condition.task, image_size=size, **shift)


def plan(bench: DeploymentBench, main: Sequence[Arm] = MAIN) -> list[Series]:
    """Every series of trials, those of the `main` arms first."""
    conditions = checked_conditions(bench)
    one = conditions[bench.conditions.index(bench.ablation)]
    long = max(bench.trials, bench.long_trials)
    made = [
        Series(c, arm, order, long if c == one and order == 0 else bench.trials, bench.states)
        for order in range(bench.orders)
        for c in conditions
        for arm in main
    ]
    if bench.ablation_trials:
        made += [Series(one, arm, 0, bench.ablation_trials, bench.states) for arm in ablations(bench.capacities)]
        other = next((c for c in conditions if c.task == one.task and c != one), None)
        after = other.shift if other is not None else Shift(one.shift.kind, -one.shift.strength)
        made += [Series(one, arm, 0, bench.ablation_trials, bench.states, after) for arm in CHANGING]
    return made


def run(options: DeploymentBench, command: str, progress: Progress) -> Page:
    """Plays what is missing, measures, and gives the page, which says where the run is smaller than the default.

    Raises DeploymentError when `out` holds another bench, and what loading the policy raises.
    """
    bench = options.sized()
    series = plan(bench)
    kit, trials = play(bench, series, progress.say)
    return page_of(bench, _measured(bench, series, kit, trials, progress.say), kit)


def play(bench: DeploymentBench, series: Sequence[Series], report: Report) -> tuple[Kit, dict[Series, list[Trial]]]:
    """Plays what is missing of `series`; returns the kit that they were played with, and all their trials.

    Raises DeploymentError when `out` holds another bench, and what loading the policy raises.
    """
    _claim(bench)
    kit = _kit(bench, report)
    _play(bench, series, kit, report)
    return kit, {s: read_trials(bench.out / s.folder)[: s.trials] for s in series}


def _claim(bench: DeploymentBench) -> None:
    """Makes the run folder this bench's; raises DeploymentError when it is another's."""
    source = find_policy(bench.policy)
    marks = {name: getattr(bench, name) for name in ("policy", "states", "prepare_episodes", "execute", "seed")} | {
        "weights": source.sha256,
        # a task's threshold and critic are of episodes under all of its shifts
        "conditions": [t for t, c in zip(bench.conditions, conditions_of(bench), strict=True) if c.suite == "tabletop"],
    }
    if bench.prepare_offset:  # benches of before it was an option have none
        marks["prepare_offset"] = bench.prepare_offset
    path = bench.out / "bench.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for name, value in (dict.fromkeys(before) | marks).items():
            if before.get(name) != value:
                raise DeploymentError(
                    f"{bench.out} holds a bench with {name} {before.get(name)!r}, asked for {value!r}: choose another "
                    "--out"
                )
    else:
        write_atomically(path, json.dumps(marks, indent=2) + "\n")


def _kit(bench: DeploymentBench, report: Report) -> Kit:
    """The policy, with threshold and critic of every task; recorded first where that has not been done."""
    os.environ.update(THREADS)
    source = find_policy(bench.policy)
    bare = Kit(load_policy(source), source.sha256, bench.execute, bench.seed, RetrieveOptions(), {}, {}, bench.policy)
    _one_thread()
    calibration: dict[str, Calibration] = {}
    critic: dict[str, ProgressCritic] = {}
    files: dict[tuple[str, str], Path] = {}
    conditions = conditions_of(bench)
    for task in sorted({c.task for c in conditions}):
        here = [c for c in conditions if c.task == task]

        def env_of(shift: Shift, one: Condition = here[0]) -> SuiteEnv:
            return open_env(replace(one, shift=shift), bare.policy.spec.image_size)

        found, judge = prepare(
            task, here, bench.prepare_episodes, env_of, bare, bench.out, report, bench.prepare_offset
        )
        files |= files_of(task, bench.out)
        if found is not None:
            calibration[task] = found
        if judge is not None:
            critic[task] = judge
    return replace(bare, calibration=calibration, critic=critic, files=files)


def _one_thread() -> None:
    """Where the policy has loaded torch: one thread of arithmetic, as in every worker."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _play(bench: DeploymentBench, series: Sequence[Series], kit: Kit, report: Report) -> None:
    left = [s for s in series if len(read_trials(bench.out / s.folder)) < s.trials]
    report(f"{len(series) - len(left)} of {len(series)} series are played already")
    if bench.workers == 1:
        for i, one in enumerate(left):
            played = play_series(one, kit, bench.out)
            report(f"{i + 1}/{len(left)} {_said(one, played)}")
        return
    for i, (one, played) in enumerate(spread(_in_worker, left, bench.workers, _begin, (bench,))):
        report(f"{i + 1}/{len(left)} {_said(one, played)}")


_WORKER: dict[str, Any] = {}


def _begin(bench: DeploymentBench) -> None:
    _WORKER["kit"], _WORKER["out"] = _kit(bench, lambda line: None), bench.out


def _in_worker(series: Series) -> list[Trial]:
    return play_series(series, _WORKER["kit"], _WORKER["out"])


def _said(series: Series, played: Sequence[Trial]) -> str:
    good = sum(t.success for t in played)
    return (
        f"{series.condition.name} {series.arm.name} order {series.order}: {good} of {len(played)} new trials succeeded"
    )


def _measured(
    bench: DeploymentBench, series: Sequence[Series], kit: Kit, trials: dict[Series, list[Trial]], report: Report
) -> Found:
    layout = layout_of(kit.policy.spec)
    size = layout.key_size + layout.proprioception_size
    search = [measure_search(bench.search_segments, 400, size)]
    for s in search:
        report(f"search: p50 {s.p50:.2f} ms, p99 {s.p99:.2f} ms, recall {s.recall:.4f}")
    commits = measure_commits(bench.out / "measured", layout, bench.commits, 16)
    survived, wrong = crash_test(bench.out / "crash", bench.kills, bench.seed)
    for line in wrong:
        report(line)
    report(f"{survived} of {bench.kills} kills survived")
    full = next(s for s in series if s.arm.name == "full" and s.condition.name == conditions_of(bench)[0].name)
    env = open_env(full.condition, kit.policy.spec.image_size)
    memory = open_memory(bench.out / full.folder / "memory.db", full.arm, kit, full.condition.task)
    try:
        times = measure_decisions(env, kit, memory, range(min(bench.states, bench.timing_trials)))
    finally:
        memory.close()
        env.close()
    return Found(trials, search, commits, (survived, bench.kills), times)
