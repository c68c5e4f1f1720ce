"""A success memory as one safetensors file: a backup, and the way from one store to another."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.tensors import read_tensors, write_tensors
from vlamem.memory.success.experience.episode import Episode, Segment
from vlamem.memory.success.experience.layout import EntryError, Layout, Origin
from vlamem.memory.success.experience.records import Use
from vlamem.memory.success.retrieve.calibration import Calibration
from vlamem.memory.success.store.errors import StoreError
from vlamem.memory.success.store.interface import SuccessStore

FORMAT = 1
KIND = "success_memory"


def export(store: SuccessStore, origin: int, path: Path) -> int:
    """Writes every segment of an origin, with use counts and the calibration, and gives their number.

    The file is whole or not there. Raises StoreError when the origin has no segments, and what reading raises.
    """
    ((known, layout),) = ((o, lay) for i, o, lay in store.origins() if i == origin)
    stored = list(store.segments(origin))
    if not stored:
        raise StoreError(f"{store.name} holds no segments of this origin: nothing to export")
    names = {i.id: i for i in store.instructions()}
    heads = store.episode_heads(origin)
    header = {
        "kind": KIND,
        "format": FORMAT,
        "origin": asdict(known),
        "layout": layout.to_json(),
        "calibration": store.calibration(origin),
        "episodes": [{"id": h.id, "instruction": names[h.instruction].text} | h.described() for h in heads],
    }
    arrays: dict[str, np.ndarray] = {
        "key": np.stack([s.segment.key for s in stored]),
        "proprioception": np.stack([s.segment.proprioception for s in stored]),
        "chunk": np.stack([s.segment.chunk for s in stored]),
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


@dataclass(frozen=True)
class Snapshot:
    """An exported memory.

    Attributes:
        origin, layout: as in the store.
        calibration: JSON, or None.
        episodes: with all their segments.
        use: of the segments of each episode, in order.
    """

    origin: Origin
    layout: Layout
    calibration: str | None
    episodes: tuple[Episode, ...]
    use: tuple[tuple[Use, ...], ...]


def read_snapshot(path: Path) -> Snapshot:
    """An exported memory, every value checked.

    Raises StoreError for a file that is none or is cut short, EntryError for contents that may not be stored.
    """
    try:
        arrays, metadata = read_tensors(path)
        header: dict[str, Any] = json.loads(metadata["vlamem"])
        if header["kind"] != KIND or header["format"] != FORMAT:
            raise StoreError(f"{path} is {header['kind']} of format {header['format']}, expected {KIND} {FORMAT}")
        layout = Layout.from_json(header["layout"])
        episodes = tuple(_episodes(header["episodes"], arrays))
        origin = Origin(**header["origin"])
        calibration = header["calibration"]
        if calibration is not None:
            Calibration.from_json(calibration, layout)
    except (KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        if isinstance(error, StoreError | EntryError):
            raise
        raise StoreError(f"{path} is no exported success memory or is damaged ({error}): export it again") from error
    for episode, _ in episodes:
        episode.check(layout)
    return Snapshot(origin, layout, calibration, tuple(e for e, _ in episodes), tuple(use for _, use in episodes))


def _episodes(
    heads: Sequence[dict[str, Any]], arrays: dict[str, np.ndarray]
) -> Iterator[tuple[Episode, tuple[Use, ...]]]:
    counts = np.stack([arrays[name] for name in ("uses", "successes", "merged")], axis=1)
    if (counts < 0).any() or (counts[:, 1] > counts[:, 0]).any():
        raise ValueError("use counts that are none: expected successes within uses, and none below 0")
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
        episode = Episode(
            head["identity"], head["instruction"], head["outcome"], head["verifier"], head["confidence"],
            head["made"], segments, arrays.get(f"meaning.{head['id']}"),
        )  # fmt: skip
        yield episode, tuple(Use(*map(int, row)) for row in counts[at])


@dataclass(frozen=True)
class Imported:
    """What an import did: new `segments`, and episodes that are `known` under the same or another outcome."""

    segments: int
    known: int


def import_snapshot(store: SuccessStore, path: Path, origin: Origin | None = None, admit: bool = False) -> Imported:
    """Stores what an exported memory holds, use counts included, oldest episode first.

    What the store knows stays: episodes that are there are passed over, also those that the snapshot has under another
    outcome, since a label may have corrected them here; so is a calibration. Raises OriginError when the store, or
    `origin`, is of another policy or robot and `admit` is False.
    """
    found = read_snapshot(path)
    if origin is not None:
        found.origin.check(origin, str(path), "what it is imported for")
    known = store.origins()
    if known and not admit and all(o != found.origin for _, o, _ in known):
        known[0][1].check(found.origin, store.name, str(path))
    number = store.add_origin(found.origin, found.layout)
    segments = passed = 0
    for episode, use in sorted(zip(found.episodes, found.use, strict=True), key=lambda both: both[0].made):
        done = store.commit(number, episode, use=use, corrects=False)
        passed += done is None
        segments += 0 if done is None else len(done.ids)
    if found.calibration is not None and store.calibration(number) is None:
        store.add_calibration(number, max(e.made for e in found.episodes), found.calibration)
    return Imported(segments, passed)
