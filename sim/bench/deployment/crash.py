"""Crash test: kills a process that writes a success memory, at a random moment, and checks what is left.

The child commits episodes, credits and evictions for ever; before each commit it prints 'try', after it 'done'. What
must hold, whenever it is killed: the store opens and every page and checksum is sound; every episode printed as 'done'
is there whole; none is there that was never tried, or in part; the index rebuilt from it agrees; it can be written to.
"""

import os
import sys
from pathlib import Path

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.success import ActionPart, Episode, Layout, MemoryOptions, Origin, Segment, SuccessMemory
from vlamem.sim.bench.kills import output_until_killed

LAYOUT = Layout(
    16, 8, (ActionPart("translation", 3, "linear"), ActionPart("gripper", 1, "vote")), (0.1,) * 4, quaternion=None
)
ORIGIN = Origin("crash", "crash", "crash", "crash")
OPTIONS = MemoryOptions(most_segments=400, merge_similarity=2.0, wait_s=10.0)
SEGMENTS = 6


def crash_episode(number: int) -> Episode:
    """The episode of this number, a function of it alone."""
    draw = stream(number, "crash")
    segments = []
    for i in range(SEGMENTS):
        key = draw.standard_normal(16).astype(np.float32)
        chunk = draw.uniform(-1, 1, (8, 4)).astype(np.float32)
        place = draw.uniform(-0.2, 0.2, 4).astype(np.float32)
        segments.append(Segment(8 * i, i / SEGMENTS, key / np.linalg.norm(key), place, chunk))
    return Episode(f"crash-{number}", "write until killed", "success", "predicate", 1.0, float(number), tuple(segments))


def write_until_killed(path: Path, first: int) -> None:
    """Commits episodes `first`, `first` + 1, ... for ever, with credits in between; full memories evict."""
    memory = SuccessMemory(path, ORIGIN, LAYOUT, OPTIONS)
    number = first
    while True:
        os.write(1, f"try {number}\n".encode())
        done = memory.commit(crash_episode(number))
        os.write(1, f"done {number} {' '.join(map(str, done.evicted))}\n".encode())
        memory.credit(np.array(done.ids[:3]), number % 2 == 0)
        number += 1


def kill_and_check(path: Path, first: int, after_s: float) -> tuple[int, list[str]]:
    """Runs the writer for `after_s` seconds, kills it with SIGKILL, and gives the next free number and what is wrong.

    Raises OSError when the writer does not even begin.
    """
    lines = output_until_killed(["vlamem.sim.bench.deployment.crash", str(path), str(first)], after_s)
    done = {int(line[1]) for line in lines if line[0] == "done"}
    tried = {int(line[1]) for line in lines if line[0] == "try"}
    evicted = {int(i) for line in lines if line[0] == "done" for i in line[2:]}
    return max(tried) + 1, check(path, done, tried, evicted, first)


def check(path: Path, done: set[int], tried: set[int], evicted: set[int], first: int) -> list[str]:
    """What is wrong with the store after a kill; empty when nothing is."""
    wrong: list[str] = []
    memory = SuccessMemory(path, ORIGIN, LAYOUT, OPTIONS)  # raises where pages or checksums are not sound
    with memory:
        memory.verify()
        heads = {h.id: int(h.identity.removeprefix("crash-")) for h in memory.store.episode_heads(memory.origin)}
        new = {n for n in heads.values() if n >= first}
        if missing := done - new:
            wrong.append(f"acknowledged episodes {sorted(missing)} are not there")
        if invented := new - tried:
            wrong.append(f"episodes {sorted(invented)} were never tried")
        if len(new - done) > 1:
            wrong.append(f"episodes {sorted(new - done)} are there, but only the last one may be unacknowledged")
        kept: dict[int, int] = {}
        for s in memory.store.segments(memory.origin):
            kept[heads[s.episode]] = kept.get(heads[s.episode], 0) + 1
            expected = crash_episode(heads[s.episode]).segments[s.segment.tick // 8]
            if s.segment.checksum("") != expected.checksum(""):
                wrong.append(f"segment {s.id} is not what episode {heads[s.episode]} had")
        if not evicted:
            wrong += [f"episode {n} is there in part" for n in new if kept.get(n, 0) != SEGMENTS]
        if len(memory) > 400:
            wrong.append(f"{len(memory)} segments are more than the capacity of 400")
    return wrong


def run(folder: Path, kills: int, seed: int = 0, longest_s: float = 0.4) -> tuple[int, list[str]]:
    """Kills a writer of one growing file `kills` times at random moments; how many it survived, and what was wrong.

    The file is made anew: episodes that an earlier test left in it would count as never tried.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "crash.db"
    for left in folder.glob(f"{path.name}*"):
        left.unlink()
    first, survived, wrong = 0, 0, []
    for i, after in enumerate(stream(seed, "kills").uniform(0.0, longest_s, kills)):
        first, found = kill_and_check(path, first, float(after))
        survived += not found
        wrong += [f"kill {i}: {line}" for line in found]
    return survived, wrong


if __name__ == "__main__":
    write_until_killed(Path(sys.argv[1]), int(sys.argv[2]))
