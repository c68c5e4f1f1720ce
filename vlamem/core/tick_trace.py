"""The trace of an episode, a row for each control step, as a Parquet file of a few kB.

Columns of every trace are in STEP. Each memory adds columns that begin with its name and a dot: TICKED where it ticks,
PROPOSED, and RETRIEVED where it proposes by retrieval. A value that does not exist at a step, such as a weight where
nothing was planned, is null. Times are the only columns that differ between two runs of an episode.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlamem.core.checksums import sealed, unsealed
from vlamem.core.files import replacing

VERSION = 1
STEP = {
    "step": "int32",  # number of the control step in its episode, from 0 on
    "cue_known": "bool",  # whether one who saw everything knows what the task hides; null where it hides nothing
    "cue_over": "bool",  # whether the cue can no longer be seen
    "phase": "int32",  # of the task; a change, such as a go signal, could not be foreseen
    "planned": "bool",  # whether a chunk was planned
    "weight": "float32",  # of the fused proposal of that plan, 0 where every memory abstained
    "proprioception": "floats",  # as the policy saw it, where it saw this step
    "command": "floats",  # action that was executed
    "clipped": "float32",  # by how much its largest entry was outside the bounds of the action spec
    "encode_ms": "float32",  # of the policy
    "memory_ms": "float32",  # steps of the memories
    "propose_ms": "float32",  # proposals of the memories
    "sample_ms": "float32",  # of the policy's sampler
    "observe_ms": "float32",  # the environment's observation, with rendering
    "simulate_ms": "float32",  # the environment's control step
}
"""Columns of every trace and their types."""
SERVED = {
    "bounded": "float32",  # by how much the largest entry of the planned chunk was outside the action spec
    "wait_ms": "float32",  # of the frame for those of other sessions
    "pass_ms": "float32",  # the forward pass, over all of its rows
    "pass_rows": "int32",
    "mode": "string",  # of the robot's controller: wait, run, hold, stop, halt, teleop
    "limits": "string",  # kinds of limits that changed what the robot was to do, separated by spaces
    "plan_ms": "float32",  # from the robot's request for a chunk to its arrival, for the chunk that came in this step
    "late_ms": "float32",  # of the robot's loop
}
"""What a server adds; the last four as the robot reports them, which `clipped` is too."""
TICKED = {
    "gate": "float32",  # 0 to 1; above 1/2 the memory is written
    "surprise": "float32",  # 0 or more
    "confidence": "float32",  # 0 to 1
    "wrote": "bool",
    "refused": "bool",  # the feature was not finite or too large
}
"""What a memory that ticks adds, at every control step."""
PROPOSED = {
    "chunk_weight": "float32",  # 0 to 1
    "context_weight": "float32",  # 0 to 1
    "offset": "float32",  # largest entry of what is added to the policy's chunk
    "abstained": "string",  # why it proposed nothing; empty where it proposed something
    "chunk": "floats",  # that it proposed, H * A entries, in normalised action space
}
"""What every memory adds, where a chunk was planned."""
RETRIEVED = {
    "similarity": "float32",  # of the nearest stored state; null where nothing is stored
    "spread": "float32",  # mean distance of the retrieved chunks from their mean
    "failure": "float32",  # 0 to 1, likeness to what preceded failures
    "retrieved": "integers",  # ids of the segments behind the proposal
}
"""What a memory that retrieves adds, where a chunk was planned."""
TIMES = tuple(name for name in STEP if name.endswith("_ms"))
"""Columns that differ from run to run."""
_ABOUT = b"vlamem.trace"


class TraceError(ValueError):
    """A file that is no trace of this version; the message names it."""


@dataclass
class TickTrace:
    """A trace in memory.

    Attributes:
        columns: types by name.
        rows: a mapping for each control step; a name that it lacks is null there.
        about: what the episode is, as JSON values.
    """

    columns: Mapping[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def column(self, name: str) -> list[Any]:
        """Values of a column, one a step; None where it is null, also where no such column is."""
        return [row.get(name) for row in self.rows]

    @property
    def memories(self) -> list[str]:
        """Names of the memories that it has columns of."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self.columns if "." in name))


def trace_path(run: Path, task: str, episode: int) -> Path:
    """Where an episode's trace is in the folder of its run, or of a server, whose tasks are its sessions."""
    return run / "traces" / f"{task}-{episode:04d}.parquet"


def image_path(run: Path, task: str, episode: int) -> Path:
    """Where the last camera image is of an episode that failed, or of any that a server served."""
    return trace_path(run, task, episode).with_suffix(".jpg")


def strip_path(run: Path, task: str, episode: int) -> Path:
    """Where the film strip of an episode is that a server served."""
    return trace_path(run, task, episode).with_suffix(".strip.jpg")


def columns_of(memories: Mapping[str, tuple[bool, bool]]) -> dict[str, str]:
    """The columns of a trace with these memories: for each, whether it ticks and whether it retrieves."""
    found = dict(STEP)
    for memory, (ticks, retrieves) in memories.items():
        added = (TICKED if ticks else {}) | PROPOSED | (RETRIEVED if retrieves else {})
        found |= {f"{memory}.{name}": kind for name, kind in added.items()}
    return found


def write_trace(path: Path, trace: TickTrace) -> None:
    """Writes a trace; the file appears whole or not at all. Raises OSError, ModuleNotFoundError without pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"version": VERSION, "columns": dict(trace.columns)} | trace.about
    types = _types()
    schema = pa.schema([pa.field(name, types[kind]) for name, kind in trace.columns.items()])
    table = pa.Table.from_pylist(trace.rows, schema)
    about["rows"] = _checksum(table.to_pylist())
    path.parent.mkdir(parents=True, exist_ok=True)
    # without what is made for large files and would be half of so small a one
    form = {"compression": "zstd", "use_dictionary": False, "write_statistics": False, "store_schema": False,
            "write_page_checksum": True}  # fmt: skip
    with replacing(path) as draft, pq.ParquetWriter(draft, schema, **form) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_ABOUT: json.dumps(sealed(about), ensure_ascii=False)})


def read_trace(path: Path) -> TickTrace:
    """A trace as `write_trace` left it.

    Raises TraceError for a file that is cut short or of another version, OSError without it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            sealed_about = json.loads((file.metadata.metadata or {})[_ABOUT])
            about = unsealed(sealed_about)
            rows = file.read().to_pylist()
        known = about.pop("rows", None)  # of version 0.1: none
        if known is not None and (known != _checksum(rows) or about.keys() == sealed_about.keys() - {"rows"}):
            raise ValueError("its rows are not those that were written")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise TraceError(
            f"{path} is no trace of an episode ({str(error).splitlines()[0]}): remove it, or play the episode again"
        ) from error
    if about["version"] != VERSION:
        raise TraceError(f"{path} is a trace of version {about['version']}, expected {VERSION}")
    about.pop("version")
    return TickTrace(about.pop("columns"), rows, about)


def without_times(trace: TickTrace) -> Iterator[dict[str, Any]]:
    """The rows of a trace without what differs from run to run."""
    return ({name: value for name, value in row.items() if name not in TIMES} for row in trace.rows)


def _checksum(rows: list[dict[str, Any]]) -> str:
    return f"{zlib.crc32(repr(rows).encode()):08x}"


def _types() -> dict[str, Any]:
    """Arrow's types."""
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "float32": pa.float32(),
        "string": pa.string(),
        "floats": pa.list_(pa.float32()),
        "integers": pa.list_(pa.int64()),
    }
