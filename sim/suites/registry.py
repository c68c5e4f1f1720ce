"""Suites of tasks by name, and tasks of a suite by name or kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from vlamem.core.check import Check
from vlamem.core.registry import Registry, nearest
from vlamem.sim.suites.protocol import KINDS, Suite, SuiteError

SUITES: Registry[Suite] = Registry(
    "suite",
    {
        "tabletop": "vlamem.sim.suites.tabletop:SUITE",
        "libero_spatial": "vlamem.sim.suites.libero:LIBERO_SPATIAL",
        "libero_object": "vlamem.sim.suites.libero:LIBERO_OBJECT",
        "libero_goal": "vlamem.sim.suites.libero:LIBERO_GOAL",
        "libero_10": "vlamem.sim.suites.libero:LIBERO_10",
        "libero_90": "vlamem.sim.suites.libero:LIBERO_90",
        "mikasa": "vlamem.sim.suites.mikasa:MIKASA",
    },
    SuiteError,
)
"""Suites; one of your own is one line, `register(name, "package.module:SUITE")`."""
register = SUITES.register
DEFAULT_SUITE = "tabletop"
"""What recordings and tunings are of where no suite is named."""


def load_suite(name: str) -> Suite:
    """The suite called `name`: a registered one, or one of your own given as "package.module:ATTRIBUTE", a suite or a
    function that makes one.

    Raises SuiteError for an unknown name, for one of your own that cannot be imported, and for a function that makes
    something else.
    """
    found: Suite | Callable[[], Suite] = SUITES.get(name)
    if isinstance(found, Suite) or not callable(found):
        return found
    made = found()
    if not isinstance(made, Suite):
        raise SuiteError(
            f"suite '{name}' makes a {type(made).__name__}: expected one with name, tasks, recorder, goals and make"
        )
    return made


def examine() -> Iterator[Check]:
    """What suites say of parts that they have of their own, for `vlamem doctor`."""
    for name in SUITES:
        examined = getattr(SUITES.get(name), "examine", None)
        if examined is not None:
            yield from examined()


def select_tasks(suite: Suite, names: Sequence[str]) -> tuple[str, ...]:
    """Names of tasks, in the suite's order, without repetition: "all", a kind ("skills", "memory", "oracle") or a task.

    Raises SuiteError for a name that is none of these, and when nothing is selected.
    """
    wanted: set[str] = set()
    refused: Mapping[str, str] = getattr(suite, "refused", {})  # of suites that have tasks which need more than is here
    for name in names:
        if name == "all":
            wanted |= set(suite.tasks)
        elif name in KINDS:
            wanted |= {task for task, info in suite.tasks.items() if info.kind == KINDS[name]}
        elif name in suite.tasks:
            wanted.add(name)
        elif name in refused:
            raise SuiteError(f"task '{name}' of suite '{suite.name}' cannot be played here: {refused[name]}")
        else:
            known = [*suite.tasks, *KINDS, "all"]
            raise SuiteError(f"unknown task '{name}' in suite '{suite.name}': {nearest(name, known)}")
    if not wanted:
        raise SuiteError(
            f"no task of suite '{suite.name}' is selected by {list(names)}: choose from {list(suite.tasks)}"
        )
    return tuple(task for task in suite.tasks if task in wanted)
