"""What an administrator of a fleet does: makes its database, lets robots in, and revokes them."""

import re
from importlib import resources

from alembic import command
from alembic.config import Config
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from vlamem.memory.success.store.fleet.server import FleetError, FleetServer, version_of
from vlamem.memory.success.store.fleet.tables import HEAD, ROBOTS, SCHEMA

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def initialise(server: FleetServer) -> None:
    """Makes the tables, or brings those of an earlier version to this one, in one transaction.

    Raises FleetError without pgvector, with a newer schema, and without the rights to make it.
    """
    with server.transaction() as db:
        found = version_of(db)
        if found is not None and found > HEAD:
            raise FleetError(
                f"{server.name} has schema {found} and this vlamem knows up to {HEAD}: update vlamem on this machine"
            )
        known = "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'"
        if not db.execute(text(known)).scalar_one():
            major = int(db.execute(text("SHOW server_version_num")).scalar_one()) // 10000
            raise FleetError(
                f"{server.name} is a server without pgvector, in which keys are stored: install it there (Debian: "
                f"postgresql-{major}-pgvector)"
            )
        db.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        db.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config = Config()
        folder = resources.files("vlamem.memory.success.store.fleet") / "migrations"
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = db
        command.upgrade(config, "head")


def admit(server: FleetServer, robot: str, login: str) -> None:
    """Lets the database role `login`, which is there already, read and write as `robot`; a revoked one again, too.

    Raises FleetError for a name that is none, a role that is not there, and a login that is another robot's.
    """
    if not _NAME.fullmatch(robot):
        raise FleetError(f"robot {robot!r}: expected a name of small letters, digits, dots, - and _, 63 at most")
    server.check()
    with server.transaction() as db:
        if not db.execute(text("SELECT count(*) FROM pg_roles WHERE rolname = :login"), {"login": login}).scalar_one():
            raise FleetError(f"{server.name} has no role {login!r}: make it with CREATE ROLE ... LOGIN first")
        quoted = db.dialect.identifier_preparer.quote_identifier(login)
        db.execute(text(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {quoted}"))
        db.execute(text(f"GRANT SELECT ON {SCHEMA}.robots, {SCHEMA}.schema_version TO {quoted}"))
        db.execute(text(f"GRANT SELECT, INSERT ON {SCHEMA}.origins TO {quoted}"))
        for table in ("episodes", "segments"):
            db.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {SCHEMA}.{table} TO {quoted}"))
        again = update(ROBOTS).where(ROBOTS.c.name == robot).values(login=login, revoked=False)
        try:
            with db.begin_nested():
                if not db.execute(again).rowcount:
                    db.execute(insert(ROBOTS).values(name=robot, login=login, revoked=False))
        except IntegrityError as error:
            raise FleetError(f"role {login!r} is another robot's: give each robot a login of its own") from error


def revoke(server: FleetServer, robot: str) -> None:
    """Hides every entry of a robot from all others, whose stores drop it at their next sync; it reads nothing more.

    The entries stay in the database, so that the robot can be admitted again. Raises FleetError for an unknown robot.
    """
    server.check()
    with server.transaction() as db:
        if not db.execute(update(ROBOTS).where(ROBOTS.c.name == robot).values(revoked=True)).rowcount:
            known = ", ".join(name for name in db.execute(select(ROBOTS.c.name).order_by(ROBOTS.c.name)).scalars())
            raise FleetError(f"{server.name} has no robot {robot!r}: it has {known or 'none'}")


def robots(server: FleetServer) -> list[tuple[str, str, bool, int]]:
    """Name, login, whether revoked, and episodes of every robot, as far as this login may see them."""
    server.check()
    query = (
        f"SELECT r.name, r.login, r.revoked, count(e.id) FROM {SCHEMA}.robots r "  # noqa: S608  # a constant
        f"LEFT JOIN {SCHEMA}.episodes e ON e.robot = r.name GROUP BY r.name ORDER BY r.name"
    )
    with server.transaction() as db:
        return [(str(n), str(login), bool(gone), int(count)) for n, login, gone, count in db.execute(text(query))]
