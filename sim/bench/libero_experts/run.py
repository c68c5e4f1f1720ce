"""Which LIBERO tasks the scripted experts solve: the page docs/results/libero_experts.md."""

from collections.abc import Sequence
from pathlib import Path

from vlamem.sim.bench.play import Begin, Progress, play_arm
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import Figure, write_result_page
from vlamem.sim.results.statistics import wilson95
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.registry import load_suite

CLAIMED = 0.90
"""A task counts as covered from this success rate on."""


def run(
    configs: Sequence[RolloutConfig],
    command: str,
    results: Path,
    begin: Begin,
    progress: Progress,
) -> tuple[Path, Path]:
    """Plays the expert in each suite of `configs` (resumable) and writes the page; returns its two files.

    Raises BenchStoppedError when interrupted, and what `rollout` raises.
    """
    records: dict[str, list[EpisodeRecord]] = {}
    for config in configs:
        play_arm(config, config.suite, f"suite '{config.suite}'", begin, progress)
        records[config.suite] = EpisodeLog(config.out / "episodes.jsonl").read()
    return write_page(records, command, results)


def write_page(records: dict[str, list[EpisodeRecord]], command: str, results: Path) -> tuple[Path, Path]:
    """The page and its twin from the episodes of each suite."""
    figures: dict[str, Figure] = {}
    lines = [
        "# Scripted experts on LIBERO",
        "",
        "Success by the benchmark's own verdict, from its stored initial states, within the step limits that the field",
        "uses; Wilson 95 % interval. The experts see the simulator's state and act through OSC_POSE at 20 Hz, like any",
        f"policy. A task is covered when at least {100 * CLAIMED:.0f} % of its episodes succeed.",
    ]
    covered_in_all = 0
    for suite, played in records.items():
        lines += ["", f"## {suite}", "", "| task | covered | success | 95 % interval | n | mean steps |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        covered, successes, n = 0, 0, 0
        for task in load_suite(suite).tasks:
            mine = [r for r in played if r.task == task]
            valid = [r for r in mine if r.outcome != "error"]
            if not valid:
                why = next((r.error.partition(" (")[0] for r in mine if r.error), "not played")
                lines.append(f"| {task} | no: {why} | | | 0 | |")
                continue
            good = sum(r.outcome == "success" for r in valid)
            low, high = wilson95(good, len(valid))
            is_covered = good >= CLAIMED * len(valid)
            covered += is_covered
            successes, n = successes + good, n + len(valid)
            steps = sum(r.steps for r in valid if r.outcome == "success") / max(1, good)
            lines.append(
                f"| {task} | {'yes' if is_covered else 'no'} | {100 * good / len(valid):.0f} % "
                f"| {100 * low:.0f} to {100 * high:.0f} | {len(valid)} | {steps:.0f} |"
            )
        covered_in_all += covered
        figures[f"{suite}_tasks_covered"] = Figure(covered)
        if n:
            figures[f"{suite}_expert_success"] = Figure.rate(successes, n)
        errors = sum(r.outcome == "error" and "NoExpertError" not in (r.error or "") for r in played)
        if errors:
            lines += ["", f"{errors} episodes ended as errors of the simulation or the expert and are not counted."]
    figures["expert_tasks_covered"] = Figure(covered_in_all)
    return write_result_page("libero_experts", command, figures, "\n".join(lines), results)
