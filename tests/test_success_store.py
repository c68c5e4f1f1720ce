"""Stores: addresses, transactions, versions, damage, a full disk, and a second writer."""

import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, episode

from vlamem.memory.success import (
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    SuccessMemory,
    SuccessStore,
    open_store,
)
from vlamem.memory.success.experience.records import Merge
from vlamem.memory.success.store import SCHEMES
from vlamem.memory.success.store.schema import VERSION, migrate
from vlamem.memory.success.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


def filled(path, episodes=3) -> tuple[SqliteStore, int]:
    store = SqliteStore(path)
    origin = store.add_origin(ORIGIN, LAYOUT)
    for i in range(episodes):
        store.commit(origin, episode(i))
    return store, origin


@pytest.mark.parametrize("form", ["{}", "sqlite:{}"])
def test_an_address_is_a_path_or_sqlite_and_a_path(path, form):
    filled(path)[0].close()
    store = open_store(form.format(path), read_only=True)
    assert isinstance(store, SuccessStore)
    assert store.counts(1)["success_segments"] == 9
    store.close()


@pytest.mark.parametrize("name", ["arm:1.db", "100%.db", "what?.db", "a#b.db", "café +.db"])
def test_a_path_may_hold_signs_that_mean_something_in_an_address(tmp_path, name):
    open_store(tmp_path / name).close()
    assert (tmp_path / name).exists()
    open_store(str(tmp_path / name), read_only=True).close()


def test_an_unknown_scheme_is_refused_by_name_and_makes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="unknown store scheme 'sqllite': did you mean 'sqlite'"):
        open_store("sqllite://kitchen.db")
    assert list(tmp_path.iterdir()) == []


class OtherStore(SqliteStore):
    """A store of another scheme."""


def test_a_store_of_another_scheme_is_one_line_of_the_registry(path, monkeypatch):
    monkeypatch.setattr(SCHEMES, "_entries", dict(SCHEMES._entries))
    SCHEMES.register("other", f"{__name__}:OtherStore")
    with SuccessMemory(f"other:{path}", ORIGIN, LAYOUT) as memory:
        memory.commit(episode(1))
        assert isinstance(memory.store, OtherStore)
        assert memory.verify() == 3


def test_columns_are_the_segments_and_name_the_one_that_is_damaged(path):
    filled(path)[0].close()
    store = SqliteStore(path)
    (origin,) = (i for i, *_ in store.origins())
    for after in (0, 4, 9):
        columns, segments = store.columns(origin, after), list(store.segments(origin, after))
        assert columns.ids.tolist() == [s.id for s in segments]
        for i, s in enumerate(segments):
            for name in ("key", "proprioception", "chunk"):
                np.testing.assert_array_equal(getattr(columns, name)[i], getattr(s.segment, name))
            for name in ("instruction", "uses", "successes", "merged", "nearest", "made"):
                assert getattr(columns, name)[i] == getattr(s, name)
            assert columns.success[i] == (s.outcome == "success")
            assert columns.checksum[i] == s.segment.checksum("")
    for column, value in (("tick", "tick + 1"), ("chunk", "zeroblob(length(chunk))"), ("key", "zeroblob(4)")):
        store._db.execute("BEGIN")
        store._db.execute(f"UPDATE segments SET {column} = {value} WHERE id = 5")
        with pytest.raises(StoreDamagedError, match="segment 5"):
            store.columns(origin)
        store._db.execute("ROLLBACK")
    store.close()


def test_what_was_stored_comes_back_bit_for_bit(path):
    filled(path)[0].close()
    store = SqliteStore(path)
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
    store.check()
    before = store.counts(origin)["success_episodes"]
    store.limit_bytes(1 << 30)
    assert store.commit(origin, episode(5000))
    assert store.counts(origin)["success_episodes"] == before + 1
    store.close()


def test_a_second_writer_waits_and_then_stores(path):
    first, origin = filled(path, 1)
    second = SqliteStore(path, wait_s=20)
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
    second = SqliteStore(path, wait_s=0.05)
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
        "import sys; from pathlib import Path; from vlamem.memory.success import open_store\n"
        "s = open_store(Path(sys.argv[1]), wait_s=0.1, read_only=True); print(s.counts(1)['success_segments'])"
    )
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "6"
    store._db.execute("ROLLBACK")
    store.close()


def test_a_database_of_the_first_version_is_brought_on(path):
    with sqlite3.connect(path, isolation_level=None) as old:
        migrate(old, 1)
    old.close()
    store = SqliteStore(path)
    assert store._read("PRAGMA user_version")[0][0] == VERSION
    assert store.calibration(1) is None
    store.close()


def test_a_newer_version_is_refused_and_named(path):
    filled(path)[0].close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=f"schema version {VERSION + 1}, this vlamem knows up to {VERSION}"):
        SqliteStore(path)


def test_another_database_is_not_taken_for_a_memory(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes(text)")
    db.close()
    with pytest.raises(StoreError, match="no success memory"):
        SqliteStore(path)


def test_a_file_that_is_no_database_is_named(path):
    path.write_bytes(b"not a database, but long enough to be read as a header of one" * 40)
    with pytest.raises(StoreDamagedError, match="damaged"):
        SqliteStore(path)


def test_a_changed_value_is_found_by_its_checksum(path):
    filled(path)[0].close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE segments SET progress = 0.77 WHERE id = 5")
    db.close()
    store = SqliteStore(path)
    with pytest.raises(StoreDamagedError, match="segment 5 is not what was written"):
        list(store.segments(1))
    store.close()
