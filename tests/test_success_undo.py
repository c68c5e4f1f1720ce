"""memory/success/store/undo.py: what was stored for an episode is taken back, from the rows of other episodes too."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, episode

from vlamem.memory.success import StoreDamagedError
from vlamem.memory.success.experience.records import Merge, StoredTrial
from vlamem.memory.success.store.sqlite import SqliteStore
from vlamem.memory.success.store.undo import KEPT

TABLES = ("episodes", "segments", "usage", "trials")


def everything(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as db:
        return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def store(path: Path) -> Any:
    """Three episodes and a trial, all of before the run."""
    made = SqliteStore(path)
    origin = made.add_origin(ORIGIN, LAYOUT)
    for i in range(3):
        made.commit(origin, episode(i), nearest=[0.1 + 0.2 * i] * 3)
    made.add_trials(origin, [trial("old", 0.1)])
    assert not made.take_back("run/", ())
    yield made
    made.close()


def trial(identity: str, offset: float) -> StoredTrial:
    return StoredTrial(identity, "success", np.full(LAYOUT.action_size, offset, np.float32), 1 / 3)


def test_merges_evictions_corrections_credits_and_trials_are_undone_to_the_bit(store: SqliteStore, path: Path) -> None:
    before, ids = everything(path), [s.id for s in store.segments(1)]
    store.name_episode("run/a")
    store.commit(1, episode(7), merges=[Merge(0, ids[1])], evict=ids[3:6])
    store.credit(np.array([ids[0], ids[1]]), True)
    store.commit(1, replace(episode(2), outcome="failure"))  # stored as a success before
    store.add_trials(1, [trial("old", 0.7), trial("run/a", 0.3)])
    store.name_episode("run/b")
    store.credit(np.array(ids[:2]), False)
    store.name_episode(None)
    assert all(everything(path)[table] != rows for table, rows in before.items())
    assert store.take_back("run/", ())
    assert everything(path) == before
    store.check()
    assert not store.take_back("run/", ()), "nothing is undone twice"


def test_episodes_that_are_kept_and_those_of_other_runs_stay(store: SqliteStore, path: Path) -> None:
    for name in ("run/a", "else/a"):
        store.name_episode(name)
        store.credit(np.array([1]), True)
    kept = everything(path)
    store.name_episode("run/b")
    store.credit(np.array([1, 2]), True)
    store.name_episode(None)
    assert store.take_back("run/", {"run/a"})
    assert everything(path) == kept


def test_what_another_process_counted_meanwhile_stays_counted(store: SqliteStore, path: Path) -> None:
    other = SqliteStore(path)
    store.name_episode("run/a")
    store.credit(np.array([1]), True)
    other.credit(np.array([1]), True)
    other.close()
    store.take_back("run/", ())
    assert store.use(1)[1].uses == 1


def test_notes_are_kept_of_the_last_episodes_alone_and_do_not_repeat_what_was_stored(
    store: SqliteStore, path: Path
) -> None:
    for i in range(2 * KEPT):
        store.name_episode(f"run/{i}")
        store.commit(1, episode(100 + i))
    store.name_episode(None)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(DISTINCT identity) FROM undo").fetchone() == (KEPT,)
        assert db.execute("SELECT max(length(entries)) FROM undo").fetchone()[0] < 20


@pytest.mark.parametrize("change", ["entries = '[1'", "entries = '[1, 2]'", "source = 'sqlite_master'"])
def test_damaged_notes_are_named_and_nothing_is_changed(store: SqliteStore, path: Path, change: str) -> None:
    store.name_episode("run/a")
    store.credit(np.array([1]), True)
    store.name_episode(None)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE undo SET {change}")
    before = everything(path)
    with pytest.raises(StoreDamagedError, match="what a stopped run noted is damaged"):
        store.take_back("run/", ())
    assert everything(path) == before
