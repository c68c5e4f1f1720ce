"""A success memory in initial states that never come again: the page transfer.md.

One robot, one job, a fixed local shift that the policy never saw, and no initial state twice. The memory is empty at
the first trial. Arms are compared in pairs: the same shift, trial, initial state and noise. Trials are those of the
deployment bench.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vlamem.core.bench import BenchError, Page, Progress
from vlamem.memory.success.retrieve import Residual
from vlamem.memory.success.runner import SuccessRunner
from vlamem.sim.bench.deployment.arms import Condition
from vlamem.sim.bench.deployment.measure import measure_search
from vlamem.sim.bench.deployment.options import DeploymentBench, trials_alone
from vlamem.sim.bench.deployment.play import Kit, Series, open_memory
from vlamem.sim.bench.deployment.run import DeploymentError, checked_conditions, open_env, play
from vlamem.sim.bench.transfer.arms import control_arms, main_arms
from vlamem.sim.bench.transfer.cost import Cost, measure_decisions, processor_ms
from vlamem.sim.bench.transfer.options import TransferBench
from vlamem.sim.bench.transfer.report import KINDS, Found, page_of

QUERIES = 200
SIZE = 72
"""Of the shipped policy's key and proprioception."""


class TransferError(BenchError):
    """A bench that cannot be done as asked; the message names the value, what was expected and the mend."""


def run(options: TransferBench, command: str, progress: Progress) -> Page:
    """Plays what is missing, and gives the page.

    Raises TransferError for options that cannot be, or when `out` holds another bench.
    """
    bench = options.sized()
    for text in (*bench.controls, *bench.leave_out):
        if text not in bench.conditions:
            raise TransferError(f"{text!r} is not among the conditions {list(bench.conditions)}: choose one of these")
    if bench.trials > bench.states:
        raise TransferError(
            f"{bench.trials} trials need as many initial states, and there are {bench.states}: give more"
        )
    found = Found({}, {}, {}, {}, None)
    try:
        jobs = {task: checked_conditions(deployment_of(bench, task)) for task in tasks_of(bench)}
        for controls in (False, True):
            for task, conditions in jobs.items():
                chosen = series_of(bench, [c for c in conditions if c.name not in bench.leave_out], controls)
                if not chosen:
                    continue
                one = deployment_of(bench, task, controls)
                kit, trials = play(one, chosen, progress.say)
                found.trials.update(trials)
                if controls:
                    found.kits[task] = kit
                for series in trials:
                    if series.arm.prior == "residual":
                        found.learned[series] = learned(one.out / series.folder / "memory.db", series, kit)
                if found.cost is None and bench.timing_trials and not controls:
                    found.cost = _decisions(bench, one, kit, list(trials))
    except DeploymentError as error:
        raise TransferError(str(error)) from error
    for segments in bench.search_segments:
        for kind, decay in KINDS.items():
            found.search[kind, segments] = measure_search(segments, QUERIES, SIZE, bench.seed, decay, processor_ms)
            progress.say(f"search of {segments} {kind}: p99 {found.search[kind, segments].p99:.2f} ms")
    return page_of(bench, found)


def _decisions(bench: TransferBench, one: DeploymentBench, kit: Kit, played: Sequence[Series]) -> Cost | None:
    """What the memory of the first series with a residual prior costs a decision."""
    series = next((s for s in played if s.arm.prior == "residual"), None)
    if series is None:
        return None
    env = open_env(series.condition, kit.policy.spec.image_size)
    memory = open_memory(
        one.out / series.folder / "memory.db", replace(series.arm, explore=0), kit, series.condition.task
    )
    try:
        return measure_decisions(env, kit, memory, range(min(bench.states, bench.timing_trials)))
    finally:
        memory.close()
        env.close()


def tasks_of(bench: TransferBench) -> list[str]:
    """Tasks of the conditions, in their order."""
    return list(dict.fromkeys(text.partition(":")[0] for text in bench.conditions))


def deployment_of(bench: TransferBench, task: str, controls: bool = False) -> DeploymentBench:
    """The conditions of one task as a deployment: a state for every trial, one order, nothing measured beside.

    Threshold and critic are prepared for the controls alone, which are played last and in a folder of their own: the
    main arms need neither.
    """
    conditions = tuple(text for text in bench.conditions if text.partition(":")[0] == task)
    prepare = bench.prepare_episodes if controls else 0, bench.prepare_offset
    out = bench.out / "controls" / task if controls else bench.out / task
    return trials_alone(bench, conditions, bench.states, prepare, out)


def series_of(bench: TransferBench, conditions: Sequence[Condition], controls: bool) -> list[Series]:
    """The series of trials of some conditions: those of the main arms, or those of the control arms."""
    arms = control_arms(bench) if controls else main_arms(bench)
    played = [c for c in conditions if c.name in bench.controls] if controls else conditions
    return [Series(c, arm, 0, bench.trials, bench.states) for c in played for arm in arms]


def learned(path: Path, series: Series, kit: Kit) -> Residual:
    """What a series has learned at its end, as it would be used without exploring."""
    runner: SuccessRunner = open_memory(path, replace(series.arm, explore=0), kit, series.condition.task)
    try:
        return runner.memory.residual()
    finally:
        runner.close()
