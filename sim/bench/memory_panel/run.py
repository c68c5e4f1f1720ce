"""The memory panel: AURA-Mem and its controls on a frozen policy in closed loop, page docs/results/memory_panel.md.

Every arm is a rollout of its own folder over the same initial states and noise, so that arms compare in pairs and each
is resumed where it stopped. Controls that have to be trained are trained first, on the features that the gate had.
"""

from dataclasses import replace
from pathlib import Path

from vlamem.core.bench import Page, Progress
from vlamem.memory.weights import identity, load_weights
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.memory_panel.arms import PANEL, PanelArm, axes, tasks_of
from vlamem.sim.bench.memory_panel.controls import GATED, gate_file, train_controls
from vlamem.sim.bench.memory_panel.options import PanelOptions
from vlamem.sim.bench.memory_panel.report import page_of, panel_marks
from vlamem.sim.bench.play import play_arm
from vlamem.sim.record.features import FeatureCollection, collect_here
from vlamem.sim.results.pages import ResultsError, load_page
from vlamem.sim.rollout.config import RolloutConfig

SMOKE_EPISODES = 2
"""Episodes of the recording on which a smoke test trains its controls."""


def chosen_arms(options: PanelOptions) -> tuple[PanelArm, ...]:
    """The arms that are played, axes included.

    Raises ValueError for an unknown arm or axis.
    """
    known = {a.name for a in PANEL}
    beside = [(name, axis) for name, _, axis in (b.partition(":") for b in options.axis_baselines)]
    for name in (*options.arms, *(name for name, _ in beside)):
        if name not in known:
            raise ValueError(f"unknown arm '{name}': choose from {', '.join(sorted(known))}")
    for axis in (*options.extra, *(axis for _, axis in beside if axis)):
        if axis not in ("delay", "chunk", "noise"):
            raise ValueError(f"unknown axis '{axis}': choose from delay, chunk, noise")
    arms = [a for a in PANEL if not options.arms or a.name in options.arms]
    others = dict.fromkeys(name for name, _ in beside if name != "aura")
    points = [a for a in axes(others, options.execute) if a.axis in options.extra]
    asked = {("aura", ""), *beside}
    arms += [a for a in points if {(a.base, ""), (a.base, a.axis)} & asked]
    trained = bool(options.features)
    return tuple(a for a in arms if a.memory != "CONTROL" or trained)


def config_of(arm: PanelArm, options: PanelOptions, controls: dict[str, Path]) -> RolloutConfig:
    """The rollout of an arm."""
    control = arm.name.partition("-")[0]
    memory, mark, query = arm.memory.partition("?")
    if memory == "GATE":
        memory = "aura" if options.gate == "shipped" else f"aura:{options.gate}"
    elif memory == "CONTROL":
        memory = f"{'aura' if control in GATED else control}:{controls[control]}"
    config = RolloutConfig(
        suite="tabletop",
        tasks=tasks_of(arm, _selected(options)),
        policy=options.policy,
        memory=(memory + mark + query,),
        episodes=options.episodes if arm.main else options.fewer,
        seed=options.seed,
        out=options.out / arm.name,
        workers=options.workers,
        engine=options.engine,
        video=1 if arm.name in ("alone", "aura") else 0,
        split="test",
        wording="held_out",
        size=84,
        render="fast",
        execute=options.execute,
        parameters=(),
        watchdog_s=300.0,
        retry_errors=True,
    )
    return replace(config, **arm.more)


def _selected(options: PanelOptions) -> tuple[str, ...]:
    from vlamem.sim.suites.registry import load_suite, select_tasks

    return select_tasks(load_suite("tabletop"), options.tasks)


def run(options: PanelOptions, command: str, progress: Progress) -> Page:
    """Trains the controls that are missing, plays every arm (resumable), and gives the page.

    Raises ValueError without the arm that all others are compared with or without a memory task, BenchStoppedError when
    interrupted, ControlError for controls of another gate or of other settings, and what `rollout` and `train_gate`
    raise.
    """
    options = options.sized()
    if options.arms and "aura" not in options.arms:
        raise ValueError(f"arms {', '.join(options.arms)}: the page compares each of them with 'aura', name it too")
    if not tasks_of(replace(PANEL[0], skills=False), _selected(options)):
        raise ValueError(f"tasks {', '.join(options.tasks)}: the page is about memory tasks, name one of them")
    check_gate(options)
    check_page(options)
    if options.preset == "smoke" and not all(folder.exists() for folder in options.features):
        progress.begin("record features", 0, SMOKE_EPISODES)
        small = {"recall_colour": SMOKE_EPISODES}
        for folder in options.features:
            collect_here(FeatureCollection(options.policy, small, {}, folder, command=command))
    arms = chosen_arms(options)
    controls = train_controls(options, command, arms, progress)
    for arm in arms:
        config = config_of(arm, options, controls)
        if config.tasks:
            play_arm(config, arm.title, f"arm '{arm.name}'", progress)
    return page_of(options, arms)


def check_gate(options: PanelOptions) -> None:
    """Raises WeightsError before anything is played when the gate was made for another policy."""
    source = find_policy(options.policy)
    load_weights(gate_file(options), identity(load_policy(source).spec, source.sha256))


def check_page(options: PanelOptions) -> None:
    """Raises ResultsError before anything is played when the page that is to get figures is not there or of another
    policy, gate or seed."""
    if options.add_to is None:
        return
    if options.add_to == options.page:
        raise ResultsError(f"page '{options.page}' cannot get its own figures: give this panel another --page")
    there = load_page(options.add_to, options.results)["fingerprint"]
    for name, value in panel_marks(options).items():
        if there.get(name) != value:
            raise ResultsError(
                f"page '{options.add_to}' is of another {name} ({there.get(name)!r}, not {value!r}): figures of the "
                "two cannot stand on one page, leave out --add-to"
            )
