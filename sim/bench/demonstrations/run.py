"""A gate of `vlamem fit` in closed loop: the page docs/results/demonstrations.md.

Every arm is a rollout of its own folder over the same initial states and noise, so that arms compare in pairs and each
is resumed where it stopped. The fitted gate is played first: the controls write as often as it did.
"""

from dataclasses import replace

from vlamem.core.bench import Page, Progress
from vlamem.memory.weights import identity, load_weights
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.demonstrations.arms import ARMS, FITTED, SAME_RATE
from vlamem.sim.bench.demonstrations.options import DemonstrationsBench
from vlamem.sim.bench.demonstrations.report import page_of
from vlamem.sim.bench.memory_panel.arms import PanelArm, tasks_of
from vlamem.sim.bench.memory_panel.played import played_of
from vlamem.sim.bench.play import play_arm
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.registry import load_suite, select_tasks

_STATES = 1000
"""Initial states of a task that an order other than 0 draws from."""


def chosen_arms(options: DemonstrationsBench) -> tuple[PanelArm, ...]:
    """The arms that are played. Raises ValueError for an unknown arm, and without the fitted one."""
    known = [arm.name for arm in ARMS]
    for name in options.arms:
        if name not in known:
            raise ValueError(f"unknown arm '{name}': choose from {', '.join(known)}")
    if options.arms and FITTED not in options.arms:
        raise ValueError(f"arms {', '.join(options.arms)}: each is compared with '{FITTED}', name it too")
    return tuple(arm for arm in ARMS if not options.arms or arm.name in options.arms)


def config_of(arm: PanelArm, options: DemonstrationsBench, rate: float) -> RolloutConfig:
    """The rollout of an arm; `rate`: writes per tick of the fitted gate."""
    memory = arm.memory.replace("GATE", f"aura:{options.gate}")
    if arm.name in SAME_RATE:
        memory += f"&rate={rate:.4f}"
    config = RolloutConfig(
        suite="tabletop",
        tasks=tasks_of(arm, select_tasks(load_suite("tabletop"), options.tasks)),
        policy=options.policy,
        memory=(memory,),
        episodes=options.episodes if arm.main else options.fewer,
        seed=options.seed,
        out=options.out / arm.name,
        workers=options.workers,
        engine=options.engine,
        video=1 if arm.name == FITTED else 0,
        split="test",
        wording="held_out",
        size=84,
        render="fast",
        execute=options.execute,
        parameters=(),
        watchdog_s=300.0,
        retry_errors=True,
        order=options.order,
        states=_STATES if options.order else None,
    )
    return replace(config, **arm.more)


def run(options: DemonstrationsBench, command: str, progress: Progress) -> Page:
    """Plays every arm (resumable) and gives the page.

    Raises ValueError for arms as `chosen_arms` and without a memory task, WeightsError for a gate of another policy,
    BenchStoppedError when interrupted, and what `rollout` raises.
    """
    arms = chosen_arms(options)
    chosen = select_tasks(load_suite("tabletop"), options.tasks)
    memory = tasks_of(replace(ARMS[0], skills=False), chosen)
    if not memory:
        raise ValueError(f"tasks {', '.join(options.tasks)}: the page is about memory tasks, name one of them")
    source = find_policy(options.policy)
    load_weights(options.gate, identity(load_policy(source).spec, source.sha256))
    rate = 0.0
    for arm in arms:
        play_arm(config_of(arm, options, rate), arm.title, f"arm '{arm.name}'", progress)
        if arm.name == FITTED:
            rate = played_of([arm], options.out)[FITTED].writes(memory) or 0.0
    return page_of(options, arms)
