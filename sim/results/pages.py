"""What a run writes down: fingerprint, results.json and results pages with their machine-readable twins."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import Any

from vlamem.core.files import write_atomically
from vlamem.core.json_files import parse_json
from vlamem.sim.results.statistics import mean95, wilson95

SCHEMA = "vlamem.results"
SCHEMA_VERSION = 1
WALL_CLOCK = "wall_clock"
"""The one section of results.json that may differ between two runs of the same command."""

_PACKAGES = (
    "vlamem", "numpy", "scipy", "jax", "jaxlib", "flax", "optax", "safetensors", "torch", "mujoco", "robosuite",
    "gymnasium", "lerobot", "transformers",
)  # fmt: skip


class ResultsError(ValueError):
    """A results file that cannot be read as one; the message names the file and what was expected."""


@dataclass(frozen=True)
class Figure:
    """One reported number.

    Attributes:
        value: the number itself.
        n: how many trials, episodes or samples are behind it; None for a plain measurement such as a file size.
        ci95: its 95 % interval, or None where it has none.
    """

    value: float
    n: int | None = None
    ci95: tuple[float, float] | None = None

    @classmethod
    def rate(cls, successes: int, n: int) -> "Figure":
        """A success rate, 0 to 1, with its Wilson interval. Raises ValueError when n is 0."""
        if n == 0:
            raise ValueError("a rate over 0 trials is no figure: leave it out")
        return cls(successes / n, n, wilson95(successes, n))

    @classmethod
    def mean(cls, values: Sequence[float]) -> "Figure":
        """A mean with its Student t interval. Raises ValueError without values."""
        value, ci95 = mean95(values)
        return cls(value, len(values), ci95)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def fingerprint(**given: object) -> dict[str, Any]:
    """What a figure depends on: versions, platform, processor and GL backend, plus what the caller knows.

    Reads installed metadata only, imports nothing heavy. `given` holds JSON values that replace or extend the entries:
    weights and normaliser hash, action spec, seeds, the renderer that was really used (`gl`).
    """
    found = {
        "packages": {p: v for p in _PACKAGES if (v := _version(p)) is not None},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "gl": os.environ.get("MUJOCO_GL"),
    }
    return found | given


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_results(folder: Path, body: Mapping[str, Any]) -> Path:
    """Writes folder/results.json in the current schema; `body` holds everything but schema and version."""
    path = folder / "results.json"
    write_atomically(path, _json({"schema": SCHEMA, "version": SCHEMA_VERSION} | dict(body)))
    return path


def load_results(folder: Path) -> dict[str, Any]:
    """The results.json of a run folder. Raises ResultsError when it is missing, broken or of another version."""
    path = folder / "results.json"
    try:
        body = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultsError(f"{path} is missing: is the run finished? the same rollout command continues it") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON ({error}): run the rollout command again to rewrite it") from error
    if not isinstance(body, dict) or (body.get("schema"), body.get("version")) != (SCHEMA, SCHEMA_VERSION):
        found = f"{body.get('schema')} {body.get('version')}" if isinstance(body, dict) else type(body).__name__
        raise ResultsError(
            f"{path} is '{found}', expected '{SCHEMA} {SCHEMA_VERSION}': made by another version of vlamem"
        )
    return body


def without_wall_clock(results: Mapping[str, Any]) -> dict[str, Any]:
    """The part of results.json that two runs of the same configuration and seed have in common, bit for bit."""
    return {key: value for key, value in results.items() if key != WALL_CLOCK}


_FIGURES = "| figure | value | n | 95 % interval |"


def _plain(figure: Figure) -> dict[str, Any]:
    return {"value": figure.value, "n": figure.n, "ci95": None if figure.ci95 is None else list(figure.ci95)}


def _row(name: str, figure: Figure) -> str:
    n = "" if figure.n is None else str(figure.n)
    ci95 = "" if figure.ci95 is None else f"{figure.ci95[0]:.4g} to {figure.ci95[1]:.4g}"
    return f"| {name} | {figure.value:.4g} | {n} | {ci95} |"


def write_result_page(
    name: str,
    command: str,
    figures: Mapping[str, Figure],
    markdown: str,
    out_dir: Path = Path("docs/results"),
    given: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Writes a results page out_dir/NAME.md and its twin NAME.json: {command, fingerprint, figures}.

    `markdown` is the page's own text, starting with its title; the command, a table of `figures` and the fingerprint
    are appended to it. `given` goes into the fingerprint. Raises ValueError for a figure that is not finite or whose
    interval does not hold its value.
    """
    for figure_name, figure in figures.items():
        if not isfinite(figure.value):
            raise ValueError(f"figure {figure_name} of {name} is {figure.value}: leave out what could not be measured")
        if figure.ci95 is not None and not figure.ci95[0] - 1e-9 <= figure.value <= figure.ci95[1] + 1e-9:
            raise ValueError(f"figure {figure_name} of {name} is {figure.value}, outside its interval {figure.ci95}")
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    marks = fingerprint(usable_cores=usable, **(given or {}))
    twin = {
        "command": command,
        "fingerprint": marks,
        "figures": {k: _plain(f) for k, f in figures.items()},
    }
    versions = ", ".join(f"{p} {v}" for p, v in marks["packages"].items())
    page = [
        markdown.rstrip(), "", "## Figures", "", f"Made by `{command}`.", "",
        _FIGURES, "| --- | --- | --- | --- |",
        *(_row(k, f) for k, f in figures.items()), "",
        f"Python {marks['python']}, {marks['platform']}, {marks['cpu']}"
        f"{'' if usable == cores else f', of which this had {usable}'}; {versions}.",
    ]  # fmt: skip
    page_path, twin_path = out_dir / f"{name}.md", out_dir / f"{name}.json"
    write_atomically(page_path, "\n".join(page) + "\n")
    write_atomically(twin_path, _json(twin))
    return page_path, twin_path


