"""Saves what can still be read of a damaged SQLite store into a new file."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlamem.memory.success.experience.episode import Episode, Segment
from vlamem.memory.success.experience.layout import EntryError, Layout, Origin
from vlamem.memory.success.experience.records import StoredTrial
from vlamem.memory.success.store.errors import StoreDamagedError, StoreError
from vlamem.memory.success.store.rows import read_segment
from vlamem.memory.success.store.sqlite import SqliteStore


@dataclass(frozen=True)
class Salvaged:
    """Numbers of what was saved, and ids of the segments that cannot be read or fail their checksum.

    `trials_cut`: trials after those that were saved cannot be read, and their number is not known.
    """

    episodes: int
    segments: int
    lost: tuple[int, ...]
    trials: int = 0
    trials_cut: bool = False


_MOST = 100_000_000
"""A last id beyond it is damage: looking at each would take days."""
_EMPTY_RUN = 10_000
"""Ids without a readable row after which the end is taken to be reached, when the file does not know its last id."""


def salvage(location: str | Path, into: Path) -> Salvaged:
    """Copies every segment whose row can be read and whose checksum holds, row by row, into a new database.

    The damaged file is opened for reading only. Raises StoreError when `into` exists, StoreDamagedError when not even
    the origins can be read.
    """
    damaged = Path(location)
    if into.exists():
        raise StoreError(f"{into} exists: name a new file to salvage into")
    db = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.text_factory = lambda raw: raw.decode(errors="replace")  # a damaged text fails its checksum, not the salvage
    try:
        origins = _origins(db, damaged)
        store = SqliteStore(into)
        try:
            return _copy(db, damaged, store, origins)
        finally:
            store.close()
    finally:
        db.close()


def _origins(db: sqlite3.Connection, damaged: Path) -> dict[int, tuple[Origin, Layout]]:
    try:
        rows = db.execute("SELECT id, policy, weights, normaliser, robot, layout FROM origins").fetchall()
        found, why = dict[int, tuple[Origin, Layout]](), "there is none"
        for row in rows:
            try:
                found[int(row[0])] = Origin(*row[1:5]), Layout.from_json(row[5])
            except (EntryError, TypeError, ValueError) as error:  # segments of the others can be saved
                why = str(error)
    except sqlite3.DatabaseError as error:
        raise StoreDamagedError(f"{damaged} has no readable origins ({error}): nothing to save") from error
    if not found:
        raise StoreDamagedError(f"{damaged} has no readable origins ({why}): nothing to save")
    return found


def _copy(
    db: sqlite3.Connection, damaged: Path, store: SqliteStore, origins: dict[int, tuple[Origin, Layout]]
) -> Salvaged:
    lost: list[int] = []
    groups: dict[int, tuple[int, Episode, list[Segment]]] = {}
    for number in _ids(db):
        try:
            row = db.execute(_ROW, (number,)).fetchone()
            if row is None:
                continue
            origin, layout = origins[int(row[16])]
            segment = read_segment(row, layout, damaged).segment
            if int(row[1]) not in groups:
                meaning = None if row[18] is None else np.frombuffer(row[18], np.float32)
                head = Episode(row[14], row[17], row[3], row[19], row[20], row[13], (), meaning)
                groups[int(row[1])] = store.add_origin(origin, layout), head, []
            groups[int(row[1])][2].append(segment)
        except (sqlite3.DatabaseError, StoreDamagedError, EntryError, KeyError, TypeError, ValueError):
            lost.append(number)
    kept = 0
    for origin_id, head, segments in groups.values():
        episode = Episode(
            head.identity, head.instruction, head.outcome, head.verifier, head.confidence, head.made,
            tuple(segments), head.meaning,
        )  # fmt: skip
        done = store.commit(origin_id, episode)
        kept += 0 if done is None else len(done.ids)
    return Salvaged(len(groups), kept, tuple(lost), *_copy_trials(db, store, origins))


def _copy_trials(
    db: sqlite3.Connection, store: SqliteStore, origins: dict[int, tuple[Origin, Layout]]
) -> tuple[int, bool]:
    """Copies trials up to the first row that cannot be read; gives their number, and whether there was such a row."""
    found: dict[int, list[StoredTrial]] = {}
    cut = False
    try:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone():
            return 0, False  # a file of before trials were stored
        for number, identity, outcome, offset, made in db.execute(
            "SELECT origin, identity, outcome, offset, made FROM trials ORDER BY id"
        ):
            origin, layout = origins[int(number)]
            trial = StoredTrial(identity, outcome, np.frombuffer(offset, np.float32), made)
            trial.check(layout)
            found.setdefault(store.add_origin(origin, layout), []).append(trial)
    except (sqlite3.DatabaseError, EntryError, KeyError, TypeError, ValueError):
        cut = True
    for at, trials in found.items():
        store.add_trials(at, trials)
    return sum(map(len, found.values())), cut


_ROW = (
    "SELECT s.id, s.episode, e.instruction, e.outcome, s.tick, s.progress, s.key, s.proprioception, s.chunk, "
    "0, 0, 0, -1e30, e.made, e.identity, s.checksum, e.origin, i.text, i.meaning, e.verifier, e.confidence "
    "FROM segments s JOIN episodes e ON e.id = s.episode JOIN instructions i ON i.id = e.instruction WHERE s.id = ?"
)


def _ids(db: sqlite3.Connection) -> Iterator[int]:
    """Every id that may be in the file: up to the last one given out, or until for long nothing can be read."""
    try:
        known = db.execute("SELECT seq FROM sqlite_sequence WHERE name='segments'").fetchone()
        if known is None or int(known[0]) <= _MOST:
            yield from range(1, (int(known[0]) if known else 0) + 1)
            return
    except (sqlite3.DatabaseError, ValueError):
        pass  # what was given out is not known: ids are tried one after the other
    number, last = 0, _EMPTY_RUN
    while number < last:
        number += 1
        try:
            if db.execute("SELECT 1 FROM segments WHERE id = ?", (number,)).fetchone():
                last = number + _EMPTY_RUN
        except sqlite3.DatabaseError:
            pass  # of a page that cannot be read: the run goes on, and ends
        yield number
