"""The trace of an episode that goes on, a line for each control step, until it is over and becomes a Parquet file.

A process that is killed leaves the lines it had written. The first line names the columns and says what the episode is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.jsonl import JsonLog, LineError, read_lines
from vlamem.core.tick_trace import VERSION, TickTrace, TraceError, write_trace

SUFFIX = ".running.jsonl"
_DIGITS = 7
"""Of numbers, as many as 32 bits have."""


class RunningTrace:
    """Appends the steps of an episode to PATH.running.jsonl, not synced; a Parquet file is made of them by `finish`.

    A file that is there is gone on with; `finish` is for one that is closed. Raises OSError when it cannot be opened.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], about: Mapping[str, Any]) -> None:
        """`path` is that of the trace, with the suffix .parquet."""
        self.path, self.columns, self.about = path, dict(columns), dict(about)
        self._log = JsonLog(running_path(path), sync=False)
        self._begun = running_path(path).stat().st_size > 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a control step; before the first, what `about` says then.

        Raises OSError, e.g. on a full disk, with the file as it was before.
        """
        if not self._begun:
            self._log.append({"version": VERSION, "columns": self.columns, "about": self.about})
            self._begun = True
        self._log.append({name: _json(value) for name, value in row.items() if value is not None})

    def close(self) -> None:
        """Closes the file, which may be gone on with."""
        self._log.close()


def finish(path: Path) -> None:
    """Writes the Parquet file of an episode that is over, if it has steps, and removes its lines.

    Raises OSError, TraceError for lines that are no trace, ModuleNotFoundError without pyarrow; the lines stay then.
    """
    if running_path(path).stat().st_size:
        write_trace(path, read_running(path))
    running_path(path).unlink(missing_ok=True)


def running_path(path: Path) -> Path:
    """Where the lines of a trace are until its episode is over."""
    return path.with_suffix(SUFFIX)


def read_running(path: Path) -> TickTrace:
    """The trace `path` of an episode that is not over, as far as it goes.

    Raises TraceError for lines that are none of this version, FileNotFoundError where there are none.
    """
    lines = running_path(path)
    if not lines.is_file():
        raise FileNotFoundError(lines)
    try:
        found = list(read_lines(lines, dict, "step of a trace"))
        if not found:
            raise TraceError(f"{lines} is no trace of an episode, it has no line: remove it")
        head, *rows = found
        if head["version"] != VERSION:
            raise TraceError(f"{lines} is a trace of version {head['version']}, expected {VERSION}")
        return TickTrace(dict(head["columns"]), rows, dict(head["about"]))
    except (LineError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{lines} is no trace of an episode ({error}): remove it") from error


def _json(value: Any) -> Any:
    """A value as JSON has it, numbers as short as they may be."""
    if isinstance(value, np.ndarray | list):
        return [_json(entry) for entry in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    return value
