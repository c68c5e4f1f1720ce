"""Carries episodes between a robot's own store and its fleet.

No cursor is kept on either side: each sync compares the names of what both hold, and carries what differs. Cut off at
any point it has done a part, and the next one does the rest. Use counts, trials and calibrations stay where they are:
they say something about one robot in one place.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import batched
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_once

from vlamem.memory.success.experience.episode import Episode, Segment, head_checksum
from vlamem.memory.success.experience.layout import EntryError, Layout, Origin
from vlamem.memory.success.experience.records import EpisodeHead
from vlamem.memory.success.store.errors import StoreError
from vlamem.memory.success.store.fleet.server import FleetError, FleetServer
from vlamem.memory.success.store.fleet.tables import EPISODES, ORIGINS, ROBOTS, SEGMENTS
from vlamem.memory.success.store.interface import SuccessStore
from vlamem.memory.success.store.rows import blob

PREFIX = "fleet:"
"""Of the identity under which an episode of another robot is stored: fleet:ROBOT/IDENTITY."""
_BATCH = 64
"""Episodes of one transaction."""
Scope = Literal["shared", "robot"]


@dataclasses.dataclass
class Synced:
    """What a sync has carried, in episodes.

    Attributes:
        sent, corrected: of this robot, new to the fleet, and there under another outcome before.
        received: of other robots, stored here.
        dropped: of other robots, deleted here: revoked, withdrawn, or replaced.
        refused: of other robots, with why they may not be stored.
    """

    sent: int = 0
    corrected: int = 0
    received: int = 0
    dropped: int = 0
    refused: list[str] = dataclasses.field(default_factory=list)


def sync(
    store: SuccessStore,
    server: FleetServer,
    robot: str,
    origin: int | None = None,
    scope: Scope = "shared",
    admit: bool = False,
    progress: Callable[[Synced], None] = lambda done: None,
) -> Synced:
    """Sends this robot's episodes of one origin, and stores what other robots share.

    Args:
        store: of the robot.
        robot: its name in the fleet.
        origin: which origin of the store; needed where it has several.
        scope: who may read what this robot has sent, now and before: all robots, or this one alone.
        admit: let an origin into the fleet that it has not had.
        progress: called after each batch.

    Raises FleetError when the server cannot be used, this login is not the robot's, or it is revoked; OriginError for
    an origin that is not the fleet's; EntryError when its arrays have another meaning; and what the store raises.
    """
    identify(server, robot)
    number, here, layout = _own_origin(store, server, origin)
    there = _their_origin(server, store.name, here, layout, admit)
    done = Synced()
    _send(store, server, (number, there), robot, scope, done, progress)
    _receive(store, server, (number, there), robot, layout, done, progress)
    return done


def identify(server: FleetServer, robot: str) -> None:
    """Raises FleetError unless the server is a fleet's and this login the robot's, which is not revoked."""
    server.check()
    login = server.login()
    with server.transaction() as db:
        found = db.execute(select(ROBOTS.c.login, ROBOTS.c.revoked).where(ROBOTS.c.name == robot)).one_or_none()
    if found is None or found.login != login:
        raise FleetError(
            f"{server.name}: login {login!r} is not that of robot {robot!r}: an administrator lets it in with 'vlamem "
            f"memory fleet ADDRESS admit {robot} --login {login}'"
        )
    if found.revoked:
        raise FleetError(f"{server.name}: robot {robot!r} was revoked and may neither read nor write")


def _own_origin(store: SuccessStore, server: FleetServer, wanted: int | None) -> tuple[int, Origin, Layout]:
    """Which origin of the store is meant; an empty store takes the fleet's, where that has one alone."""
    origins = store.origins()
    if origins:
        chosen = [o for o in origins if wanted in (None, o[0])]
        if len(chosen) != 1:
            known = ", ".join(f"{i} ({o.robot})" for i, o, _ in origins)
            raise StoreError(f"{store.name} holds origins {known}: choose one with --origin")
        return chosen[0]
    with server.transaction() as db:
        rows = db.execute(select(ORIGINS).order_by(ORIGINS.c.id)).all()
    if len(rows) != 1:
        raise StoreError(
            f"{store.name} is empty and the fleet has {len(rows)} origins: open it once with the policy that it is for"
        )
    origin, layout = Origin(*_four(rows[0])), Layout.from_json(rows[0].layout)
    return store.add_origin(origin, layout), origin, layout


