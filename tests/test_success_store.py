"""The database: transactions, versions, damage, a full disk, and a second writer."""

import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, episode

from vlamem.memory.success import StoreBusyError, StoreDamagedError, StoreError, StoreFullError, SuccessStore
from vlamem.memory.success.store.schema import VERSION, migrate
from vlamem.memory.success.store.sqlite import Merge


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


def filled(path, episodes=3) -> tuple[SuccessStore, int]:
    store = SuccessStore(path)
    origin = store.add_origin(ORIGIN, LAYOUT)
    for i in range(episodes):
        store.commit(origin, episode(i))
    return store, origin


def test_what_was_stored_comes_back_bit_for_bit(path):
    filled(path)[0].close()
    store = SuccessStore(path)
    (origin,) = (i for i, *_ in store.origins())
    stored = list(store.segments(origin))
    assert [s.id for s in stored] == list(range(1, 10))
    for i, segment in enumerate(s for e in range(3) for s in episode(e).segments):
        for name in ("key", "proprioception", "chunk"):
            np.testing.assert_array_equal(getattr(stored[i].segment, name), getattr(segment, name))
        assert (stored[i].segment.tick, stored[i].segment.progress) == (segment.tick, segment.progress)
    assert store.origins()[0][1:] == (ORIGIN, LAYOUT)
    store.close()


def test_durability_is_asked_of_the_database(path):
    store, _ = filled(path)
    assert store._read("PRAGMA synchronous")[0][0] == 2  # FULL: a commit is on the medium when acknowledged
    assert store._read("PRAGMA journal_mode")[0][0] == "wal"
    assert store._read("PRAGMA foreign_keys")[0][0] == 1
    store.close()


def test_an_identity_is_stored_once(path):
    store, origin = filled(path, 1)
    assert store.commit(origin, episode(0)) is None
    assert store.counts(origin)["success_segments"] == 3
    store.close()


def test_merged_segments_are_counted_and_not_stored(path):
    store, origin = filled(path, 1)
    assert len(store.commit(origin, episode(7), merges=[Merge(0, 2)]).ids) == 2
    assert [s.merged for s in store.segments(origin)] == [0, 1, 0, 0, 0]
    store.close()


def test_a_failing_commit_leaves_nothing_of_its_episode(path):
    store, origin = filled(path, 1)
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(99, episode(8))
    assert store.counts(origin)["success_episodes"] == 1
    store.close()


def test_a_full_disk_is_named_and_what_was_stored_stays_whole(path):
    store, origin = filled(path, 2)
    store.limit_bytes(store.bytes())

    def fill() -> None:
        for i in range(10, 4000):
            store.commit(origin, episode(i))

    with pytest.raises(StoreFullError, match="disk is full; nothing was stored"):
        fill()
    store.check_pages()
    before = store.counts(origin)["success_episodes"]
    store.limit_bytes(1 << 30)
    assert store.commit(origin, episode(5000))
    assert store.counts(origin)["success_episodes"] == before + 1
    store.close()


def test_a_second_writer_waits_and_then_stores(path):
    first, origin = filled(path, 1)
    second = SuccessStore(path, wait_s=20)
    first._db.execute("BEGIN IMMEDIATE")
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(second.commit(origin, episode(1))))
    thread.start()
    thread.join(0.2)
    assert not done
    first._db.execute("COMMIT")
    thread.join()
    assert done[0]
    first.close()
    second.close()


def test_a_second_writer_that_has_waited_long_enough_fails_clearly(path):
    first, origin = filled(path, 1)
    second = SuccessStore(path, wait_s=0.05)
    first._db.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match=r"another process has been writing for more than 0\.05 s"):
        second.commit(origin, episode(1))
    first._db.execute("ROLLBACK")
    first.close()
    second.close()


def test_other_processes_read_while_one_writes(path):
    store, _ = filled(path, 2)
    store._db.execute("BEGIN IMMEDIATE")
    code = (
        "import sys; from pathlib import Path; from vlamem.memory.success import SuccessStore\n"
        "s = SuccessStore(Path(sys.argv[1]), wait_s=0.1, read_only=True); print(s.counts(1)['success_segments'])"
    )
    said = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "6"
    store._db.execute("ROLLBACK")
    store.close()


def test_a_database_of_the_first_version_is_brought_on(path):
    with sqlite3.connect(path, isolation_level=None) as old:
        migrate(old, 1)
    old.close()
    store = SuccessStore(path)
    assert store._read("PRAGMA user_version")[0][0] == VERSION
    assert store.calibration(1) is None
    store.close()


def test_a_newer_version_is_refused_and_named(path):
    filled(path)[0].close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=f"schema version {VERSION + 1}, this vlamem knows up to {VERSION}"):
        SuccessStore(path)


def test_another_database_is_not_taken_for_a_memory(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes(text)")
    db.close()
    with pytest.raises(StoreError, match="no success memory"):
        SuccessStore(path)


def test_a_file_that_is_no_database_is_named(path):
    path.write_bytes(b"not a database, but long enough to be read as a header of one" * 40)
    with pytest.raises(StoreDamagedError, match="damaged"):
        SuccessStore(path)


def test_a_changed_value_is_found_by_its_checksum(path):
    filled(path)[0].close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE segments SET progress = 0.77 WHERE id = 5")
    db.close()
    store = SuccessStore(path)
    with pytest.raises(StoreDamagedError, match="segment 5 is not what was written"):
        list(store.segments(1))
    store.close()
