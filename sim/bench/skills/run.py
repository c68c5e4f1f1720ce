"""What a frozen policy does alone on the tabletop suite: the page docs/results/skills.md.

Arms: initial states and paraphrases never trained on; the combinations of colour and place left out of training; the
oracle variants; the memory tasks as they are, where success above chance would mean that the task does not need a
memory; the scripted experts, knowing and guessing; and the probe for leaks after the cue.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlamem.core.bench import Page, Progress
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.play import play_arm
from vlamem.sim.bench.skills.options import SkillsBench
from vlamem.sim.bench.skills.report import page_of
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.registry import load_suite, select_tasks

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.leak import ProbeResult

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


def run(options: SkillsBench, command: str, progress: Progress) -> Page:
    """Plays every arm (resumable), probes for leaks, and gives the page.

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
            engine=options.engine,
            video=0 if arm.policy else 1,
            split=arm.split,  # type: ignore[arg-type]  # checked by the environment
            wording=arm.wording,  # type: ignore[arg-type]  # likewise
            size=84,
            render="fast",
            execute=options.execute,
            parameters=(),
            watchdog_s=120.0,
            retry_errors=True,
        )
        ends[arm.name] = play_arm(config, arm.title, f"arm '{arm.name}'", progress)
    probes = _probes(options, [task for task in PROBED if task in chosen], progress)
    return page_of(options, ends, probes)


def _probes(options: SkillsBench, tasks: list[str], progress: Progress) -> "dict[str, dict[str, ProbeResult]]":
    from vlamem.sim.suites.tabletop import SUITE
    from vlamem.sim.suites.tabletop.leak import feature_of, pixels, probe

    looks = {"pixels": pixels, "z": feature_of(load_policy(find_policy(options.policy)))}
    found = {}
    for i, task in enumerate(tasks):
        progress.begin(f"probe {task}", i, len(tasks))
        env = SUITE.make(task)
        found[task] = probe(env, options.probe_episodes, looks=looks)
        env.close()
    return found
