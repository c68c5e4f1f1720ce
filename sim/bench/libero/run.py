"""vlamem's memories on LIBERO: the policy alone, a recurrent memory beside it, a success memory; page libero.md.

Tasks, initial states and verdict are the benchmark's own. Every arm has a folder of its own and goes on where it was
stopped; arms are compared on the same (task, initial state, seed). No task of LIBERO needs a recurrent memory, so that
it can only be shown that one does no harm.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlamem.memory.train.gate import GateOptions, train_gate
from vlamem.memory.weights import identity, load_weights
from vlamem.policies.memories import parse_memories
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.deployment.arms import MAIN
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.bench.deployment.play import Kit, Series, Trial
from vlamem.sim.bench.deployment.run import plan, play
from vlamem.sim.bench.libero.options import STORED_STATES, LiberoBench
from vlamem.sim.bench.play import Begin, Progress, play_arm
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.registry import load_suite

Report = Callable[[str], None]
MEMORIES = {"aura": "AURA-Mem", "always": "always-write"}
"""Arms beside the policy alone, with their titles."""


class LiberoBenchError(ValueError):
    """A bench that cannot be done as asked; the message names the value, what was expected and the mend."""


@dataclass(frozen=True)
class SuccessPlayed:
    """The trials of the success memory and the kit that they were played with."""

    bench: DeploymentBench
    kit: Kit
    trials: dict[Series, list[Trial]]


@dataclass(frozen=True)
class Found:
    """What was played; empty or None for a part that was not.

    Attributes:
        covered: tasks that the scripted experts cover, from their page.
        skills: the policy's episodes by suite.
        harm: episodes by arm (alone, and MEMORIES) over the tasks and states of part harm.
        gate: AURA-Mem's weights file in it.
        success: of part success.
    """

    covered: float | None = None
    skills: Mapping[str, Sequence[EpisodeRecord]] = field(default_factory=dict)
    harm: Mapping[str, Sequence[EpisodeRecord]] = field(default_factory=dict)
    gate: Path | None = None
    success: SuccessPlayed | None = None


def split_task(text: str) -> tuple[str, str]:
    """Suite and task of SUITE/TASK. Raises LiberoBenchError for anything else and for an unknown task."""
    suite, slash, task = text.partition("/")
    if not (suite.startswith("libero_") and slash):
        raise LiberoBenchError(f"task {text!r} is not SUITE/TASK of LIBERO, e.g. libero_object/pick_up_the_milk_...")
    known = load_suite(suite).tasks
    if task not in known:
        raise LiberoBenchError(f"task {task!r} is unknown in suite '{suite}': choose one of {', '.join(known)}")
    return suite, task


def by_suite(tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The tasks, written as SUITE/TASK, of each suite. Raises LiberoBenchError as `split_task`."""
    found: dict[str, tuple[str, ...]] = {}
    for suite, task in map(split_task, tasks):
        found[suite] = (*found.get(suite, ()), task)
    return found


def skill_tasks(bench: LiberoBench) -> dict[str, tuple[str, ...]]:
    """The tasks of part skills by suite. Raises LiberoBenchError for one that is of none of the suites."""
    chosen = by_suite(bench.tasks)
    other = [s for s in chosen if s not in bench.suites]
    if other:
        raise LiberoBenchError(f"tasks of suite '{other[0]}', which is not among {list(bench.suites)}: add it")
    return {s: chosen[s] if chosen else tuple(load_suite(s).tasks) for s in bench.suites if s in chosen or not chosen}


def check(bench: LiberoBench) -> None:
    """Raises LiberoBenchError for sizes that are out of range, and for parts that lack what they need."""
    sizes = ("states", "harm_states", "updates", "trials", "success_states", "prepare_episodes", "execute", "workers")
    for name in sizes:
        most = STORED_STATES if name.endswith("states") else None
        value = getattr(bench, name)
        if value < 1 or (most is not None and value > most):
            raise LiberoBenchError(f"{name} is {value}: expected 1 {f'to {most}' if most else 'or more'}")
    if not bench.parts:
        raise LiberoBenchError("no part is asked for: choose from skills, harm, success")
    if "skills" in bench.parts:
        expert_tasks_covered(bench.experts)
        skill_tasks(bench)
    if "harm" in bench.parts:
        _check_harm(bench)
    if "success" in bench.parts and not by_suite(bench.success_tasks):
        raise LiberoBenchError("part success has no task: name some with --success-tasks")


