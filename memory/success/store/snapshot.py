"""A success memory as one safetensors file: a backup, and the way from one store to another."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from vlamem.core.tensors import write_tensors
from vlamem.memory.success.experience.episode import Episode, Segment
from vlamem.memory.success.experience.layout import EntryError, Layout, Origin
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


def read_snapshot(path: Path) -> tuple[Origin, Layout, str | None, tuple[Episode, ...]]:
    """Origin, layout, calibration and episodes of an exported memory, every value checked.

    Raises StoreError for a file that is none or is cut short, EntryError for contents that may not be stored.
    """
    raw = path.read_bytes()
    try:
        arrays = load_tensors(raw)
        size = int.from_bytes(raw[:8], "little")
        header: dict[str, Any] = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["vlamem"])
        if header["kind"] != KIND or header["format"] != FORMAT:
            raise StoreError(f"{path} is {header['kind']} of format {header['format']}, expected {KIND} {FORMAT}")
        layout = Layout.from_json(header["layout"])
        episodes = tuple(_episodes(header["episodes"], arrays))
        origin = Origin(**header["origin"])
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, StoreError | EntryError):
            raise
        raise StoreError(f"{path} is no exported success memory or is damaged ({error}): export it again") from error
    for episode in episodes:
        episode.check(layout)
    return origin, layout, header["calibration"], episodes


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
    """Stores what an exported memory holds, and gives the number of new segments; episodes that are there are passed.

    Raises OriginError when the store, or `origin`, is of another policy or robot and `admit` is False.
    """
    theirs, layout, calibration, episodes = read_snapshot(path)
    if origin is not None:
        theirs.check(origin, str(path), "what it is imported for")
    known = store.origins()
    if known and not admit and all(o != theirs for _, o, _ in known):
        known[0][1].check(theirs, store.name, str(path))
    number = store.add_origin(theirs, layout)
    count = sum(len(done.ids) for episode in episodes if (done := store.commit(number, episode)) is not None)
    if calibration is not None and store.calibration(number) is None:
        store.add_calibration(number, max(e.made for e in episodes), calibration)
    return count
