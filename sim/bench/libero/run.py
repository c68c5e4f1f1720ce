"""vlamem's memories on LIBERO: the policy alone, a recurrent memory beside it, a success memory; page libero.md.

Tasks, initial states and verdict are the benchmark's own. Every arm has a folder of its own and goes on where it was
stopped; arms are compared on the same (task, initial state, seed). No task of LIBERO needs a recurrent memory, so that
it can only be shown that one does no harm.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vlamem.core.bench import Page, Progress
from vlamem.memory.train.gate import GateOptions, train_gate
from vlamem.memory.weights import identity, load_weights
from vlamem.policies.memories import parse_memories
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.deployment.arms import MAIN
from vlamem.sim.bench.deployment.options import DeploymentBench, trials_alone
from vlamem.sim.bench.deployment.run import plan, play
from vlamem.sim.bench.libero.checks import check, expert_tasks_covered, skill_tasks, split_task
from vlamem.sim.bench.libero.options import LiberoBench
from vlamem.sim.bench.libero.report import MEMORIES, Found, SuccessPlayed, page_of
from vlamem.sim.bench.play import play_arm
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig


def run(options: LiberoBench, command: str, progress: Progress) -> Page:
    """Plays what is missing (resumable), and gives the page.

    Raises LiberoBenchError, BenchStoppedError when interrupted, and what `rollout`, `train_gate` and the deployment
    bench raise.
    """
    bench = options.sized()
    check(bench)
    source = find_policy(bench.policy)
    policy = load_policy(source)
    found = Found()
    if "skills" in bench.parts:
        skills = {
            suite: _played(
                config_of(bench, policy, suite, tasks, "none", bench.states, bench.out / "skills" / suite),
                f"{suite}, policy alone",
                progress,
            )
            for suite, tasks in skill_tasks(bench).items()
        }
        found = replace(found, covered=expert_tasks_covered(bench.experts), skills=skills)
    if "harm" in bench.parts:
        names = memories(bench, policy, source.sha256, progress)
        harm = _harm(bench, policy, names, found.skills, progress)
        found = replace(found, harm=harm, gate=parse_memories((names["aura"],))[0].file)
    if "success" in bench.parts:
        deployed = deployment_of(bench)
        arms = MAIN if bench.verify == "critic" else tuple(replace(a, verification="predicate") for a in MAIN)
        found = replace(found, success=SuccessPlayed(deployed, *play(deployed, plan(deployed, arms), progress.say)))
    return page_of(bench, found)


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
        engine=bench.engine,
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


def _played(config: RolloutConfig, title: str, progress: Progress) -> list[EpisodeRecord]:
    play_arm(config, title, f"arm '{title}'", progress)
    return [r for r in EpisodeLog(config.out / "episodes.jsonl").read() if r.outcome != "error"]


def _harm(
    bench: LiberoBench,
    policy: FrozenPolicy,
    names: Mapping[str, str],
    skills: Mapping[str, Sequence[EpisodeRecord]],
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
            found[arm] += _played(config, f"{task}, {MEMORIES[arm]}", progress)
    return found


def memories(bench: LiberoBench, policy: FrozenPolicy, sha256: str | None, progress: Progress) -> dict[str, str]:
    """`--memory` of both arms; their weights are trained on the features where they are missing.

    The memory proposes a residual on the conditioning, which is how it is injected in a rollout. Raises
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
                progress.begin(title, update, bench.updates)

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
    prepare = bench.prepare_episodes, 0.0
    return trials_alone(bench, jobs, bench.success_states, prepare, bench.out / f"success-{bench.verify}")
