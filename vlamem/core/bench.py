"""What a bench is: options, a run that measures one thing, and the results page that the run gives.

A bench lives in a folder of its own and is named by one line of the registry of `vlamem bench`. Its package imports
little, so that the command line can list every bench at once; what measures is imported when it is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class BenchError(RuntimeError):
    """A bench that broke off; the message says where and, where there is one, the mend."""


class BenchStoppedError(BenchError):
    """The bench was interrupted; what was measured is kept."""


@runtime_checkable
class Progress(Protocol):
    """Where a bench tells how far it is."""

    def say(self, line: str) -> None:
        """Shows one line."""

    def begin(self, title: str, done: int, planned: int) -> None:
        """A part begins: its title, how many of its episodes are done already, and how many are planned."""

    def step(self) -> None:
        """One more episode of this part is done."""


@runtime_checkable
class Figure(Protocol):
    """One number of a page."""

    @property
    def value(self) -> float:
        """The number itself."""

    @property
    def n(self) -> int | None:
        """How many trials, episodes or samples are behind it; None for a plain measurement."""

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Its 95 % interval, or None where it has none."""


@dataclass(frozen=True)
class Page:
    """What a bench found, ready to be written.

    Attributes:
        name: of the two files, NAME.md and NAME.json.
        text: Markdown, from the title on; command, figures and fingerprint are appended when it is written.
        figures: by name.
        folder: of the files.
        given: goes into the fingerprint, as JSON values.
        add_to: name of a page in the same folder that gets the figures which it lacks; None for none.
    """

    name: str
    text: str
    figures: Mapping[str, Figure]
    folder: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    add_to: str | None = None


@dataclass(frozen=True)
class Bench:
    """One bench, as its package exports it under the name BENCH.

    Attributes:
        name: as it is typed, e.g. "memory-panel"; its preset is configs/bench_memory_panel.yaml.
        summary: one line for the list of benches.
        description: text of `--help`: what it does, and an example.
        options: frozen dataclass of its options; each field has a line of documentation.
        run: "package.module:function" of type (options, command, progress) -> Page, where `command` is what was typed.
        environment: variables that are set before `run` is imported, where the user has not set them.
        unwind: whether SIGTERM and SIGHUP raise SystemExit, for a bench that has to stop what it started.
    """

    name: str
    summary: str
    description: str
    options: type[Any]
    run: str
    environment: Mapping[str, str] = field(default_factory=dict)
    unwind: bool = False
