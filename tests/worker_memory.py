"""Keeps a test process small: what a module of tests filled is freed after it, and compiled programs lie on disk.

A process that runs hundreds of tests would otherwise keep every program that JAX compiled and every scene that a
simulator built for it. `--resident` shows what each module left behind.
"""

import ctypes
import gc
import os
import platform
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WORKER_BYTES = 2 << 30
"""Free memory for each worker of `-n auto`; a worker takes about half of it, its child processes the rest."""
_RESIDENT = pytest.StashKey[list[tuple[str, int, int]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--resident`: print the memory that a process holds after each module, and the most that it held until then."""
    parser.addoption("--resident", action="store_true", help="show the memory [MB] that a process holds by module")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is loaded that no test needs; programs compiled by JAX are kept in the cache of pytest.

    There is one folder of them for each kind of processor.
    """
    config.stash[_RESIDENT] = []
    # diffusers, which lerobot imports, would load its models of Flax too: 120 MB, and threads that no fork may find
    os.environ.setdefault("USE_FLAX", "0")
    if config.pluginmanager.hasplugin("cacheprovider") and config.cache is not None:
        folder = config.cache.mkdir(f"jax-{platform.machine()}-{_processor():08x}")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of `-n auto`: one a core, as far as memory goes."""
    return max(1, min(len(os.sched_getaffinity(0)), _read("/proc/meminfo", "MemAvailable") // WORKER_BYTES))


@pytest.fixture(scope="module", autouse=True)
def freed_after_the_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Frees what the module's tests left in caches; scoped fixtures of the module are gone by then."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "vlamem.sim.suites.tabletop.stage" in sys.modules:
        sys.modules["vlamem.sim.suites.tabletop.stage"].close_idle()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    held = tuple(_read("/proc/self/status", name) >> 20 for name in ("VmRSS", "VmHWM"))
    request.config.stash[_RESIDENT].append((request.node.nodeid, *held))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands a worker's figures to the process that reports."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["resident"] = session.config.stash[_RESIDENT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes the figures of a worker; one that crashed has none."""
    node.config.stash[_RESIDENT] += getattr(node, "workeroutput", {}).get("resident", [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints the figures that `--resident` asks for."""
    if config.getoption("resident"):
        terminalreporter.section("resident memory after each module, and the most until then [MB]")
        for name, now, most in config.stash[_RESIDENT]:
            terminalreporter.write_line(f"{now:>6} {most:>6}  {name}")


def _read(file: str, name: str) -> int:
    """A figure in bytes out of a file of /proc."""
    lines = Path(file).read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) << 10


def _processor() -> int:
    """Tells processors with other instructions apart: what is compiled for one may not run on another."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return zlib.crc32(next((line for line in lines if line.startswith(("flags", "Features"))), "").encode())
