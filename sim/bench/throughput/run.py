"""Episodes an hour of `vlamem rollout` and of lerobot-eval: same policy, tasks, initial states and machine.

On the tabletop suite, behind lerobot's environment interface, and on LIBERO, where lerobot has an environment of its
own; and what a memory's tick costs beside a plan.
"""

import shutil
from collections.abc import Callable, Sequence

from vlamem.core.bench import Page, Progress
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.throughput.families import Cost, cost_of, figures_of
from vlamem.sim.bench.throughput.options import PARTS, Part, ThroughputBench
from vlamem.sim.bench.throughput.report import Section, page_of, rate, section
from vlamem.sim.bench.throughput.runs import Arena, Run, ThroughputError, play_lerobot, play_ours, profile
from vlamem.sim.results.pages import Figure
from vlamem.sim.suites.libero.assets import LiberoMissingError, find_paths
from vlamem.sim.suites.protocol import RenderProfile
from vlamem.sim.suites.registry import load_suite, select_tasks

__all__ = ["Run", "ThroughputError", "parts_of", "run"]

Say = Callable[[str], None]
Measured = tuple[dict[str, Figure], Section]
"""Figures and section of one arena."""


def parts_of(bench: ThroughputBench, say: Say) -> tuple[Part, ...]:
    """The parts to run, in order; a line says why one is left out that was not asked for by name.

    Raises LiberoMissingError for a libero part asked for without the benchmark, ThroughputError for a families part
    without any, PolicyError for a policy that is not there.
    """
    if "families" in bench.parts and not bench.families:
        raise ThroughputError(
            "no policy is named whose tick and plan are to be timed: add --families FOLDER (a checkpoint of lerobot), "
            "or package.module:FACTORY"
        )
    left_out: dict[Part, str] = {}
    try:
        find_paths()
    except LiberoMissingError as error:
        if "libero" in bench.parts:
            raise
        left_out["libero"] = str(error)
    if not bench.families:
        left_out["families"] = "no --families are named"
    for part, why in left_out.items():
        if not bench.parts:
            say(f"{part} is left out: {why}")
    parts = tuple(part for part in PARTS if part in (bench.parts or set(PARTS) - set(left_out)))
    needed = {"tabletop": (bench.policy,), "libero": (bench.libero_policy,), "families": bench.families}
    for part in parts:
        for policy in needed[part]:
            find_policy(policy)
    return parts


def run(options: ThroughputBench, command: str, progress: Progress) -> Page:
    """Measures every part, and gives the page.

    Raises ThroughputError when a run breaks off, and what `parts_of` and `rollout` raise.
    """
    bench, say = options.sized(), progress.say
    parts = parts_of(bench, say)
    shutil.rmtree(bench.out, ignore_errors=True)
    measures: dict[Part, Callable[[ThroughputBench, Say], Measured]] = {"tabletop": _tabletop, "libero": _libero}
    figures: dict[str, Figure] = {}
    sections: list[Section] = []
    for part in parts:
        if part in measures:
            found, one = measures[part](bench, say)
            figures |= found
            sections.append(one)
    costs = _costs(bench, say) if "families" in parts else []
    return page_of(bench, figures | figures_of(costs), sections, costs)


def _tabletop(bench: ThroughputBench, say: Say) -> Measured:
    tasks = select_tasks(load_suite("tabletop"), bench.tasks)
    arena = Arena("tabletop", tasks, bench.policy, bench.episodes, bench.profile_episodes, False)
    theirs = []
    for batch in bench.batches:
        say(f"tabletop: lerobot-eval, {batch} environments")
        theirs.append(play_lerobot(bench, arena, batch))
    ours, *single = _ours(bench, arena, "fast", say)
    say("tabletop: where the time goes")
    shares, steps = profile(bench, arena, "fast")
    fastest = max(theirs, key=lambda r: r.hourly)
    figures = {
        "ratio_tabletop": Figure(ours.hourly / fastest.hourly, len(ours.successes)),
        "episodes_per_hour": Figure(ours.hourly, len(ours.successes)),
        "episodes_per_hour_lerobot": Figure(fastest.hourly, len(fastest.successes)),
        "success": rate(ours),
        "success_lerobot": rate(fastest),
        **{f"share_{name}": Figure(share, steps) for name, share in shares.items()},
    }
    figures |= _processor_ratio("tabletop", ours, theirs)
    return figures, section(bench, arena, (ours, *single), theirs, {"fast": shares}, {"fast": steps})


def _ours(bench: ThroughputBench, arena: Arena, render: RenderProfile, say: Say, single: bool = True) -> list[Run]:
    """`vlamem rollout` in batches as asked, and where `single` one episode at a time, to show what batches give."""
    found = []
    for batch in dict.fromkeys((bench.batch, 1) if single else (bench.batch,)):
        say(f"{arena.suite}: vlamem rollout, {render}, batches of {batch}")
        found.append(play_ours(bench, arena, render, batch))
    return found


def _processor_ratio(name: str, ours: Run, theirs: Sequence[Run]) -> dict[str, Figure]:
    """Processor time of the most frugal lerobot-eval that accounts for its own, over that of `ours`."""
    known = [run.processor for run in theirs if run.processor is not None]
    if not known or not ours.processor:
        return {}
    return {f"processor_ratio_{name}": Figure(min(known) / ours.processor, len(ours.successes))}


def _libero(bench: ThroughputBench, say: Say) -> Measured:
    suite = bench.libero_suite
    tasks = select_tasks(load_suite(suite), bench.libero_tasks)
    arena = Arena(suite, tasks, bench.libero_policy, bench.libero_episodes, bench.libero_profile_episodes, True)
    theirs = []
    for reset in bench.libero_resets:
        for batch in bench.libero_batches:
            say(f"{suite}: lerobot-eval, {batch} environments, {reset} resets")
            theirs.append(play_lerobot(bench, arena, batch, reset))
    profiles: tuple[RenderProfile, ...] = ("fast", "faithful")
    ours: dict[RenderProfile, list[Run]] = {}
    shares: dict[str, dict[str, float]] = {}
    steps: dict[str, int] = {}
    first = Arena(suite, tasks[:1], arena.policy, arena.episodes, arena.profiled, True)
    for render in profiles:
        ours[render] = _ours(bench, arena, render, say, single=render == "fast")
        say(f"{suite}: where the time goes, {render}")
        shares[render], steps[render] = profile(bench, first, render)
    fastest = max(theirs, key=lambda r: r.hourly)
    fast, faithful = ours["fast"][0], ours["faithful"][0]
    n = len(fast.successes)
    figures = {
        "ratio_libero": Figure(fast.hourly / fastest.hourly, n),
        "ratio_libero_faithful": Figure(faithful.hourly / fastest.hourly, n),
        "episodes_per_hour_libero": Figure(fast.hourly, n),
        "episodes_per_hour_libero_faithful": Figure(faithful.hourly, n),
        "episodes_per_hour_libero_lerobot": Figure(fastest.hourly, n),
        "success_libero": rate(fast),
        "success_libero_faithful": rate(faithful),
        "success_libero_lerobot": rate(fastest),
        **{
            f"share_libero_{render}_{name}": Figure(share, steps[render])
            for render, found in shares.items()
            for name, share in found.items()
        },
    }
    figures |= _processor_ratio("libero", fast, theirs)
    return figures, section(bench, arena, (*ours["fast"], faithful), theirs, shares, steps)


def _costs(bench: ThroughputBench, say: Say) -> list[Cost]:
    costs = []
    for name in bench.families:
        say(f"a tick and a plan of {name}")
        costs.append(cost_of(name, bench.rounds))
    return costs
