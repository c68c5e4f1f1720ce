"""A connection to a fleet's PostgreSQL, and what can be wrong with it, each in a line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from vlamem.memory.success.store.errors import StoreError
from vlamem.memory.success.store.fleet.tables import HEAD, SCHEMA

_DRIVER = "postgresql+psycopg"
_SCHEMES = ("postgresql", "postgres", _DRIVER)
_NO_RIGHTS = "42501"
# a network that was cut is found out within half a minute, not after the two hours of TCP's own default
_WAIT = {
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000, "application_name": "vlamem",
}  # fmt: skip


class FleetError(StoreError):
    """A database that cannot be used as a fleet's; the message names it without its password, and the mend."""


class FleetServer:
    """A fleet's database.

    Args:
        address: postgresql://LOGIN@HOST:PORT/DATABASE. A password is best left to libpq's own files and variables
            (PGPASSFILE, PGPASSWORD).

    Attributes:
        name: the address without a password, for messages.

    Raises FleetError for an address of another form. Nothing is connected yet.
    """

    def __init__(self, address: str) -> None:
        try:
            url = make_url(address)
        except (ArgumentError, ValueError) as error:
            raise FleetError(
                "the address of a fleet is none: expected postgresql://LOGIN@HOST:PORT/DATABASE"
            ) from error
        if url.drivername not in _SCHEMES or not url.database:
            raise FleetError(
                f"{url.render_as_string()} is no address of a fleet: expected postgresql://LOGIN@HOST:PORT/DATABASE"
            )
        self.name = url.set(query={}).render_as_string()
        # no pool: a connection that was lost must not be met again
        self._engine = create_engine(url.set(drivername=_DRIVER), poolclass=NullPool, connect_args=_WAIT)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block, undone when it raises.

        Raises FleetError when the server cannot be reached or is lost, and when the login may not do what is done.
        """
        with self._named(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A transaction that reads one state of the database, whatever others write meanwhile. Raises as
        `transaction`."""
        with self._named(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            line = _first_line(error.orig)
            if getattr(error.orig, "sqlstate", None) == _NO_RIGHTS:
                raise FleetError(
                    f"{self.name}: this login has not the rights ({line}): an administrator lets a robot's login in "
                    "with 'vlamem memory fleet ADDRESS admit ROBOT --login LOGIN'"
                ) from error
            if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
                raise FleetError(
                    f"{self.name} cannot be reached or was lost ({line}): what was carried stays, the same command "
                    "continues"
                ) from error
            raise FleetError(f"{self.name}: {line}; nothing of this step was stored") from error

    def check(self) -> None:
        """Raises FleetError when the database holds no fleet of this version."""
        with self.transaction() as db:
            version = version_of(db)
        if version is None:
            raise FleetError(f"{self.name} holds no fleet: 'vlamem memory fleet ADDRESS init' makes one")
        if version > HEAD:
            raise FleetError(
                f"{self.name} has schema {version} and this vlamem knows up to {HEAD}: update vlamem on this machine"
            )
        if version < HEAD:
            raise FleetError(
                f"{self.name} has schema {version} and this vlamem needs {HEAD}: 'vlamem memory fleet ADDRESS init' "
                "brings it there"
            )

    def login(self) -> str:
        """Who is connected."""
        with self.transaction() as db:
            return str(db.execute(text("SELECT current_user")).scalar_one())


def version_of(db: Connection) -> str | None:
    """Schema version of the database; None where no fleet is."""
    if db.execute(text(f"SELECT to_regclass('{SCHEMA}.schema_version')")).scalar_one() is None:
        return None
    found: Any = db.execute(text(f"SELECT version_num FROM {SCHEMA}.schema_version")).scalar_one_or_none()  # noqa: S608  # a constant
    return None if found is None else str(found)


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
