"""What was stored for an episode, so noted that it can be taken back: also on rows of other episodes.

While an episode is named, triggers note every changed row as it was, in the transaction that changes it (after
https://sqlite.org/undoredo.html, with values in the place of statements, so that nothing read from a file is run). The
table is no part of the schema: who does not take back does not need it.
"""

import json
import sqlite3
from collections.abc import Collection
from typing import Any

__all__ = ["name_episode", "prepare", "take_back"]

KEPT = 16
"""Episodes that can be taken back: one is under way, and few can wait for their line in a log."""
_TABLES = ("episodes", "segments", "usage", "trials")
"""A sentence that nothing is stored under any more does no harm."""
_COUNTED = {"usage": ("uses", "successes", "merged")}
"""Columns that others count on too: their difference is taken back."""


def prepare(db: sqlite3.Connection) -> None:
    """Makes the table of notes in the file and the triggers of this connection; no transaction is under way."""
    db.execute(
        "CREATE TABLE IF NOT EXISTS undo(id INTEGER PRIMARY KEY, identity TEXT NOT NULL, source TEXT NOT NULL, "
        "kind TEXT NOT NULL, entries TEXT NOT NULL) STRICT"
    )
    db.execute("PRAGMA recursive_triggers=ON")  # without, a row that is replaced is not noted
    db.execute("CREATE TEMP TABLE IF NOT EXISTS named(identity TEXT)")
    for table in _TABLES:
        for kind, row in (("INSERT", "NEW"), ("DELETE", "OLD"), ("UPDATE", "OLD")):
            columns = list(_columns(db, table).items())
            columns = columns[:1] if kind == "INSERT" else columns  # its key is all that it takes to delete a row
            entries = ", ".join(_noted(table, kind, name, of, row) for name, of in columns)
            trigger = f"CREATE TEMP TRIGGER IF NOT EXISTS note_{kind}_{table} AFTER {kind} ON main.{table}"
            row_of = f"SELECT identity, '{table}', '{kind}', json_array({entries}) FROM named"  # noqa: S608
            note = "INSERT INTO undo(identity, source, kind, entries)"
            db.execute(f"{trigger} WHEN EXISTS (SELECT 1 FROM named) BEGIN {note} {row_of}; END")  # noqa: S608


def _columns(db: sqlite3.Connection, table: str) -> dict[str, str]:
    """Types of a table's columns by name, its key first."""
    return {str(name): str(of) for _, name, of, *_ in db.execute(f"PRAGMA table_info({table})")}


def _noted(table: str, kind: str, name: str, of: str, row: str) -> str:
    """How a value is written: JSON has no bytes, and SQLite writes numbers in it with 15 digits."""
    if kind == "UPDATE" and name in _COUNTED.get(table, ()):
        return f"NEW.{name} - OLD.{name}"
    write = {"BLOB": "hex", "REAL": "quote"}.get(of)
    return f"iif({row}.{name} IS NULL, NULL, {write}({row}.{name}))" if write else f"{row}.{name}"


def _read(of: str, value: Any) -> Any:
    if value is None or of not in ("BLOB", "REAL"):
        return value
    return bytes.fromhex(value) if of == "BLOB" else float(value)


def name_episode(db: sqlite3.Connection, identity: str | None) -> None:
    """Notes what is changed from now on as this episode's; nothing with None. In a transaction."""
    db.execute("DELETE FROM named")
    if identity is not None:
        db.execute("INSERT INTO named VALUES (?)", (identity,))
        newest = "SELECT identity FROM undo GROUP BY identity ORDER BY max(id) DESC LIMIT ?"
        db.execute(f"DELETE FROM undo WHERE identity NOT IN ({newest})", (KEPT - 1,))  # noqa: S608


def take_back(db: sqlite3.Connection, run: str, kept: Collection[str]) -> bool:
    """Undoes, newest first, what is noted for episodes whose identity begins with `run`, but for those in `kept`.

    True when there was something. In a transaction. Raises ValueError for a note that is not what was written.
    """
    db.execute("DELETE FROM named")
    db.execute("PRAGMA defer_foreign_keys=ON")  # a segment comes back after what belongs to it
    notes = db.execute("SELECT id, identity, source, kind, entries FROM undo ORDER BY id DESC").fetchall()
    late = [note for note in notes if note[1].startswith(run) and note[1] not in kept]
    for number, _, table, kind, noted in late:
        if table not in _TABLES:
            raise ValueError(f"note {number} is of a table {table!r}")
        columns = _columns(db, table)
        values = [_read(of, value) for of, value in zip(columns.values(), json.loads(noted), strict=kind != "INSERT")]
        key = next(iter(columns))
        # only names of this file and of the schema are put into these
        if kind == "INSERT":
            statement, entries = f"DELETE FROM {table} WHERE {key} = ?", values  # noqa: S608
        elif kind == "DELETE":
            statement, entries = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(values))})", values  # noqa: S608
        else:
            counted = _COUNTED.get(table, ())
            changes = ", ".join(f"{name} = {name} - ?" if name in counted else f"{name} = ?" for name in columns)
            statement, entries = f"UPDATE {table} SET {changes} WHERE {key} = ?", [*values, values[0]]  # noqa: S608
        db.execute(statement, entries)
        db.execute("DELETE FROM undo WHERE id = ?", (number,))
    return bool(late)
