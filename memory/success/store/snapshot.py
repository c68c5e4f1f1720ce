"""A success memory as one safetensors file: a backup, and the way from one store to another."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from vlamem.core.tensors import write_tensors
from vlamem.memory.success.experience.episode import Episode, Segment
from vlamem.memory.success.experience.layout import EntryError, Layout, Origin
from vlamem.memory.success.experience.records import StoredTrial
from vlamem.memory.success.store.errors import StoreError
from vlamem.memory.success.store.interface import SuccessStore

FORMAT = 2
"""Format 1 has no trials."""
KIND = "success_memory"


@dataclass(frozen=True)
class Snapshot:
    """What an exported memory holds: of one origin its arrays' layout, calibration (JSON), episodes and trials."""

    origin: Origin
    layout: Layout
    calibration: str | None
    episodes: tuple[Episode, ...]
    trials: tuple[StoredTrial, ...]


def export(store: SuccessStore, origin: int, path: Path) -> int:
    """Writes every segment of an origin, with use counts, the calibration and all trials, and gives the number of
    segments.

    The file is whole or not there. Raises StoreError when the origin has neither, and what reading raises.
    """
    ((known, layout),) = ((o, lay) for i, o, lay in store.origins() if i == origin)
    stored, trials = list(store.segments(origin)), store.trials(origin)
    if not stored and not trials:
        raise StoreError(f"{store.name} holds no segments and no trials of this origin: nothing to export")
    names = {i.id: i for i in store.instructions()}
    heads = store.episode_heads(origin)
    header = {
        "kind": KIND,
        "format": FORMAT,
        "origin": asdict(known),
        "layout": layout.to_json(),
        "calibration": store.calibration(origin),
        "episodes": [{"id": h.id, "instruction": names[h.instruction].text} | h.described() for h in heads],
        "trials": [{"identity": t.identity, "outcome": t.outcome, "made": t.made} for t in trials],
    }
    one = layout.horizon, layout.action_size
    arrays: dict[str, np.ndarray] = {
        "key": _rows([s.segment.key for s in stored], (layout.key_size,)),
        "proprioception": _rows([s.segment.proprioception for s in stored], (layout.proprioception_size,)),
        "chunk": _rows([s.segment.chunk for s in stored], one),
        "offset": _rows([t.offset for t in trials], one[1:]),
        "progress": np.array([s.segment.progress for s in stored]),
        **{n: np.array([getattr(s, n) for s in stored], np.int64) for n in ("episode", "uses", "successes", "merged")},
        "tick": np.array([s.segment.tick for s in stored], np.int64),
    }
    for h in heads:
        meaning = names[h.instruction].meaning
        if meaning is not None:
            arrays[f"meaning.{h.id}"] = meaning
    write_tensors(path, arrays, {"vlamem": json.dumps(header, sort_keys=True)})
    return len(stored)


def _rows(arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.array(arrays, np.float32).reshape(-1, *shape)


def read_snapshot(path: Path) -> Snapshot:
    """An exported memory, every value checked.

    Raises StoreError for a file that is none or is cut short, EntryError for contents that may not be stored.
    """
    raw = path.read_bytes()
    try:
        arrays = load_tensors(raw)
        size = int.from_bytes(raw[:8], "little")
        header: dict[str, Any] = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["vlamem"])
        if header["kind"] != KIND or header["format"] not in range(1, FORMAT + 1):
            raise StoreError(
                f"{path} is {header['kind']} of format {header['format']}, expected {KIND} of 1 to {FORMAT}: a newer "
                "one is read by the version that wrote it"
            )
        found = Snapshot(
            Origin(**header["origin"]),
            Layout.from_json(header["layout"]),
            header["calibration"],
            tuple(_episodes(header["episodes"], arrays)),
            tuple(_trials(header["trials"], arrays["offset"])) if header["format"] > 1 else (),
        )
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, StoreError | EntryError):
            raise
        raise StoreError(f"{path} is no exported success memory or is damaged ({error}): export it again") from error
    for episode in found.episodes:
        episode.check(found.layout)
    for trial in found.trials:
        trial.check(found.layout)
    return found


def _trials(heads: Sequence[dict[str, Any]], offsets: np.ndarray) -> Iterator[StoredTrial]:
    for head, offset in zip(heads, offsets, strict=True):
        yield StoredTrial(head["identity"], head["outcome"], offset, float(head["made"]))


def _episodes(heads: Sequence[dict[str, Any]], arrays: dict[str, np.ndarray]) -> Iterator[Episode]:
    for head in heads:
        at = np.flatnonzero(arrays["episode"] == head["id"])
        if not len(at):
            continue
        segments = tuple(
            Segment(
                int(arrays["tick"][i]),
                float(arrays["progress"][i]),
                arrays["key"][i],
                arrays["proprioception"][i],
                arrays["chunk"][i],
            )
            for i in at
        )
        yield Episode(
            head["identity"], head["instruction"], head["outcome"], head["verifier"], head["confidence"],
            head["made"], segments, arrays.get(f"meaning.{head['id']}"),
        )  # fmt: skip


def import_snapshot(store: SuccessStore, path: Path, origin: Origin | None = None, admit: bool = False) -> int:
    """Stores what an exported memory holds, and gives the number of new segments.

    Episodes and trials that are there are passed over.

    Raises OriginError when the store, or `origin`, is of another policy or robot and `admit` is False.
    """
    found = read_snapshot(path)
    theirs = found.origin
    if origin is not None:
        theirs.check(origin, str(path), "what it is imported for")
    known = store.origins()
    if known and not admit and all(o != theirs for _, o, _ in known):
        known[0][1].check(theirs, store.name, str(path))
    number = store.add_origin(theirs, found.layout)
    count = sum(len(done.ids) for episode in found.episodes if (done := store.commit(number, episode)) is not None)
    here = {trial.identity for trial in store.trials(number)}
    store.add_trials(number, [trial for trial in found.trials if trial.identity not in here])
    if found.calibration is not None and store.calibration(number) is None:
        store.add_calibration(
            number, max([e.made for e in found.episodes] + [t.made for t in found.trials]), found.calibration
        )
    return count
