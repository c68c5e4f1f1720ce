"""Fixtures of several modules; what they need is imported where they are asked for."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

pytest_plugins = ["worker_memory"]

if TYPE_CHECKING:
    from deploy_cases import Hosted
    from lerobot_processes import LerobotProcesses

if os.environ.get("VLAMEM_CHECK_TYPES"):
    # before anything of vlamem is imported: arguments and results are checked against annotations, shapes included
    install_import_hook(["vlamem.memory.designs", "vlamem.memory.train"], "runtime_types.checked")


LONGEST = (
    "test_fit", "test_teach", "test_lerobot_programs", "test_tabletop_demonstrations", "test_bench_patrol",
    "test_lerobot_checkpoints", "test_bench_throughput", "test_bench_memory_panel", "test_lerobot_dataset_reading",
    "test_lerobot_policy", "test_gate_verbs", "test_rollout", "test_success_crash", "test_bench_deployment",
    "test_deploy_bench", "test_bench_kernels", "test_bench_skills", "test_deploy_respawn", "test_training",
)  # fmt: skip
"""Files that take longest, longest first: begun last, one of them would leave all but one core idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, for which xdist must not sort them by their number of tests."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """What quiets a logger and leaves it so would hide a later test's warnings, on that worker alone."""
    before = _loggers()
    yield
    after = {name: how for name, how in _loggers().items() if how != before.get(name, (logging.NOTSET, True, False))}
    assert not after, f"level, propagate and disabled of these loggers were changed: {after}"


def _loggers() -> dict[str, tuple[int, bool, bool]]:
    found = {n: x for n, x in logging.root.manager.loggerDict.items() if isinstance(x, logging.Logger)}
    return {n: (x.level, x.propagate, x.disabled) for n, x in found.items() if n.split(".")[0] == "vlamem"}


@pytest.fixture
def compiled_quickly() -> Iterator[None]:
    """For tests that compile more than they run: JAX compiles in 0.6 of the time what then takes twice as long."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator["Hosted"]:
    """A policy server in this process, with its state below the test's folder."""
    from deploy_cases import Hosted

    host = Hosted(tmp_path / "server")
    host.start()
    yield host
    host.end()


@pytest.fixture(scope="session")
def lerobot_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator["LerobotProcesses"]:
    """Runs Python in processes that have imported lerobot."""
    from lerobot_processes import LerobotProcesses

    processes = LerobotProcesses(tmp_path_factory.mktemp("lerobot"))
    yield processes
    processes.end()


class Checkpoints(dict[str, Path]):
    """Folders of lerobot's checkpoints by family, each made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, family: str) -> Path:
        from lerobot_cases import build

        return self.setdefault(family, build(family, self._root / family))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny checkpoints of lerobot by family; they serve all files, so that what changes one takes a copy."""
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))
