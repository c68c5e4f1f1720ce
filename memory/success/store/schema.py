"""The SQLite schema of a success memory, version by version, and the migration from one to the next."""

import sqlite3

APPLICATION_ID = 0x564C4D53
"""Marks the file, in its header, as a success memory."""

_VERSION_1 = """
CREATE TABLE origins(
  id INTEGER PRIMARY KEY,
  policy TEXT NOT NULL, weights TEXT NOT NULL, normaliser TEXT NOT NULL, robot TEXT NOT NULL,
  layout TEXT NOT NULL,
  UNIQUE(policy, weights, normaliser, robot)
) STRICT;
CREATE TABLE instructions(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, meaning BLOB) STRICT;
CREATE TABLE episodes(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  origin INTEGER NOT NULL REFERENCES origins(id),
  identity TEXT NOT NULL,
  instruction INTEGER NOT NULL REFERENCES instructions(id),
  outcome TEXT NOT NULL CHECK (outcome IN ('success', 'failure')),
  verifier TEXT NOT NULL,
  confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1),
  made REAL NOT NULL,
  UNIQUE(origin, identity)
) STRICT;
CREATE TABLE segments(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  episode INTEGER NOT NULL REFERENCES episodes(id) ON DELETE CASCADE,
  tick INTEGER NOT NULL,
  progress REAL NOT NULL,
  key BLOB NOT NULL,
  proprioception BLOB NOT NULL,
  chunk BLOB NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX segments_of_episode ON segments(episode);
CREATE TABLE usage(
  segment INTEGER PRIMARY KEY REFERENCES segments(id) ON DELETE CASCADE,
  uses INTEGER NOT NULL DEFAULT 0,
  successes INTEGER NOT NULL DEFAULT 0,
  merged INTEGER NOT NULL DEFAULT 0,
  nearest REAL NOT NULL DEFAULT -1e30
) STRICT;
"""
_VERSION_2 = """
CREATE TABLE calibrations(
  id INTEGER PRIMARY KEY,
  origin INTEGER NOT NULL REFERENCES origins(id),
  made REAL NOT NULL,
  body TEXT NOT NULL
) STRICT;
"""
_VERSION_3 = """
CREATE TABLE trials(
  id INTEGER PRIMARY KEY,
  origin INTEGER NOT NULL REFERENCES origins(id),
  identity TEXT NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('success', 'failure', 'unknown')),
  offset BLOB NOT NULL,
  made REAL NOT NULL,
  UNIQUE(origin, identity)
) STRICT;
"""
_VERSION_4 = """
ALTER TABLE episodes ADD COLUMN checksum INTEGER;
"""
"""Of everything in the row, and of the instruction's text; NULL in rows of earlier versions."""
MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4)
VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """Schema version of a database; 0 when it is empty."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, target: int = VERSION) -> None:
    """Brings a database to schema version `target`, each step in a transaction of its own.

    The caller holds no transaction, and the connection is in autocommit mode.
    """
    while version_of(connection) < target:
        connection.execute("BEGIN IMMEDIATE")
        try:
            step = version_of(connection)  # another process may have gone first
            if step < target:
                for statement in MIGRATIONS[step].split(";\n"):
                    if statement.strip():
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {step + 1}")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
