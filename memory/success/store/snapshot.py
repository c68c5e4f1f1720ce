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
from vlamem.memory.success.experience.records import StoredTrial, Use
from vlamem.memory.success.retrieve.calibration import Calibration
from vlamem.memory.success.store.errors import StoreError
from vlamem.memory.success.store.interface import SuccessStore

FORMAT = 2
"""Format 1 has no trials."""
KIND = "success_memory"


@dataclass(frozen=True)
class Snapshot:
    """An exported memory.

    Attributes:
        origin, layout: as in the store.
        calibration: JSON, or None.
        episodes: with all their segments.
        use: of the segments of each episode, in order.
        trials: of a residual prior.
    """

    origin: Origin
    layout: Layout
    calibration: str | None
    episodes: tuple[Episode, ...]
    use: tuple[tuple[Use, ...], ...]
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
    try:
        arrays, metadata = read_tensors(path)
        header: dict[str, Any] = json.loads(metadata["vlamem"])
        if header["kind"] != KIND or header["format"] not in range(1, FORMAT + 1):
            raise StoreError(
                f"{path} is {header['kind']} of format {header['format']}, expected {KIND} of 1 to {FORMAT}: a newer "
                "one is read by the version that wrote it"
            )
        layout = Layout.from_json(header["layout"])
        episodes = tuple(_episodes(header["episodes"], arrays))
        trials = tuple(_trials(header["trials"], arrays["offset"])) if header["format"] > 1 else ()
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
    for trial in trials:
        trial.check(layout)
    whole, use = tuple(e for e, _ in episodes), tuple(use for _, use in episodes)
    return Snapshot(origin, layout, calibration, whole, use, trials)


def _trials(heads: Sequence[dict[str, Any]], offsets: np.ndarray) -> Iterator[StoredTrial]:
    for head, offset in zip(heads, offsets, strict=True):
        yield StoredTrial(head["identity"], head["outcome"], offset, float(head["made"]))


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

    What the store knows stays: episodes and trials that are there are passed over, also those that the snapshot has
    under another outcome, since a label may have corrected them here; so is a calibration. Raises OriginError when the
    store, or `origin`, is of another policy or robot and `admit` is False.
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
    here = {trial.identity for trial in store.trials(number)}
    store.add_trials(number, [trial for trial in found.trials if trial.identity not in here])
    if found.calibration is not None and store.calibration(number) is None:
        made = max([e.made for e in found.episodes] + [t.made for t in found.trials])
        store.add_calibration(number, made, found.calibration)
    return Imported(segments, passed)
