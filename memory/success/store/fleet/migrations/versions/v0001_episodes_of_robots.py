"""Origins, robots, episodes and segments; who may read and write which rows."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE vlamem.origins(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  policy text NOT NULL, weights text NOT NULL, normaliser text NOT NULL, robot text NOT NULL,
  layout text NOT NULL,
  UNIQUE (policy, weights, normaliser, robot)
);
CREATE TABLE vlamem.robots(
  name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  login text NOT NULL UNIQUE,
  revoked boolean NOT NULL DEFAULT false
);
CREATE TABLE vlamem.episodes(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  origin bigint NOT NULL REFERENCES vlamem.origins(id),
  robot text NOT NULL REFERENCES vlamem.robots(name),
  identity text NOT NULL,
  scope text NOT NULL CHECK (scope IN ('robot', 'shared')),
  instruction text NOT NULL,
  meaning bytea,
  outcome text NOT NULL CHECK (outcome IN ('success', 'failure')),
  verifier text NOT NULL,
  confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
  made double precision NOT NULL,
  checksum bigint NOT NULL,
  UNIQUE (origin, robot, identity)
);
CREATE TABLE vlamem.segments(
  episode bigint NOT NULL REFERENCES vlamem.episodes(id) ON DELETE CASCADE,
  place integer NOT NULL,
  tick bigint NOT NULL,
  progress double precision NOT NULL,
  key vector NOT NULL,
  proprioception bytea NOT NULL,
  chunk bytea NOT NULL,
  checksum bigint NOT NULL,
  PRIMARY KEY (episode, place)
);
"""
# A robot is who its login is. It writes its own rows, and reads these and what others share; rows of a revoked robot
# are read by nobody, and a revoked robot reads none. The database decides, at each read.
_RIGHTS = """
ALTER TABLE vlamem.episodes ENABLE ROW LEVEL SECURITY;
ALTER TABLE vlamem.segments ENABLE ROW LEVEL SECURITY;
CREATE POLICY reads ON vlamem.episodes FOR SELECT USING (
  EXISTS (SELECT 1 FROM vlamem.robots me WHERE me.login = current_user AND NOT me.revoked)
  AND EXISTS (
    SELECT 1 FROM vlamem.robots r WHERE r.name = episodes.robot AND NOT r.revoked
    AND (episodes.scope = 'shared' OR r.login = current_user)
  )
);
CREATE POLICY writes ON vlamem.episodes FOR ALL USING (
  EXISTS (SELECT 1 FROM vlamem.robots r WHERE r.name = episodes.robot AND r.login = current_user AND NOT r.revoked)
);
CREATE POLICY reads ON vlamem.segments FOR SELECT USING (
  EXISTS (SELECT 1 FROM vlamem.episodes e WHERE e.id = segments.episode)
);
CREATE POLICY writes ON vlamem.segments FOR ALL USING (
  EXISTS (
    SELECT 1 FROM vlamem.episodes e JOIN vlamem.robots r ON r.name = e.robot
    WHERE e.id = segments.episode AND r.login = current_user AND NOT r.revoked
  )
);
"""


def upgrade() -> None:
    """Makes the schema."""
    for statement in (_TABLES + _RIGHTS).split(";\n"):
        if statement.strip():
            op.execute(statement)
