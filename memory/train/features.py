"""Recorded features of a frozen policy: what a memory is trained on, without the policy and without a simulator.

A folder holds `meta.json`, `contexts.npy` (what the policy makes of every sentence), one raw file a column, to be
memory-mapped, and `episodes.jsonl`: a line an episode, written after its columns are on disk. A recording that was
killed, or whose columns were cut by a crash or a copy, is usable up to its last whole episode, and goes on there.
"""

import fcntl
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import BufferedWriter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vlamem.core.arrays import ArrayFileError, load_array, save_array
from vlamem.core.checksums import sealed, unsealed
from vlamem.core.files import make_folder, sync_folder, write_atomically
from vlamem.core.json_files import read_json_map
from vlamem.memory.weights import TrainedFor

FORMAT = 1
_logger = logging.getLogger(__name__)


class FeaturesError(ValueError):
    """Recorded features that cannot be used: broken, of another format, or of another policy; names both sides."""


@dataclass(frozen=True)
class FeaturesMeta:
    """What a recording is of.

    Attributes:
        policy: whose features these are.
        feature_size, context_size: D and C.
        chunk: (H, A) of the expert's chunks.
        goals: name and paraphrases of everything that a sentence can ask; of several, the last is held out of training.
        suite: of tasks.
        command: that recorded it.
        memory: what the policy acted with in episodes of its own, by kind and hash of the weights; "" where an older
            recording does not say.
    """

    policy: TrainedFor
    feature_size: int
    context_size: int
    chunk: tuple[int, int]
    goals: tuple[tuple[str, ...], ...]
    suite: str
    command: str
    memory: str = "none"

    @property
    def columns(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Type and shape of a tick's entry in each column."""
        return {
            "z": (np.float16, (self.feature_size,)),
            "chunk": (np.float16, self.chunk),
            "goal": (np.int16, (2,)),
            "asked": (np.uint8, ()),
        }

    @property
    def tick_bytes(self) -> dict[str, int]:
        """Bytes of a tick's entry in each column."""
        return {name: np.dtype(t).itemsize * int(np.prod(s, dtype=int)) for name, (t, s) in self.columns.items()}


@dataclass(frozen=True)
class FeatureEpisode:
    """One recorded episode.

    Attributes:
        task, episode, actor: what it is; the actor is who moved the robot.
        first, ticks: where it lies in the columns.
        success: how it ended.
    """

    task: str
    episode: int
    actor: str
    first: int
    ticks: int
    success: bool


@dataclass(frozen=True)
class EpisodeTicks:
    """The columns of T ticks.

    Attributes:
        z: [T, D], float16, the frozen policy's feature.
        chunk: [T, H, A], what the expert does from here on, in normalised action space.
        goal: [T, 2], index of the policy's instruction and of the oracle instruction, which contains the answer.
        asked: [T], the query mask: 1 where the cue has been shown and the two instructions differ; named as its
            column on disk.
    """

    z: np.ndarray
    chunk: np.ndarray
    goal: np.ndarray
    asked: np.ndarray


class FeatureWriter:
    """Appends episodes to a folder; continues a recording of the same meta."""

    def __init__(self, folder: Path, meta: FeaturesMeta, contexts: Float[np.ndarray, "G P C"]) -> None:
        """Episodes that reach beyond the shortest column are dropped, with a warning, to be recorded again.

        Raises FeaturesError when the folder holds another recording, or another process records into it.
        """
        self.folder, self.meta = folder, meta
        make_folder(folder)
        self._index, self._files = (folder / "episodes.jsonl").open("ab"), dict[str, BufferedWriter]()
        try:
            self._begin(contexts)
        except BaseException:
            self.close()
            raise

    def _begin(self, contexts: Float[np.ndarray, "G P C"]) -> None:
        folder, meta = self.folder, self.meta
        try:  # two writers would each take the other's episode for what a kill left behind
            fcntl.flock(self._index, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeaturesError(f"another process records into {folder}: wait for it, or end it") from error
        path = folder / "meta.json"
        if path.exists():
            _check_same(folder, _read_meta(folder), meta)
        else:
            save_array(folder / "contexts.npy", contexts.astype(np.float32))
            write_atomically(path, json.dumps({"format": FORMAT} | asdict(meta), indent=1) + "\n")
        found = _read_index(folder, meta)
        _warn(folder, found, "they are recorded again")
        self.episodes = found.episodes
        self._ticks = sum(e.ticks for e in self.episodes)
        for name in meta.columns:
            self._files[name] = (folder / name).open("ab")
        sync_folder(folder)  # else power loss may leave an index without its columns
        os.ftruncate(self._index.fileno(), found.size)
        for name, size in meta.tick_bytes.items():  # what a kill left behind the last whole episode
            os.ftruncate(self._files[name].fileno(), size * self._ticks)

    def add(self, task: str, episode: int, actor: str, ticks: EpisodeTicks, success: bool) -> None:
        """Writes one episode; on disk when this returns.

        Raises ValueError, before anything is written, for an episode without ticks, columns that do not fit the meta,
        and numbers that are not finite as float16.
        """
        count, columns = len(ticks.z), {}
        for name, (kind, shape) in self.meta.columns.items():
            with np.errstate(over="ignore"):  # a number that is too large is refused below
                columns[name] = np.ascontiguousarray(getattr(ticks, name), kind)
            if columns[name].shape != (count, *shape) or not count:
                raise ValueError(f"column {name} is {columns[name].shape}, expected {(count or '1 or more', *shape)}")
            if not np.isfinite(columns[name]).all():
                raise ValueError(
                    f"column {name} of episode {episode} of {task!r} has NaN, infinity or numbers beyond 65504: a "
                    "policy that gives such features cannot be recorded"
                )
        for name, column in columns.items():
            self._files[name].write(column.tobytes())
            self._files[name].flush()
            os.fsync(self._files[name].fileno())
        line = FeatureEpisode(task, episode, actor, self._ticks, count, success)
        sums = {name: f"{zlib.crc32(column.tobytes()):08x}" for name, column in columns.items()}
        self._index.write((json.dumps(sealed(asdict(line) | {"columns": sums})) + "\n").encode())
        self._index.flush()
        os.fsync(self._index.fileno())
        self._ticks += count
        self.episodes.append(line)

    def close(self) -> None:
        """Closes the files."""
        for file in (*self._files.values(), self._index):
            file.close()


class Features:
    """A recording, memory-mapped.

    Attributes:
        meta: what it is of.
        episodes: those that are whole.
        contexts: [G, P, C], the policy's conditioning for each paraphrase of each goal.
    """

    def __init__(self, folder: Path, used_with: TrainedFor | None = None) -> None:
        """Episodes that reach beyond the shortest column are left out, with a warning.

        Raises FeaturesError for a folder that is no recording, one without a whole episode, or one of another policy
        than `used_with`.
        """
        self.meta = _read_meta(folder)
        if used_with is not None:
            check_policy(str(folder), self.meta.policy, used_with)
        found = _read_index(folder, self.meta)
        if not found.episodes and found.left_out:
            raise FeaturesError(
                f"{folder / found.shortest} is shorter than the first of its {found.left_out} recorded episodes: "
                "record again"
            )
        if not found.episodes:
            raise FeaturesError(f"{folder} has no whole episode: record with 'vlamem collect --features'")
        _warn(folder, found, "they are left out; record again to have them")
        self.episodes, self._folder, self._sums = found.episodes, folder, dict(found.sums)
        self.contexts: Float[np.ndarray, "G P C"] = _read_contexts(folder, self.meta)
        total = sum(e.ticks for e in self.episodes)
        self._columns = {
            name: np.memmap(folder / name, kind, "r", shape=(total, *shape))
            for name, (kind, shape) in self.meta.columns.items()
        }

    @property
    def digest(self) -> str:
        """SHA-256 of what the recording says of itself: its meta and the index of its episodes, not where it lies."""
        meta = {name: value for name, value in asdict(self.meta).items() if name != "memory" or value}
        described = [meta, *map(asdict, self.episodes)]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def ticks(self, episode: FeatureEpisode) -> EpisodeTicks:
        """The columns of one episode, read when they are used.

        Raises FeaturesError, at the first use of an episode, when they are not what was written.
        """
        at = slice(episode.first, episode.first + episode.ticks)
        for name, known in self._sums.pop(episode.first, {}).items():
            if f"{zlib.crc32(self._columns[name][at].tobytes()):08x}" != known:
                raise FeaturesError(
                    f"{self._folder / name} is not what was written at episode {episode.episode} of {episode.task!r}: "
                    "the medium has changed it, record again"
                )
        return EpisodeTicks(**{name: column[at] for name, column in self._columns.items()})


def open_features(folders: Sequence[Path], used_with: TrainedFor | None = None) -> list[Features]:
    """Every recording in `folders`, each a recording or a folder of recordings (one a worker; none that is empty).

    Raises FeaturesError when there is none, or when they are not of one policy and one set of goals.
    """
    found = []
    for folder in folders:
        parts = parts_of(folder)
        if not parts:
            raise FeaturesError(f"{folder} holds no features: record them with 'vlamem collect --features'")
        for part in parts:
            index = _read_index(part, _read_meta(part))
            if index.episodes or len(parts) == 1:
                found.append((part, Features(part, used_with)))
            else:
                _warn(part, index, "they are left out; record again to have them")
    if not found:
        raise FeaturesError(
            f"{', '.join(map(str, folders))}: no whole episode, record with 'vlamem collect --features'"
        )
    for part, features in found[1:]:
        _check_same(part, features.meta, found[0][1].meta, together=True)
    return [features for _, features in found]


def parts_of(folder: Path) -> list[Path]:
    """The recordings in a folder: itself, or those below it; none where nothing was recorded."""
    return [folder] if (folder / "meta.json").exists() else sorted(p.parent for p in folder.glob("*/meta.json"))


def recorded_below(folder: Path, meta: FeaturesMeta) -> list[FeatureEpisode]:
    """Whole episodes of every recording in `folder`, whichever process made it.

    Raises FeaturesError when one of them is not of `meta`.
    """
    found = []
    for part in parts_of(folder):
        _check_same(part, _read_meta(part), meta)
        found += _read_index(part, meta).episodes
    return found


def check_policy(what: str, made_for: TrainedFor, used_with: TrainedFor) -> None:
    """Raises FeaturesError when two marks of a policy differ, naming both."""
    for name, mine in asdict(made_for).items():
        theirs = getattr(used_with, name)
        if mine != theirs:
            raise FeaturesError(
                f"{what} is of policy {made_for.policy!r} ({name} {mine}) but is used with {used_with.policy!r} "
                f"({name} {theirs}): record again with 'vlamem collect --features', or load that policy"
            )


def _check_same(folder: Path, old: FeaturesMeta, new: FeaturesMeta, together: bool = False) -> None:
    """Raises FeaturesError when a recording cannot go on in a folder, or two not be used `together`.

    Episodes played with several memories may be used together; an older recording does not say with which.
    """
    check_policy(str(folder), old.policy, new.policy)
    free = {"command"} if old.memory and not together else {"command", "memory"}
    for name in [f.name for f in fields(new) if f.name not in free]:
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            mend = "leave one of the two out" if together else "record into another folder"
            raise FeaturesError(f"{folder} was recorded with another {name} ({was!r}, not {now!r}): {mend}")


def _read_meta(folder: Path) -> FeaturesMeta:
    try:
        body = read_json_map(folder / "meta.json")
        if body.pop("format") != FORMAT:
            raise FeaturesError(f"{folder} is not of format {FORMAT}: recorded by another version, record again")
        body["policy"] = TrainedFor(**body["policy"])
        body["chunk"], body["goals"] = tuple(body["chunk"]), tuple(tuple(g) for g in body["goals"])
        return FeaturesMeta(**{"memory": ""} | body)
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, FeaturesError):
            raise
        raise FeaturesError(f"{folder} is no recording of features ({error!r}): expected a meta.json") from error


def _read_contexts(folder: Path, meta: FeaturesMeta) -> Float[np.ndarray, "G P C"]:
    shape = (len(meta.goals), len(meta.goals[0]), meta.context_size)
    try:
        contexts = load_array(folder / "contexts.npy")
    except ArrayFileError as error:
        raise FeaturesError(f"{error}: record again") from error
    if contexts.shape != shape:
        raise FeaturesError(f"{folder / 'contexts.npy'} is {contexts.shape}, expected {shape}: record again")
    return contexts


class _Index(NamedTuple):
    """The whole episodes of an index, and what is cut.

    Attributes:
        episodes: that lie in every column.
        size: bytes of their lines.
        left_out: episodes behind them, which reach beyond a column.
        shortest: that column.
        sums: CRC-32 of each column of an episode, by its first tick; none in recordings of version 0.1.
    """

    episodes: list[FeatureEpisode]
    size: int
    left_out: int
    shortest: str
    sums: dict[int, dict[str, str]]


def _read_index(folder: Path, meta: FeaturesMeta) -> _Index:
    """The index as far as the columns reach; a line that is cut short counts as none."""
    path = folder / "episodes.jsonl"
    data = path.read_bytes() if path.exists() else b""
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
    try:
        bodies = [unsealed(json.loads(line)) for line in lines]
        sums = [body.pop("columns", {}) for body in bodies]
        episodes = [FeatureEpisode(**body) for body in bodies]
    except (TypeError, ValueError, RecursionError) as error:
        raise FeaturesError(f"{path} is damaged ({error}): record again") from error
    # after the index: what another process adds meanwhile is in the columns first
    there = {name: (folder / name).stat().st_size if (folder / name).exists() else 0 for name in meta.columns}
    ticks = {name: there[name] // size for name, size in meta.tick_bytes.items()}
    shortest = min(ticks, key=lambda name: ticks[name])
    ends = np.cumsum([e.ticks for e in episodes])
    whole = int(np.searchsorted(ends, ticks[shortest], side="right"))
    kept = {e.first: s for e, s in zip(episodes[:whole], sums, strict=False)}
    return _Index(episodes[:whole], sum(map(len, lines[:whole])), len(episodes) - whole, shortest, kept)


def _warn(folder: Path, found: _Index, then: str) -> None:
    if found.left_out:
        _logger.warning(
            "%s is shorter than its index: %d of %d episodes are not whole, %s",
            folder / found.shortest,
            found.left_out,
            found.left_out + len(found.episodes),
            then,
        )