def _four(row: Row[Any]) -> tuple[str, str, str, str]:
    return row.policy, row.weights, row.normaliser, row.robot


def _their_origin(server: FleetServer, name: str, origin: Origin, layout: Layout, admit: bool) -> int:
    """Id of the origin in the fleet, which an empty fleet takes over."""
    values = {f.name: getattr(origin, f.name) for f in dataclasses.fields(origin)}
    with server.transaction() as db:
        rows = db.execute(select(ORIGINS).order_by(ORIGINS.c.id)).all()
        if rows and not admit and all(Origin(*_four(row)) != origin for row in rows):
            Origin(*_four(rows[0])).check(origin, server.name, name)
        db.execute(insert_once(ORIGINS).values(**values, layout=layout.to_json()).on_conflict_do_nothing())
        found = db.execute(select(ORIGINS.c.id, ORIGINS.c.layout).filter_by(**values)).one()
    if Layout.from_json(found.layout) != layout:
        raise EntryError(
            f"{server.name} stores arrays of this origin as {found.layout}, {name} as {layout.to_json()}: sync a store "
            "of the same layout"
        )
    return int(found.id)


# Sending --------------------------------------------------------------------------------------------------------------


def _send(
    store: SuccessStore,
    server: FleetServer,
    origins: tuple[int, int],
    robot: str,
    scope: Scope,
    done: Synced,
    progress: Callable[[Synced], None],
) -> None:
    here, there = origins
    mine = (EPISODES.c.origin == there) & (EPISODES.c.robot == robot)
    with server.transaction() as db:
        db.execute(update(EPISODES).where(mine, EPISODES.c.scope != scope).values(scope=scope))
        query = select(EPISODES.c.identity, EPISODES.c.checksum).where(mine)
        known = {row.identity: row.checksum for row in db.execute(query)}
    texts = {i.id: (i.text, i.meaning) for i in store.instructions()}
    heads = [h for h in store.episode_heads(here) if not h.identity.startswith(PREFIX)]
    missing = {h.id: h for h in heads if known.get(h.identity) != _checksum(h, texts[h.instruction][0])}
    cut: dict[int, list[Segment]] = {}
    for stored in store.segments(here) if missing else ():
        if stored.episode in missing:
            cut.setdefault(stored.episode, []).append(stored.segment)
    for batch in batched((h for h in missing.values() if h.id in cut), _BATCH):
        with server.transaction() as db:
            again = [h.identity for h in batch if h.identity in known]
            if again:
                db.execute(delete(EPISODES).where(mine, EPISODES.c.identity.in_(again)))
            for head in batch:
                text, meaning = texts[head.instruction]
                row = {
                    "origin": there, "robot": robot, "scope": scope, "instruction": text,
                    "meaning": None if meaning is None else blob(meaning), "checksum": _checksum(head, text),
                }  # fmt: skip
                _insert(db, row | head.described(), cut[head.id])
        done.sent += len(batch) - len(again)
        done.corrected += len(again)
        progress(done)


def _checksum(head: EpisodeHead, text: str) -> int:
    return head_checksum(head.identity, text, head.outcome, head.verifier, head.confidence, head.made)


def _insert(db: Connection, row: Mapping[str, Any], segments: Sequence[Segment]) -> None:
    new = insert_once(EPISODES).values(**row).on_conflict_do_nothing().returning(EPISODES.c.id)
    episode = db.execute(new).scalar_one_or_none()
    if episode is None:  # another sync of this robot was faster
        return
    values = [
        {
            "episode": episode, "place": place, "tick": s.tick, "progress": s.progress,
            "key": np.ascontiguousarray(s.key, np.float32), "proprioception": blob(s.proprioception),
            "chunk": blob(s.chunk), "checksum": s.checksum(row["identity"]),
        }
        for place, s in enumerate(segments)
    ]  # fmt: skip
    db.execute(insert(SEGMENTS), values)


