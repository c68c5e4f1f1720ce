"""A fleet: the verified episodes of many robots in one PostgreSQL, carried to and from the store that each has."""

from vlamem.memory.success.store.fleet.admission import admit, initialise, revoke, robots
from vlamem.memory.success.store.fleet.server import FleetError, FleetServer
from vlamem.memory.success.store.fleet.sync import PREFIX, Synced, identify, sync

__all__ = [
    "PREFIX",
    "FleetError",
    "FleetServer",
    "Synced",
    "admit",
    "identify",
    "initialise",
    "revoke",
    "robots",
    "sync",
]
