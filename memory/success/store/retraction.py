"""Retraction of a stored episode whose outcome was labelled wrongly."""

import sqlite3

import numpy as np

from vlamem.memory.success.experience.episode import Outcome, Segment, head_checksum


def retract(db: sqlite3.Connection, origin: int, identity: str, outcome: Outcome) -> list[int] | None:
    """Makes room, in the transaction at hand, for an episode that is stored under another outcome than `outcome`.

    Its segments are deleted and their ids given; those into which others were merged stay, as an episode of their own
    name, since they stand for segments of other episodes too. None for an episode that is stored under this outcome
    already.
    """
    row = db.execute("SELECT id, outcome FROM episodes WHERE origin=? AND identity=?", (origin, identity)).fetchone()
    if row is None:
        return []
    episode, stored = row
    if stored == outcome:
        return None
    mine = "SELECT s.id FROM segments s JOIN usage u ON u.segment = s.id WHERE s.episode = ? AND u.merged = 0"
    gone = [int(r[0]) for r in db.execute(mine, (episode,))]
    db.executemany("DELETE FROM segments WHERE id = ?", [(i,) for i in gone])
    arrays = "SELECT id, tick, progress, key, proprioception, chunk FROM segments WHERE episode = ?"
    left = db.execute(arrays, (episode,)).fetchall()
    if not left:
        db.execute("DELETE FROM episodes WHERE id = ?", (episode,))
        return gone
    name = f"{identity}/merged/{episode}"
    entries = db.execute(
        "SELECT i.text, e.outcome, e.verifier, e.confidence, e.made FROM episodes e "
        "JOIN instructions i ON i.id = e.instruction WHERE e.id = ?",
        (episode,),
    ).fetchone()
    checksum = head_checksum(name, *entries)
    db.execute("UPDATE episodes SET identity = ?, checksum = ? WHERE id = ?", (name, checksum, episode))
    for at, tick, progress, *blobs in left:
        segment = Segment(int(tick), float(progress), *(np.frombuffer(b, np.float32) for b in blobs))
        db.execute("UPDATE segments SET checksum = ? WHERE id = ?", (segment.checksum(name), at))
    return gone