# Receiving ------------------------------------------------------------------------------------------------------------


def _receive(
    store: SuccessStore,
    server: FleetServer,
    origins: tuple[int, int],
    robot: str,
    layout: Layout,
    done: Synced,
    progress: Callable[[Synced], None],
) -> None:
    here, there = origins
    query = select(EPISODES.c.id, EPISODES.c.robot, EPISODES.c.identity, EPISODES.c.checksum)
    with server.snapshot() as db:  # whole or not at all: what is missing from it is deleted here
        rows = db.execute(query.where(EPISODES.c.origin == there, EPISODES.c.robot != robot).order_by("id")).all()
    visible = {f"{PREFIX}{row.robot}/{row.identity}": row for row in rows}
    texts = {i.id: i.text for i in store.instructions()}
    kept: set[str] = set()
    gone: set[int] = set()
    for head in store.episode_heads(here):
        row = visible.get(head.identity)
        if row is not None and _checksum_there(head, texts[head.instruction]) == row.checksum:
            kept.add(head.identity)
        elif head.identity.startswith(PREFIX):
            gone.add(head.id)
    if gone:
        store.delete([segment.id for segment in store.segments(here) if segment.episode in gone])
        done.dropped += len(gone)
        progress(done)
    wanted = [row.id for name, row in visible.items() if name not in kept]
    for batch in batched(wanted, _BATCH):
        with server.snapshot() as db:
            found = list(_episodes(db, batch, layout, done))
        for episode in found:
            done.received += store.commit(here, episode) is not None
        progress(done)


def _checksum_there(head: EpisodeHead, text: str) -> int:
    """The checksum that an episode of another robot has in the fleet, where it has that robot's own name."""
    own = re.sub(rf"^{PREFIX}[^/]*/", "", head.identity)
    return _checksum(dataclasses.replace(head, identity=own), text)


def _episodes(db: Connection, ids: Sequence[int], layout: Layout, done: Synced) -> Iterator[Episode]:
    """Episodes of other robots, under the names that they have here; what may not be stored is noted and left out.

    They come from another machine: nothing of them is believed before it was checked.
    """
    segments: dict[int, list[Row[Any]]] = {}
    # in the server's binary form, after a count and a word that is 0: as text it might be rounded twice
    key = func.vector_send(SEGMENTS.c.key).label("sent_key")
    columns = [column for column in SEGMENTS.c if column.name != "key"]
    query = select(key, *columns).where(SEGMENTS.c.episode.in_(ids)).order_by(SEGMENTS.c.episode, SEGMENTS.c.place)
    for row in db.execute(query):
        segments.setdefault(row.episode, []).append(row)
    for head in db.execute(select(EPISODES).where(EPISODES.c.id.in_(ids)).order_by(EPISODES.c.id)):
        try:
            cut = tuple(_segment(row, head.identity, layout) for row in segments.get(head.id, ()))
            meaning = None if head.meaning is None else np.frombuffer(head.meaning, np.float32)
            episode = Episode(
                f"{PREFIX}{head.robot}/{head.identity}", head.instruction, head.outcome, head.verifier,
                head.confidence, head.made, cut, meaning,
            )  # fmt: skip
            episode.check(layout)
        except ValueError as error:
            done.refused.append(f"{head.robot}/{head.identity}: {error}")
        else:
            yield episode


def _segment(row: Row[Any], identity: str, layout: Layout) -> Segment:
    proprioception, chunk = (np.frombuffer(array, np.float32) for array in (row.proprioception, row.chunk))
    key = np.frombuffer(row.sent_key, ">f4", offset=4).astype(np.float32)
    if chunk.size != layout.horizon * layout.action_size:
        raise EntryError(f"a chunk of {chunk.size} numbers, expected {layout.horizon} x {layout.action_size}")
    segment = Segment(row.tick, row.progress, key, proprioception, chunk.reshape(layout.horizon, layout.action_size))
    if segment.checksum(identity) != row.checksum:
        raise EntryError(f"segment {row.place} is not what was sent (checksum)")
    return segment
