"""What a frozen policy does alone on the tabletop suite: the page docs/results/skills.md.

Arms: initial states and paraphrases never trained on; the combinations of colour and place left out of training; the
oracle variants; the memory tasks as they are, where success above chance would mean that the task does not need a
memory; the scripted experts, knowing and guessing; and the probe for leaks after the cue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.play import Begin, Progress, play_arm
from vlamem.sim.bench.skills.notes import NOTES
from vlamem.sim.bench.skills.options import SkillsBench
from vlamem.sim.results.pages import Figure, write_result_page
from vlamem.sim.results.statistics import wilson95
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.registry import load_suite, select_tasks

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.leak import ProbeResult

    Probes = Mapping[str, Mapping[str, ProbeResult]]

PROBED = ("recall_colour", "latest_wins", "sequence", "shell_game", "count_press", "put_back")


@dataclass(frozen=True)
class Arm:
    """One run of the page.

    Attributes:
        name: of its folder and its columns.
        title: what the page calls it.
        tasks: as in `--tasks`.
        policy: as in `--policy`; empty for the policy under test.
        split, wording: which initial states and sentences.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    policy: str = ""
    split: str = "test"
    wording: str = "held_out"


ARMS = (
    Arm("test", "new initial states, held-out wording", ("skills", "oracle")),
    Arm("novel", "combinations left out of training, held-out wording", ("skills", "oracle"), split="novel"),
    Arm("memory", "memory tasks, the policy alone", ("memory",)),
    Arm("expert", "scripted expert", ("skills", "memory"), policy="expert"),
    Arm("guess", "scripted expert that guesses what must be remembered", ("memory",), policy="random-choice"),
)


def run(
    options: SkillsBench,
    command: str,
    begin: Begin,
    progress: Progress,
) -> tuple[Path, Path]:
    """Plays every arm (resumable) and writes the page with the `command` that made it; returns its two files.

    Raises BenchStoppedError when interrupted, and what `rollout` raises.
    """
    ends: dict[str, dict[str, Any]] = {}
    chosen = select_tasks(load_suite("tabletop"), options.tasks)
    for arm in ARMS:
        config = RolloutConfig(
            suite="tabletop",
            tasks=tuple(t for t in select_tasks(load_suite("tabletop"), arm.tasks) if t in chosen),
            policy=arm.policy or options.policy,
            memory=("none",),
            episodes=options.expert_episodes if arm.policy else options.episodes,
            seed=options.seed,
            out=options.out / arm.name,
            workers=options.workers,
            video=0 if arm.policy else 1,
            split=arm.split,  # type: ignore[arg-type]  # checked by the environment
            wording=arm.wording,  # type: ignore[arg-type]
            size=84,
            render="fast",
            execute=options.execute,
            parameters=(),
            watchdog_s=120.0,
            retry_errors=True,
        )
        ends[arm.name] = play_arm(config, arm.title, f"arm '{arm.name}'", begin, progress)
    probes = _probes(options, [task for task in PROBED if task in chosen], begin)
    return _write(options, command, ends, probes)


def _probes(options: SkillsBench, tasks: list[str], begin: Begin) -> "Probes":
    from vlamem.sim.suites.tabletop import SUITE
    from vlamem.sim.suites.tabletop.leak import feature_of, pixels, probe

    looks = {"pixels": pixels, "z": feature_of(load_policy(find_policy(options.policy)))}
    found = {}
    for i, task in enumerate(tasks):
        begin(f"probe {task}", i, len(tasks))
        env = SUITE.make(task)
        found[task] = probe(env, options.probe_episodes, looks=looks)
        env.close()
    return found


