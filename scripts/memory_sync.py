"""`vlamem memory sync` and `vlamem memory fleet`: success memories of many robots in one PostgreSQL."""

from dataclasses import dataclass
from typing import Literal

import tyro

from vlamem.scripts.config import complain, parse


@dataclass(frozen=True)
class Sync:
    """What to carry."""

    file: tyro.conf.Positional[str]
    """Store of the robot, a path or sqlite:PATH; made when missing."""
    fleet: tyro.conf.Positional[str]
    """The fleet's database, postgresql://LOGIN@HOST:PORT/DATABASE; a password is best left to PGPASSFILE."""
    robot: str
    """Name of this robot in the fleet."""
    scope: Literal["shared", "robot"] = "shared"
    """Who may read what this robot has sent, now and before: every robot, or this one alone."""
    origin: int | None = None
    """Which origin, as numbered by 'info'; needed only where there are several."""
    admit: bool = False
    """Let another policy's or robot's experience into the fleet; it is kept apart."""


@dataclass(frozen=True)
class Fleet:
    """What an administrator does."""

    fleet: tyro.conf.Positional[str]
    """The fleet's database, postgresql://LOGIN@HOST:PORT/DATABASE, with the login of its owner."""
    action: tyro.conf.Positional[Literal["init", "admit", "revoke", "list"]]
    """init makes or updates the tables, admit lets a robot in, revoke hides its entries from all, list shows robots."""
    robot: tyro.conf.Positional[str] = ""
    """Robot to admit or revoke."""
    login: str = ""
    """Database role of a robot to admit, which is there already."""


def sync(arguments: list[str], description: str) -> int:
    """Runs `vlamem memory sync`. 0: done. 1: entries of other robots were refused. 2: wrong input, or cut off."""
    from tqdm import tqdm

    given = parse(Sync, "memory sync", arguments, description)
    from vlamem.memory.success.store import open_store
    from vlamem.memory.success.store.fleet import FleetServer, Synced, identify
    from vlamem.memory.success.store.fleet import sync as carry

    server = FleetServer(given.fleet)
    identify(server, given.robot)  # before a database is made for nothing
    store = open_store(given.file)
    try:
        with tqdm(unit="episode", desc=given.robot, disable=None, dynamic_ncols=True) as bar:

            def progress(done: Synced) -> None:
                bar.update(done.sent + done.corrected + done.received - bar.n)

            done = carry(store, server, given.robot, given.origin, given.scope, given.admit, progress)
    finally:
        store.close()
    print(
        f"{given.file}: {done.sent} episodes sent, {done.corrected} corrected, {done.received} received, "
        f"{done.dropped} dropped"
    )
    for line in done.refused:
        complain("memory sync", f"refused {line}")
    return 1 if done.refused else 0


def fleet(arguments: list[str], description: str) -> int:
    """Runs `vlamem memory fleet`. 0: done. 2: wrong input."""
    given = parse(Fleet, "memory fleet", arguments, description)
    if given.action in ("admit", "revoke") and not given.robot:
        raise ValueError(f"whom to {given.action}? expected the name of a robot after '{given.action}'")
    if given.action == "admit" and not given.login:
        raise ValueError(f"which database role is robot '{given.robot}'? name it with --login")
    from vlamem.memory.success.store.fleet import FleetServer, admit, initialise, revoke, robots

    server = FleetServer(given.fleet)
    if given.action == "init":
        initialise(server)
        print(f"{server.name} is a fleet's database")
    elif given.action == "admit":
        admit(server, given.robot, given.login)
        print(f"{given.robot} reads and writes as {given.login}")
    elif given.action == "revoke":
        revoke(server, given.robot)
        print(f"{given.robot} is revoked: others drop its entries at their next sync")
    else:
        for name, login, revoked, episodes in robots(server):
            print(f"{name}: login {login}, {episodes} episodes{', revoked' * revoked}")
    return 0