def add_figures(name: str, source: str, figures: Mapping[str, Figure], out_dir: Path = Path("docs/results")) -> None:
    """Adds figures of the page `source` to the page `name`, each with where it comes from.

    Figures that the page has of its own stay; those that it had from `source` before are replaced. Raises ResultsError
    when the page or its table of figures is missing.
    """
    page_path, twin_path = out_dir / f"{name}.md", out_dir / f"{name}.json"
    twin = load_page(name, out_dir)
    page = page_path.read_text(encoding="utf-8").splitlines()
    if _FIGURES not in page:
        raise ResultsError(f"{page_path} has no table of figures: make it again with the command in {twin_path}")
    link = f"[{source}]({source}.md)"
    page = [line for line in page if not (line.startswith("| ") and f", {link} |" in line)]
    own = {k: v for k, v in twin["figures"].items() if v.get("page") != source}
    added = {k: f for k, f in figures.items() if k not in own}
    end = page.index(_FIGURES)
    while end < len(page) and page[end].startswith("|"):
        end += 1
    page[end:end] = [_row(f"{k}, {link}", f) for k, f in added.items()]
    twin["figures"] = own | {k: _plain(f) | {"page": source} for k, f in added.items()}
    write_atomically(page_path, "\n".join(page) + "\n")
    write_atomically(twin_path, _json(twin))


def load_page(name: str, out_dir: Path = Path("docs/results")) -> dict[str, Any]:
    """The twin of a results page: {command, fingerprint, figures}. Raises ResultsError where it cannot be read."""
    path = out_dir / f"{name}.json"
    try:
        twin = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read as the twin of a results page: {error}") from error
    if not isinstance(twin, dict) or not twin.keys() >= {"command", "fingerprint", "figures"}:
        raise ResultsError(f"{path} is no results page's twin: expected command, fingerprint and figures")
    return twin
