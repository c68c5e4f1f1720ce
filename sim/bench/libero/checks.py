"""Whether a LIBERO bench can be done as asked, and which tasks its parts play."""

import json
from collections.abc import Sequence
from pathlib import Path

from vlamem.sim.bench.libero.options import STORED_STATES, LiberoBench
from vlamem.sim.suites.registry import load_suite


class LiberoBenchError(ValueError):
    """A bench that cannot be done as asked; the message names the value, what was expected and the mend."""


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
