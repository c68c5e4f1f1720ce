"""The tables of a fleet's database as SQLAlchemy sees them; the migrations make them."""

from pgvector.sqlalchemy import Vector
from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, LargeBinary, MetaData, Table, Text

SCHEMA = "vlamem"
"""Of the database, so that it may hold other things beside."""
HEAD = "0001"
"""The newest migration."""

_METADATA = MetaData(schema=SCHEMA)
ORIGINS = Table(
    "origins",
    _METADATA,
    Column("id", BigInteger, primary_key=True),
    *(Column(name, Text) for name in ("policy", "weights", "normaliser", "robot", "layout")),
)
ROBOTS = Table(
    "robots", _METADATA, Column("name", Text, primary_key=True), Column("login", Text), Column("revoked", Boolean)
)
EPISODES = Table(
    "episodes",
    _METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("origin", BigInteger),
    *(Column(name, Text) for name in ("robot", "identity", "scope", "instruction", "outcome", "verifier")),
    Column("meaning", LargeBinary),
    Column("confidence", Double),
    Column("made", Double),
    Column("checksum", BigInteger),
)
SEGMENTS = Table(
    "segments",
    _METADATA,
    Column("episode", BigInteger, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("tick", BigInteger),
    Column("progress", Double),
    Column("key", Vector),
    Column("proprioception", LargeBinary),
    Column("chunk", LargeBinary),
    Column("checksum", BigInteger),
)