def _check_harm(bench: LiberoBench) -> None:
    """The policy alone of part harm are the first episodes of part skills."""
    played = skill_tasks(bench) if "skills" in bench.parts else {}
    wanted = by_suite(bench.harm_tasks)
    missing = [f"{s}/{t}" for s, tasks in wanted.items() for t in tasks if t not in played.get(s, ())]
    if not wanted or missing or bench.harm_states > bench.states:
        what = f"{missing[0]} is not among them" if missing else f"{bench.harm_states} states, they have {bench.states}"
        raise LiberoBenchError(
            f"part harm compares with the episodes of part skills ({what if wanted else 'no task is named'}): add "
            "skills to --parts, and choose --harm-tasks and --harm-states among its own"
        )
    if bench.gate is None and not bench.features:
        raise LiberoBenchError(
            "part harm has neither --gate nor --features: record features of the policy with 'vlamem collect --suite "
            "libero_object --features --frames', or leave harm out of --parts"
        )


def expert_tasks_covered(twin: Path) -> float:
    """How many tasks the scripted experts cover, from the page `twin`. Raises LiberoBenchError when it is missing."""
    mend = "write it with 'vlamem bench libero-experts', or name it with --experts"
    try:
        return float(json.loads(twin.read_text(encoding="utf-8"))["figures"]["expert_tasks_covered"]["value"])
    except FileNotFoundError as error:
        raise LiberoBenchError(f"{twin} is missing: {mend}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LiberoBenchError(f"{twin} does not say expert_tasks_covered ({error!r}): {mend}") from error


def run(bench: LiberoBench, command: str, begin: Begin, progress: Progress, report: Report) -> tuple[Path, Path]:
    """Plays what is missing (resumable) and writes the page with the `command` that made it; returns its two files.

    Raises LiberoBenchError, BenchStoppedError when interrupted, and what `rollout`, `train_gate` and the deployment
    bench raise.
    """
    from vlamem.sim.bench.libero.report import write_page

    check(bench)
    source = find_policy(bench.policy)
    policy = load_policy(source)
    found = Found()
    if "skills" in bench.parts:
        skills = {
            suite: _played(
                config_of(bench, policy, suite, tasks, "none", bench.states, bench.out / "skills" / suite),
                f"{suite}, policy alone",
                begin,
                progress,
            )
            for suite, tasks in skill_tasks(bench).items()
        }
        found = replace(found, covered=expert_tasks_covered(bench.experts), skills=skills)
    if "harm" in bench.parts:
        names = memories(bench, policy, source.sha256, begin)
        harm = _harm(bench, policy, names, found.skills, begin, progress)
        found = replace(found, harm=harm, gate=parse_memories((names["aura"],))[0].file)
    if "success" in bench.parts:
        deployed = deployment_of(bench)
        arms = MAIN if bench.verify == "critic" else tuple(replace(a, verification="predicate") for a in MAIN)
        found = replace(found, success=SuccessPlayed(deployed, *play(deployed, plan(deployed, arms), report)))
    return write_page(bench, command, found)


def config_of(
    bench: LiberoBench, policy: FrozenPolicy, suite: str, tasks: tuple[str, ...], memory: str, states: int, out: Path
) -> RolloutConfig:
    """The rollout of one arm over tasks of one suite."""
    return RolloutConfig(
        suite=suite,
        tasks=tasks,
        policy=bench.policy,
        memory=(memory,),
        episodes=states,
        seed=bench.seed,
        out=out,
        workers=bench.workers,
        video=0,
        split="test",
        wording="training",
        size=policy.spec.image_size,
        render="fast",
        execute=bench.execute,
        parameters=(),
        watchdog_s=900.0,
        retry_errors=True,
    )


def _played(config: RolloutConfig, title: str, begin: Begin, progress: Progress) -> list[EpisodeRecord]:
    play_arm(config, title, f"arm '{title}'", begin, progress)
    return [r for r in EpisodeLog(config.out / "episodes.jsonl").read() if r.outcome != "error"]


def _harm(
    bench: LiberoBench,
    policy: FrozenPolicy,
    names: Mapping[str, str],
    skills: Mapping[str, Sequence[EpisodeRecord]],
    begin: Begin,
    progress: Progress,
) -> dict[str, list[EpisodeRecord]]:
    """Episodes by arm, `names` its `--memory`; those of the policy alone are part skills' own."""
    wanted = [split_task(text) for text in bench.harm_tasks]
    found: dict[str, list[EpisodeRecord]] = {"alone": [], **{arm: [] for arm in names}}
    for suite, task in wanted:
        found["alone"] += [r for r in skills[suite] if r.task == task and r.episode < bench.harm_states]
        for arm, memory in names.items():
            out = bench.out / "harm" / arm / f"{suite}-{task}"  # a folder a task: others can be added later
            config = config_of(bench, policy, suite, (task,), memory, bench.harm_states, out)
            found[arm] += _played(config, f"{task}, {MEMORIES[arm]}", begin, progress)
    return found


def memories(bench: LiberoBench, policy: FrozenPolicy, sha256: str | None, begin: Begin) -> dict[str, str]:
    """`--memory` of both arms; their weights are trained on the features where they are missing.

    The memory proposes what the policy should have been told, which is how it is injected in a rollout. Raises
    WeightsError for a gate of another policy.
    """
    used_with = identity(policy.spec, sha256)
    files = {} if bench.gate is None else {"aura": bench.gate}
    for arm, gate in (("aura", "learned"), ("always", "always")):
        folder = bench.out / "gates" / arm
        if arm in files or not bench.features:
            continue
        files[arm] = folder / "gate.safetensors"
        if files[arm].exists():
            continue
        how = GateOptions(
            features=bench.features,
            targets="context",
            gate=gate,
            updates=bench.updates,
            seed=bench.seed,
            used_with=used_with,
            command=_training_command(bench, gate, folder),
        )

        def trained(update: int, last: dict[str, float], title: str = f"train {MEMORIES[arm]}") -> None:
            if update % 25 == 0:
                begin(title, update, bench.updates)

        train_gate(how, folder, trained)
    for file in files.values():
        load_weights(file, used_with)
    always = f"aura:{files['always']}" if "always" in files else f"aura:{files['aura']}?gate=always"
    return {"aura": f"aura:{files['aura']}", "always": always}


def _training_command(bench: LiberoBench, gate: str, folder: Path) -> str:
    """The command that trains the same weights by itself."""
    words = ["vlamem", "train-gate", "--features", *map(str, bench.features), "--policy", bench.policy]
    words += ["--targets", "context", "--gate", gate, "--updates", str(bench.updates), "--seed", str(bench.seed)]
    return shlex.join([*words, "--out", str(folder)])


def deployment_of(bench: LiberoBench) -> DeploymentBench:
    """Part success as a deployment: jobs without a shift, one order, nothing measured beside the trials."""
    jobs = tuple(f"{suite}/{task}" for suite, task in map(split_task, bench.success_tasks))
    return DeploymentBench(
        preset="full",
        policy=bench.policy,
        conditions=jobs,
        trials=bench.trials,
        orders=1,
        long_trials=0,
        ablation_trials=0,
        ablation=jobs[0],
        capacities=(),
        states=bench.success_states,
        prepare_episodes=bench.prepare_episodes,
        execute=bench.execute,
        seed=bench.seed,
        workers=bench.workers,
        search_segments=0,
        commits=0,
        kills=0,
        timing_trials=1,
        out=bench.out / f"success-{bench.verify}",
        results=bench.results,
    )
