"""The truth of a success memory: an SQLite database, durable when a call returns, whole whenever a process is killed.

Write-ahead log, synchronous=FULL: a commit is on the medium when it is acknowledged. Many processes may read while one
writes; a second writer waits. Every segment carries a checksum of its own.
"""

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int

from vlamem.core.files import make_folder, sync_folder
from vlamem.memory.success.experience.episode import Episode, head_checksum
from vlamem.memory.success.experience.layout import EntryError, Layout, Origin
from vlamem.memory.success.experience.records import (
    EpisodeHead,
    Instruction,
    Merge,
    SegmentColumns,
    StoredEpisode,
    StoredSegment,
    StoredTrial,
    Use,
)
from vlamem.memory.success.store.errors import SALVAGE, StoreChangedError, StoreDamagedError, StoreError
from vlamem.memory.success.store.retraction import retract
from vlamem.memory.success.store.rows import SEGMENT_ROWS, blob, read_columns, read_segment
from vlamem.memory.success.store.schema import APPLICATION_ID, VERSION, migrate, version_of
from vlamem.memory.success.store.sqlite_errors import named_errors
from vlamem.memory.success.store.undo import name_episode, prepare, take_back


class SqliteStore:
    """A store (see SuccessStore) in one SQLite file.

    Args:
        location: path of the database; made when missing unless `read_only`.
        wait_s: how long to wait for another writer.
        read_only: nothing is written, not even a migration.

    Raises StoreError for a file that is no success memory or comes from a newer version, StoreDamagedError when it
    cannot be read, StoreBusyError and StoreFullError when a migration cannot be written.
    """

    def __init__(self, location: str | Path, wait_s: float = 10.0, read_only: bool = False) -> None:
        path = Path(location)
        if read_only and not path.exists():
            raise StoreError(f"{path} is missing: expected the file of a success memory")
        self.path, self.name, self.wait_s = path, str(path), wait_s
        fresh = not path.exists()
        make_folder(path.parent)
        self._lock = threading.RLock()
        with self._named():
            uri = f"{path.absolute().as_uri()}?{_mode(path) if read_only else 'mode=rwc'}"
            self._db = sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)
        try:
            with self._named():
                self._prepare(read_only)
        except BaseException:
            self._db.close()
            raise
        if fresh:
            sync_folder(path.parent)

    def _prepare(self, read_only: bool) -> None:
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        mark = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = version_of(self._db)
        if mark != APPLICATION_ID and (tables or version):
            raise StoreError(f"{self.path} is a database, but no success memory: choose another file")
        if version > VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}, this vlamem knows up to {VERSION}: update vlamem, or "
                "export it there with 'vlamem memory export' and import it here"
            )
        if read_only:
            if not version:
                raise StoreError(f"{self.path} is empty: no success memory was ever written to it")
        else:
            if str(self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]).lower() != "wal":
                raise StoreError(f"{self.path} cannot have a write-ahead log: put it on a local file system")
            self._db.execute("PRAGMA synchronous=FULL")
            migrate(self._db)
        self._version = version_of(self._db)  # an old file that is only read stays as it is
        self._db.execute("PRAGMA foreign_keys=ON")
        self._db.execute("PRAGMA cell_size_check=ON")

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def limit_bytes(self, most: int) -> None:
        """Lets the file grow to at most `most` bytes; beyond, a commit raises StoreFullError."""
        page = int(self._db.execute("PRAGMA page_size").fetchone()[0])
        self._db.execute(f"PRAGMA max_page_count={max(1, most // page)}")

    # Origins ------------------------------------------------------------------------------------------------------

    def origins(self) -> list[tuple[int, Origin, Layout]]:
        """Every origin in the file, oldest first."""
        rows = self._read("SELECT id, policy, weights, normaliser, robot, layout FROM origins ORDER BY id")
        try:
            return [(int(r[0]), Origin(*r[1:5]), Layout.from_json(r[5])) for r in rows]
        except EntryError as error:
            raise StoreDamagedError(f"{self.path}: an origin is not what was written ({error}): {SALVAGE}") from error

    def add_origin(self, origin: Origin, layout: Layout) -> int:
        """Stores an origin and gives its id."""
        values = (origin.policy, origin.weights, origin.normaliser, origin.robot, layout.to_json())
        with self._write() as db:
            db.execute(
                "INSERT OR IGNORE INTO origins(policy, weights, normaliser, robot, layout) VALUES (?,?,?,?,?)", values
            )
            row = db.execute(
                "SELECT id FROM origins WHERE policy=? AND weights=? AND normaliser=? AND robot=?", values[:4]
            ).fetchone()
        return int(row[0])

    # Episodes -----------------------------------------------------------------------------------------------------

    def commit(
        self,
        origin: int,
        episode: Episode,
        nearest: Sequence[float] = (),
        merges: Sequence[Merge] = (),
        evict: Sequence[int] = (),
        version: int | None = None,
        use: Sequence[Use] = (),
        corrects: bool = True,
    ) -> StoredEpisode | None:
        """Stores a checked episode in one transaction; None if it was there.

        `nearest` is, for each segment, its highest similarity to a stored one; segments in `merges` are counted on
        another instead of being stored; `evict` are deleted; `use` is what is known of each segment's. With an identity
        that is there already nothing is done, but for one under another outcome: that is corrected, unless `corrects`
        is False. On the medium when this returns. Raises StoreBusyError, StoreFullError, and StoreChangedError when the
        store's data has another `version` than that by which merges and evictions were chosen; nothing was stored then.
        """
        onto = {m.segment: m.onto for m in merges}
        with self._write() as db:
            if version is not None and int(db.execute("PRAGMA data_version").fetchone()[0]) != version:
                raise StoreChangedError(f"{self.path} was changed by another process: read it again")
            known = "SELECT 1 FROM episodes WHERE origin=? AND identity=?"
            if not corrects and db.execute(known, (origin, episode.identity)).fetchone():
                return None
            gone = retract(db, origin, episode.identity, episode.outcome)
            if gone is None:
                return None
            at = db.execute(
                "INSERT INTO episodes(origin, identity, instruction, outcome, verifier, confidence, made, checksum) "
                "VALUES (?,?,?,?,?,?,?,?)",
                (
                    origin, episode.identity, self._instruction(db, episode), episode.outcome, episode.verifier,
                    float(episode.confidence), float(episode.made),
                    head_checksum(
                        episode.identity, episode.instruction, episode.outcome, episode.verifier,
                        float(episode.confidence), float(episode.made),
                    ),
                ),
            ).lastrowid  # fmt: skip
            ids = []
            for i, s in enumerate(episode.segments):
                if i in onto:
                    counted = db.execute("UPDATE usage SET merged = merged + 1 WHERE segment = ?", (onto[i],))
                    if not counted.rowcount:
                        raise StoreChangedError(f"{self.path}: segment {onto[i]} is gone, read it again")
                    continue
                row = db.execute(
                    "INSERT INTO segments(episode, tick, progress, key, proprioception, chunk, checksum) "
                    "VALUES (?,?,?,?,?,?,?)",
                    (
                        at, s.tick, s.progress, blob(s.key), blob(s.proprioception), blob(s.chunk),
                        s.checksum(episode.identity),
                    ),
                ).lastrowid  # fmt: skip
                assert row is not None
                ids.append(row)
                known_use = use[i] if use else Use()
                db.execute(
                    "INSERT INTO usage(segment, uses, successes, merged, nearest) VALUES (?,?,?,?,?)",
                    (
                        row, known_use.uses, known_use.successes, known_use.merged,
                        float(nearest[i]) if nearest else -1e30,
                    ),
                )  # fmt: skip
            db.executemany("DELETE FROM segments WHERE id = ?", [(int(i),) for i in evict])
        return StoredEpisode(ids, gone)

    def _instruction(self, db: sqlite3.Connection, episode: Episode) -> int:
        meaning = None if episode.meaning is None else blob(episode.meaning)
        db.execute("INSERT OR IGNORE INTO instructions(text, meaning) VALUES (?,?)", (episode.instruction, meaning))
        return int(db.execute("SELECT id FROM instructions WHERE text=?", (episode.instruction,)).fetchone()[0])

    def instructions(self) -> list[Instruction]:
        """Every instruction in the file."""
        rows = self._read("SELECT id, text, meaning FROM instructions ORDER BY id")
        return [Instruction(int(i), t, None if m is None else np.frombuffer(m, np.float32)) for i, t, m in rows]

    def segments(self, origin: int, after: int = 0) -> Iterator[StoredSegment]:
        """Segments of an origin with an id above `after`, in order of id, each checked against its checksum.

        Raises StoreDamagedError naming the first one that is not what was written.
        """
        rows = self._segment_rows(origin, after)
        (layout,) = (lay for i, _, lay in self.origins() if i == origin)
        for r in rows:
            yield read_segment(r, layout, self.path)

    def columns(self, origin: int, after: int = 0) -> SegmentColumns:
        """The same segments, a column each value. Raises as `segments`."""
        rows = self._segment_rows(origin, after)
        (layout,) = (lay for i, _, lay in self.origins() if i == origin)
        return read_columns(rows, layout, self.path)

    def _segment_rows(self, origin: int, after: int) -> list[tuple]:
        self._check_heads(origin, after)
        return self._read(SEGMENT_ROWS, (origin, after))

    def episode_heads(self, origin: int) -> list[EpisodeHead]:
        """Every episode of an origin, oldest first. Raises StoreDamagedError as `segments`."""
        self._check_heads(origin)
        rows = self._read(
            "SELECT id, identity, instruction, outcome, verifier, confidence, made FROM episodes "
            "WHERE origin=? ORDER BY id",
            (origin,),
        )
        return [EpisodeHead(*r) for r in rows]

    def _check_heads(self, origin: int, after: int = -1) -> None:
        """Raises StoreDamagedError for an episode, with segments above `after`, that is not what was written."""
        if self._version < 4:
            return
        rows = self._read(
            "SELECT e.id, e.checksum, e.identity, i.text, e.outcome, e.verifier, e.confidence, e.made FROM episodes e "
            "JOIN instructions i ON i.id = e.instruction WHERE e.origin = ? AND e.checksum IS NOT NULL "
            "AND (? < 0 OR EXISTS (SELECT 1 FROM segments s WHERE s.episode = e.id AND s.id > ?))",
            (origin, after, after),
        )
        for number, checksum, *entries in rows:
            if head_checksum(*entries) != checksum:
                raise StoreDamagedError(f"{self.path}: episode {number} is not what was written (checksum): {SALVAGE}")

    def credit(self, ids: Int[np.ndarray, "N"], success: bool) -> None:
        """Counts one use of each segment, in an episode that ended in success or not. Raises as `commit`."""
        with self._write() as db:
            db.executemany(
                "UPDATE usage SET uses = uses + 1, successes = successes + ? WHERE segment = ?",
                [(int(success), int(i)) for i in ids],
            )

    def delete(self, ids: Sequence[int]) -> None:
        """Deletes segments, and episodes that have none left. Raises as `commit`."""
        with self._write() as db:
            db.executemany("DELETE FROM segments WHERE id = ?", [(int(i),) for i in ids])
            db.execute("DELETE FROM episodes WHERE id NOT IN (SELECT DISTINCT episode FROM segments)")

    def use(self, origin: int) -> dict[int, Use]:
        """What is known of the use of every segment of an origin, by id, in order."""
        rows = self._read(
            "SELECT s.id, u.uses, u.successes, u.merged FROM segments s JOIN episodes e ON e.id = s.episode "
            "JOIN usage u ON u.segment = s.id WHERE e.origin = ? ORDER BY s.id",
            (origin,),
        )
        return {int(row[0]): Use(*map(int, row[1:])) for row in rows}

    def counts(self, origin: int) -> dict[str, int]:
        """Episodes and segments of an origin, by outcome."""
        found = {f"{o}_{what}": 0 for o in ("success", "failure") for what in ("episodes", "segments")} | {"trials": 0}
        for outcome, episodes, segments in self._read(
            "SELECT e.outcome, count(DISTINCT e.id), count(s.id) FROM episodes e "
            "LEFT JOIN segments s ON s.episode = e.id WHERE e.origin = ? GROUP BY e.outcome",
            (origin,),
        ):
            found |= {f"{outcome}_episodes": int(episodes), f"{outcome}_segments": int(segments)}
        if self._version >= 3:
            found["trials"] = int(self._read("SELECT count(*) FROM trials WHERE origin = ?", (origin,))[0][0])
        return found

    def data_version(self) -> int:
        """Changes when another connection has committed."""
        return int(self._read("PRAGMA data_version")[0][0])

    # Trials -------------------------------------------------------------------------------------------------------

    def add_trials(self, origin: int, trials: Sequence[StoredTrial]) -> None:
        """Stores checked trials; one of the same identity is replaced. Raises as `commit`."""
        values = [(origin, t.identity, t.outcome, blob(t.offset), t.made) for t in trials]
        with self._write() as db:
            db.executemany(
                "INSERT OR REPLACE INTO trials(origin, identity, outcome, offset, made) VALUES (?,?,?,?,?)", values
            )

    def trials(self, origin: int) -> list[StoredTrial]:
        """Every trial of an origin, oldest first. Raises StoreDamagedError for an offset of another size."""
        if self._version < 3:
            return []
        rows = self._read("SELECT identity, outcome, offset, made FROM trials WHERE origin=? ORDER BY id", (origin,))
        (layout,) = (lay for i, _, lay in self.origins() if i == origin)
        for identity, _, offset, _ in rows:
            if len(offset) != 4 * layout.action_size:
                raise StoreDamagedError(f"{self.path}: trial {identity} has an offset of another size: {SALVAGE}")
        return [StoredTrial(i, o, np.frombuffer(blob, np.float32), made) for i, o, blob, made in rows]

    def delete_trials(self, origin: int, identities: Sequence[str]) -> None:
        """Deletes trials by identity. Raises as `commit`."""
        with self._write() as db:
            db.executemany("DELETE FROM trials WHERE origin=? AND identity=?", [(origin, i) for i in identities])

    # What is taken back -------------------------------------------------------------------------------------------

    def take_back(self, run: str, kept: Collection[str]) -> bool:
        """Undoes what was stored while episodes of a run were named, but for those in `kept`.

        Raises as `commit`, and StoreDamagedError when what was noted cannot be read.
        """
        with self._lock, self._named():
            prepare(self._db)
        try:
            with self._write() as db:
                return take_back(db, run, kept)
        except ValueError as error:
            raise StoreDamagedError(f"{self.path}: what a stopped run noted is damaged ({error}): {SALVAGE}") from error

    def name_episode(self, identity: str | None) -> None:
        """Whose what is stored from now on is. Raises as `commit`."""
        with self._write() as db:
            name_episode(db, identity)

    # Calibrations -------------------------------------------------------------------------------------------------

    def add_calibration(self, origin: int, made: float, body: str) -> None:
        """Stores a calibration (JSON) of an origin; the newest counts."""
        with self._write() as db:
            db.execute("INSERT INTO calibrations(origin, made, body) VALUES (?,?,?)", (origin, made, body))

    def calibration(self, origin: int) -> str | None:
        """The newest calibration of an origin, or None."""
        if self._version < 2:
            return None
        rows = self._read("SELECT body FROM calibrations WHERE origin=? ORDER BY id DESC LIMIT 1", (origin,))
        return str(rows[0][0]) if rows else None

    # Soundness ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Reads every page. Raises StoreDamagedError with what the database reports."""
        found = [str(r[0]) for r in self._read("PRAGMA quick_check(5)")]
        if found != ["ok"]:
            raise StoreDamagedError(f"{self.path} is damaged ({'; '.join(found)}): {SALVAGE}")
        broken = self._read("PRAGMA foreign_key_check")
        if broken:
            raise StoreDamagedError(f"{self.path}: {broken[0][0]} row {broken[0][1]} refers to nothing: {SALVAGE}")

    def bytes(self) -> int:
        """Size of the database and its log on disk."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(f.stat().st_size for f in files if f.exists())

    # ----------------------------------------------------------------------------------------------------------------

    def _read(self, query: str, values: Sequence[object] = ()) -> list[tuple]:
        with self._lock, self._named():
            return self._db.execute(query, tuple(values)).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._named():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _named(self) -> AbstractContextManager[None]:
        return named_errors(self.path, self.wait_s)


def _mode(path: Path) -> str:
    """How a file that is only read is opened: where nothing can be written beside it there is no shared log, and it is
    whole when no log of an earlier writer lies there. Raises StoreError when one does."""
    if os.access(path.parent, os.W_OK):
        return "mode=ro"
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(f"{path} has commits in {log.name}, and its folder cannot be written to: copy both elsewhere")
    return "mode=ro&immutable=1"