def _rates(results: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(successes, n) by task."""
    (arm,) = results["arms"].values()
    return {task: (counts["successes"], counts["n"]) for task, counts in arm["tasks"].items()}


def _mean(rates: Mapping[str, tuple[int, int]]) -> Figure:
    """Mean of the tasks' rates; every task has the same n, so that the interval is the pooled Wilson interval."""
    successes, n = (sum(r[i] for r in rates.values()) for i in (0, 1))
    return Figure(float(np.mean([s / m for s, m in rates.values()])), n, wilson95(successes, n))


def _write(
    options: SkillsBench,
    command: str,
    ends: Mapping[str, Mapping[str, Any]],
    probes: "Probes",
) -> tuple[Path, Path]:
    tasks = load_suite("tabletop").tasks
    by_arm = {name: _rates(results) for name, results in ends.items()}
    skills = {t: r for t, r in by_arm["test"].items() if tasks[t].kind == "skill"}
    told = {t: r for t, r in by_arm["test"].items() if tasks[t].kind == "oracle"}
    worst = min(skills, key=lambda t: skills[t][0] / skills[t][1])
    above = {t: s / n - tasks[t].chance for t, (s, n) in by_arm["memory"].items()}
    mean_chance = float(np.mean([tasks[t].chance for t in above]))
    alone = _mean(by_arm["memory"])
    source = find_policy(options.policy)
    policy: Any = load_policy(source)
    metrics = policy.header["metrics"]
    clock = ends["test"]["wall_clock"]["decision_ms"]
    (latency,) = clock.values()
    novel = {k: {t: r for t, r in by_arm["novel"].items() if tasks[t].kind == k} for k in ("skill", "oracle")}
    figures = {
        "skills_success": _mean(skills),
        "oracle_success": _mean(told),
        "worst_skill_success": _mean({worst: skills[worst]}),
        "novel_skills_success": _mean(novel["skill"]),
        "novel_oracle_success": _mean(novel["oracle"]),
        "memory_alone_minus_chance_points": _points(float(np.mean(list(above.values()))), alone, mean_chance),
        "probe_minus_chance_points": Figure(
            100 * float(np.mean([p.accuracy - p.chance for looks in probes.values() for p in looks.values()])),
            sum(p.n for looks in probes.values() for p in looks.values()),
            None,
        ),
        "weights_mb": Figure(source.weights.stat().st_size / 1e6 if source.weights else 0.0, None, None),
        "parameters_m": Figure(metrics["parameters_m"], None, None),
        "pretrain_minutes": Figure(metrics["minutes"], None, None),
        "decision_p50_ms": Figure(latency["total"]["p50"], latency["total"]["n"], None),
    }
    header = {"weights": source.sha256, "pretrain": policy.header["command"], "data": policy.header["data"]}
    page = _page(by_arm, probes, policy.header) + (NOTES if options.policy == "tiny" else "")
    return write_result_page("skills", command, figures, page, options.results, header)


def _points(above: float, pooled: Figure, chance: float) -> Figure:
    assert pooled.ci95 is not None
    low, high = pooled.ci95
    return Figure(100 * above, pooled.n, (100 * (low - chance), 100 * (high - chance)))


def _cell(rates: Mapping[str, tuple[int, int]], task: str) -> str:
    if task not in rates:
        return ""
    successes, n = rates[task]
    low, high = wilson95(successes, n)
    return f"{100 * successes / n:.0f} ({100 * low:.0f} to {100 * high:.0f}), n {n}"


def _page(by_arm: Mapping[str, Any], probes: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    tasks = load_suite("tabletop").tasks
    lines = [
        "# TinyVLA alone on the tabletop suite",
        "",
        "Success in per cent with its Wilson 95 % interval. Both columns of the policy have initial states and a",
        "paraphrase that were never trained on; the second has only the combinations of colour and place that",
        "training leaves out.",
        "",
        "| task | " + " | ".join(a.title for a in ARMS[:2]) + " | scripted expert |",
        "| --- | --- | --- | --- |",
    ]
    for task in by_arm["test"]:
        expert = _cell(by_arm["expert"], task)
        cells = [_cell(by_arm[a.name], task) for a in ARMS[:2]]
        lines.append(f"| {task} | " + " | ".join(cells) + f" | {expert} |")
    lines += [
        "",
        "The memory tasks as they are. A policy without memory can only guess: at best it reaches the chance level.",
        "",
        "| task | what must be remembered | chance | expert that guesses | policy alone | expert that knows |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task in by_arm["memory"]:
        info = tasks[task]
        cells = [_cell(by_arm[a], task) for a in ("guess", "memory", "expert")]
        lines.append(f"| {task} | {info.remember} | {100 * info.chance:.0f} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Linear probes for the answer, 10-fold: on the pixels of both images with the proprioception, and on the",
        "frozen policy's feature z, at the go signal. Chance and p come from 999 draws of other answers that",
        "the same scenes allow: which colours are on the table tells a third of the answers. `while it shows` is the",
        "control that the probe finds an answer that can be seen; how often a lamp blinked no single frame shows.",
        "",
        "| task | probe | n | after the cue | chance | while it shows | p (after the cue) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {t} | {name} | {p.n} | {100 * p.accuracy:.0f} | {100 * p.chance:.0f} | {control} | {p.p_value:.3f} |"
        for t, looks in probes.items()
        for name, p in looks.items()
        for control in ["-" if p.cue_accuracy is None else f"{100 * p.cue_accuracy:.0f}"]
    ]
    data = header["data"]
    lines += [
        "",
        f"Trained by `{header['command']}` on {data['training_frames']} frames of "
        f"{sum(data['episodes'].values())} demonstrations.",
    ]
    return "\n".join(lines)
