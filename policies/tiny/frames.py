"""Frames on disk: what a simulator records and TinyVLA is trained on.

A frames directory holds `meta.json` and shards `shard-00000/`, `shard-00001/`, ...: one `.npy` file per column, N rows
a shard, and a `done` marker that is written last. A writer that is killed leaves a shard without the marker: readers
ignore it and the next writer replaces it. Episodes never span shards, so that `episodes_done` is exact.

| column           | dtype, shape            | meaning |
| ---------------- | ----------------------- | ------- |
| one per camera   | uint8 [N, S, S, 3]      | RGB, upright |
| proprioception   | float32 [N, P]          | raw: position [m], quaternion w, x, y, z, gripper opening [m] |
| chunk            | float32 [N, H, A]       | the expert's actions from this tick on, environment action space, -1..1 |
| chunk_valid      | bool [N, H]             | False: not to be trained on |
| goal             | int32 [N, 2]            | indices into goals: the task's own sentence, the oracle's; -1 for none |
| categories       | int8 [N, n]             | privileged labels, -1 to ignore |
| values           | float32 [N, n]          | privileged positions [m] or shares 0..1, nan to ignore |
| objects          | float32 [N, 8, 5]       | colour id, shape id, x, y, z [m]; colour id -1 for an empty slot |
| target           | float32 [N, 3]          | position that the goal refers to now [m], nan for none |
| destination      | float32 [N, 3]          | where the goal's thing is to be brought in the end [m], nan for nowhere |
| episode, tick, task | int32, int32, int16 [N] | where the frame is from; task is an index into tasks |
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlamem.core.arrays import ArrayFileError, load_array, write_array
from vlamem.core.files import make_folder, sync_folder, write_atomically
from vlamem.core.json_files import read_json_map

Reference = tuple[int, int, tuple[str, ...]]
FORMAT_VERSION = 2
OBJECT_SLOTS = 8
_DONE = "done"
_META = "meta.json"


class FramesError(ValueError):
    """Frames that cannot be read or written; the message names the file or column and the mend."""


@dataclass(frozen=True)
class Goal:
    """One instruction with its wordings.

    Attributes:
        task: name of the task that it belongs to.
        paraphrases: sentences to train on.
        held_out: sentences kept for tests, never trained on.
        oracle: whether the sentence tells what a memory would have to remember.
    """

    task: str
    paraphrases: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    oracle: bool = False


@dataclass(frozen=True)
class FramesMeta:
    """What all shards of a frames directory share.

    Attributes:
        tasks, goals: what the task and goal columns index.
        categories: name and cardinality of each privileged category.
        values: name of each privileged value.
        colours, shapes: names of the ids in the objects column.
        references: colour id, shape id and noun phrases ("the red cube") that refer to such an object; -1 is any.
        image_size, horizon, action_size, proprioception_size: S, H, A, P.
        cameras: names of the image columns.
        spec: free text that identifies the action convention; directories of different specs do not mix.
        command: the command that recorded the frames.
    """

    tasks: tuple[str, ...]
    goals: tuple[Goal, ...]
    categories: tuple[tuple[str, int], ...] = ()
    values: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    image_size: int = 84
    horizon: int = 16
    action_size: int = 7
    proprioception_size: int = 8
    cameras: tuple[str, ...] = ("agentview", "wrist")
    spec: str = ""
    command: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FramesMeta":
        """The meta that `value` (parsed meta.json, or a plain dict of the same keys) tells; raises FramesError."""
        given = {k: v for k, v in value.items() if k != "format_version"}
        version = value.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise FramesError(
                f"frames format {version} is not {FORMAT_VERSION}: record them again with 'vlamem collect'"
            )
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise FramesError(f"unknown key {unknown[0]!r} in the frames' meta: known are {', '.join(sorted(known))}")
        try:
            given["goals"] = tuple(
                g
                if isinstance(g, Goal)
                else Goal(
                    str(g["task"]), tuple(g["paraphrases"]), tuple(g.get("held_out", ())), bool(g.get("oracle", False))
                )
                for g in given["goals"]
            )
            given["categories"] = tuple((str(n), int(c)) for n, c in given.get("categories", ()))
            given["references"] = tuple((int(c), int(s), tuple(p)) for c, s, p in given.get("references", ()))
            for name in ("tasks", "values", "colours", "shapes", "cameras"):
                if name in given:
                    given[name] = tuple(given[name])
            return cls(**given)
        except (KeyError, TypeError, ValueError) as error:
            raise FramesError(
                f"the frames' meta is not as expected ({error!r}): see policies/tiny/frames.py"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """A plain dict of what `from_json` reads."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"format_version": FORMAT_VERSION, **plain}

    def columns(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """dtype and shape without N of every column, by name."""
        size = self.image_size
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = dict.fromkeys(self.cameras, (np.uint8, (size, size, 3)))
        shapes |= {
            "proprioception": (np.float32, (self.proprioception_size,)),
            "chunk": (np.float32, (self.horizon, self.action_size)),
            "chunk_valid": (np.bool_, (self.horizon,)),
            "goal": (np.int32, (2,)),
            "categories": (np.int8, (len(self.categories),)),
            "values": (np.float32, (len(self.values),)),
            "objects": (np.float32, (OBJECT_SLOTS, 5)),
            "target": (np.float32, (3,)),
            "destination": (np.float32, (3,)),
            "episode": (np.int32, ()),
            "tick": (np.int32, ()),
            "task": (np.int16, ()),
        }
        return {name: (np.dtype(kind), shape) for name, (kind, shape) in shapes.items()}


def _meta(value: "FramesMeta | Mapping[str, Any]") -> FramesMeta:
    return value if isinstance(value, FramesMeta) else FramesMeta.from_json(value)


def read_meta(directory: str | Path) -> FramesMeta:
    """The meta of a frames directory; raises FramesError when there is none."""
    path = Path(directory) / _META
    try:
        parsed = read_json_map(path)
    except FileNotFoundError as error:
        raise FramesError(f"{path} does not exist: record frames there with 'vlamem collect'") from error
    except ValueError as error:
        raise FramesError(f"{path} is not valid JSON ({error}): record the frames again") from error
    try:
        return FramesMeta.from_json(parsed)
    except FramesError as error:
        raise FramesError(f"{path}: {error}") from error


def complete_shards(directory: str | Path) -> list[Path]:
    """The shards of a frames directory that were written to the end, in order."""
    return sorted(p for p in Path(directory).glob("shard-*") if (p / _DONE).is_file())


class FramesWriter:
    """Appends episodes to a frames directory, a shard at a time; opening an existing directory resumes it.

    An episode counts as recorded once its shard is complete: after a kill, ask `episodes_done` and record the rest.
    """

    def __init__(self, directory: str | Path, meta: "FramesMeta | Mapping[str, Any]", shard_size: int = 2048) -> None:
        """Opens `directory`; a shard is closed once it has at least `shard_size` rows.

        Raises FramesError when the directory holds frames of another meta (the command may differ).
        """
        if shard_size < 1:
            raise FramesError(f"shard_size {shard_size} is below 1: give the number of frames of a shard")
        self.directory = Path(directory)
        self.meta = _meta(meta)
        self.shard_size = shard_size
        self._columns = self.meta.columns()
        self._buffer: list[dict[str, NDArray[Any]]] = []
        self._rows = 0
        make_folder(self.directory)
        if (self.directory / _META).exists():
            self._check_same_meta(read_meta(self.directory))
        else:
            write_atomically(self.directory / _META, json.dumps(self.meta.to_json(), indent=1))
        self._next = len(complete_shards(self.directory))
        while (self._shard(self._next) / _DONE).exists():
            self._next += 1

    def __enter__(self) -> "FramesWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()

    def episodes_done(self) -> set[tuple[int, int]]:
        """(task index, episode) of every episode in a complete shard."""
        done: set[tuple[int, int]] = set()
        for shard in complete_shards(self.directory):
            task, episode = (_column(shard, name) for name in ("task", "episode"))
            done.update(zip(task.tolist(), episode.tolist(), strict=True))
        return done

    def add_episode(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Appends one episode: every column of the format, all of the same length N >= 1.

        Raises FramesError naming the column that is missing, unknown, or of another dtype or shape.
        """
        if missing := sorted(set(self._columns) - set(arrays)):
            raise FramesError(f"column {missing[0]!r} is missing: an episode has {', '.join(self._columns)}")
        if unknown := sorted(set(arrays) - set(self._columns)):
            raise FramesError(f"unknown column {unknown[0]!r}: an episode has {', '.join(self._columns)}")
        rows = len(arrays["episode"])
        for name, (kind, shape) in self._columns.items():
            array = arrays[name]
            if array.dtype != kind or array.shape != (rows, *shape) or rows < 1:
                raise FramesError(
                    f"column {name!r} is {array.dtype} {list(array.shape)}, expected {kind} {[max(rows, 1), *shape]}"
                )
        self._buffer.append({name: np.array(arrays[name]) for name in self._columns})
        self._rows += rows
        if self._rows >= self.shard_size:
            self._flush()

    def close(self) -> None:
        """Writes what is left as a last, smaller shard."""
        if self._buffer:
            self._flush()

    def _shard(self, number: int) -> Path:
        return self.directory / f"shard-{number:05d}"

    def _flush(self) -> None:
        shard = self._shard(self._next)
        if shard.exists():
            shutil.rmtree(shard)
        shard.mkdir()
        for name in self._columns:
            with open(shard / f"{name}.npy", "wb") as file:
                write_array(file, np.concatenate([e[name] for e in self._buffer]))
                file.flush()
                os.fsync(file.fileno())
        write_atomically(shard / _DONE, f"{self._rows}\n")
        sync_folder(self.directory)
        self._buffer, self._rows = [], 0
        self._next += 1

    def _check_same_meta(self, stored: FramesMeta) -> None:
        mine, theirs = self.meta.to_json(), stored.to_json()
        for key in mine:
            if key != "command" and mine[key] != theirs[key]:
                raise FramesError(
                    f"{self.directory} holds frames with another {key!r}: record into another directory, or give the "
                    "same options as before"
                )


def _column(shard: Path, name: str, mapped: bool = False, checked: bool = True) -> NDArray[Any]:
    try:
        return load_array(shard / f"{name}.npy", mapped, checked)
    except ArrayFileError as error:
        raise FramesError(f"{error}: delete {shard} and record again") from error


class Frames:
    """Complete shards of one or several frames directories as one memory-mapped table.

    Tasks, goals, colours, shapes and label columns of the directories are merged by name: a label that a directory
    lacks reads as "ignore" there. Images stay on disk and are read by `images`; every other column is in `columns`, in
    memory.
    """

    def __init__(self, directories: str | Path | Iterable[str | Path]) -> None:
        """Opens the directories; raises FramesError when they hold no frames or do not fit together."""
        given = [directories] if isinstance(directories, str | Path) else directories
        paths = [Path(p) for p in given]
        if not paths:
            raise FramesError("no frames directory was given")
        metas = [read_meta(p) for p in paths]
        self.meta = _merge(metas, paths)
        self._images: dict[str, list[NDArray[np.uint8]]] = {c: [] for c in self.meta.cameras}
        self._unchecked: dict[tuple[str, int], Path] = {}
        parts: list[dict[str, NDArray[Any]]] = []
        for path, meta in zip(paths, metas, strict=True):
            for shard in complete_shards(path):
                parts.append(self._read_shard(shard, meta))
        if not parts:
            raise FramesError(f"{', '.join(map(str, paths))}: no complete shard; let 'vlamem collect' finish one")
        names = [n for n in self.meta.columns() if n not in self.meta.cameras]
        self.columns = {n: np.concatenate([p[n] for p in parts]) for n in names}
        self._starts = np.cumsum([0, *(len(p["episode"]) for p in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def images(self, camera: str, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """uint8 [len(rows), S, S, 3] of one camera; raises FramesError for an unknown camera, and for pictures
        that are not what was written, at their first use."""
        if camera not in self._images:
            raise FramesError(f"no camera {camera!r} in these frames: there are {', '.join(self._images)}")
        size = self.meta.image_size
        out = np.empty((len(rows), size, size, 3), np.uint8)
        shard = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard):
            if unchecked := self._unchecked.pop((camera, int(number)), None):
                _column(unchecked, camera, mapped=True)
            here = np.flatnonzero(shard == number)
            out[here] = self._images[camera][number][rows[here] - self._starts[number]]
        return out

    def _read_shard(self, shard: Path, meta: FramesMeta) -> dict[str, NDArray[Any]]:
        read: dict[str, NDArray[Any]] = {}
        for name, (kind, shape) in meta.columns().items():
            path = shard / f"{name}.npy"
            pictures = name in meta.cameras  # larger than memory: their checksum is left to their first use
            array = _column(shard, name, mapped=pictures, checked=not pictures)
            if array.dtype != kind or array.shape[1:] != shape:
                raise FramesError(f"{path} is {array.dtype} {list(array.shape)}: delete {shard} and record again")
            if name in meta.cameras:
                self._unchecked[name, len(self._images[name])] = shard
                self._images[name].append(array)
            else:
                read[name] = array
        return self._translate(read, meta)

    def _translate(self, read: dict[str, NDArray[Any]], meta: FramesMeta) -> dict[str, NDArray[Any]]:
        """The columns of a shard of `meta` in the indices and label order of the merged meta."""
        rows = len(read["episode"])
        tasks = np.array([self.meta.tasks.index(t) for t in meta.tasks], np.int16)
        goals = np.array([*(self.meta.goals.index(g) for g in meta.goals), -1], np.int32)
        categories = np.full((rows, len(self.meta.categories)), -1, np.int8)
        for i, category in enumerate(meta.categories):
            categories[:, self.meta.categories.index(category)] = read["categories"][:, i]
        values = np.full((rows, len(self.meta.values)), np.nan, np.float32)
        for i, value in enumerate(meta.values):
            values[:, self.meta.values.index(value)] = read["values"][:, i]
        colour, shape = (np.array([*m, -1], np.float32) for m in _ids(meta, self.meta))
        objects = read["objects"].copy()
        objects[..., 0] = colour[objects[..., 0].astype(int)]
        objects[..., 1] = shape[objects[..., 1].astype(int)]
        return read | {
            "objects": objects,
            "task": tasks[read["task"]],
            "goal": goals[read["goal"]],
            "categories": categories,
            "values": values,
        }


def _merge(metas: Sequence[FramesMeta], paths: Sequence[Path]) -> FramesMeta:
    first = metas[0]
    fixed = ("image_size", "horizon", "action_size", "proprioception_size", "cameras", "spec")
    for meta, path in zip(metas[1:], paths[1:], strict=True):
        for name in fixed:
            if getattr(meta, name) != getattr(first, name):
                raise FramesError(
                    f"{path} has {name} {getattr(meta, name)!r} but {paths[0]} has {getattr(first, name)!r}: "
                    "frames that are read together share it"
                )
        mine = dict(first.categories)
        for name, cardinality in meta.categories:
            if mine.get(name, cardinality) != cardinality:
                raise FramesError(f"category {name!r} has {cardinality} classes in {path}, {mine[name]} in {paths[0]}")
    merged = replace(
        first,
        tasks=tuple(dict.fromkeys(t for m in metas for t in m.tasks)),
        goals=tuple(dict.fromkeys(g for m in metas for g in m.goals)),
        categories=tuple(dict.fromkeys(c for m in metas for c in m.categories)),
        values=tuple(dict.fromkeys(v for m in metas for v in m.values)),
        colours=tuple(dict.fromkeys(c for m in metas for c in m.colours)),
        shapes=tuple(dict.fromkeys(s for m in metas for s in m.shapes)),
    )
    references: dict[Reference, None] = {}
    for meta in metas:
        colour, shape = ([*m, -1] for m in _ids(meta, merged))
        references |= dict.fromkeys((colour[c], shape[s], phrases) for c, s, phrases in meta.references)
    return replace(merged, references=tuple(references))


def _ids(meta: FramesMeta, merged: FramesMeta) -> tuple[list[int], list[int]]:
    """What the colours and shapes of one meta are called in the merged one."""
    return [merged.colours.index(c) for c in meta.colours], [merged.shapes.index(s) for s in meta.shapes]
