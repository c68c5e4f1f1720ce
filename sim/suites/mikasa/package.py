"""Finds the MIKASA-Robo benchmark on this machine, and imports it with a Vulkan that draws.

The package pins an old Python, NumPy and torch; it is installed without its dependencies, beside the few that its
environments import. Its runner and its observation wrappers are not imported: they need what it pins.
"""

import contextlib
import importlib
import importlib.util
import io
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from vlamem.sim.suites.protocol import SuiteError

MEND = "install it with 'make mikasa'"
_DISTRIBUTION = "mikasa-robo-suite"
_ENVIRONMENTS = "mikasa_robo_suite.vla.memory_envs"


class MikasaMissingError(SuiteError):
    """The benchmark, its simulator or a Vulkan is missing; the message says which, and how to mend it."""


def find_package() -> Path:
    """The folder of the installed benchmark. Raises MikasaMissingError without it, or for the benchmark of that name
    that came before it.
    """
    spec = importlib.util.find_spec("mikasa_robo_suite")
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise MikasaMissingError(f"the MIKASA-Robo benchmark (package {_DISTRIBUTION}) is not installed: {MEND}")
    package = Path(next(iter(places)))
    if not (package / "vla" / "memory_envs").is_dir():
        raise MikasaMissingError(
            f"{_DISTRIBUTION} {metadata.version(_DISTRIBUTION)} has no VLA tasks, expected 1.0.0, which pip passes "
            f"over on Python 3.12: {MEND}"
        )
    return package


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Greetings and warnings of the simulator's old code are kept from the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def import_environments() -> Any:
    """The module gymnasium, with the benchmark's tasks registered. Vulkan has to be settled before.

    Raises MikasaMissingError naming the module that is not installed.
    """
    find_package()
    with quiet():
        try:
            importlib.import_module(_ENVIRONMENTS)
            return importlib.import_module("gymnasium")
        except ModuleNotFoundError as error:
            raise MikasaMissingError(f"MIKASA-Robo needs the module '{error.name}': {MEND}") from error
