"""One arm of the endurance bench, in a process of its own, and a writer that is killed while it persists.

AURA with its trained gate and the same memory that writes at every tick persist the state at every write and only then;
a growing key-value log appends 256 bytes a tick.
"""

import json
import os
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.journal import StateJournal
from vlamem.memory.designs.aura.reference import AuraTick
from vlamem.memory.weights import load_weights
from vlamem.sim.bench.kills import output_until_killed

KV_BYTES = 256
"""A key and a value of 32 float32 each."""
EPISODE = 4096
"""Ticks of an episode; the memory is emptied, durably, at the beginning of each."""


def written_bytes() -> int:
    """Bytes that this process has caused to be sent to the device, as the operating system counts them."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise OSError("/proc/self/io has no write_bytes: this bench needs Linux with task I/O accounting")


def features(ticks: int) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Features [ticks, D] and event marks [ticks] of the benchmark's event streams, one episode after the other.

    One tick in ten is an event; the rest are look-alikes, repeats, queries and noise.
    """
    from vlamem.sim.suites.synthetic.events import EventConfig, event_streams
    from vlamem.sim.suites.synthetic.stream import key_of, vocabulary

    config, words = EventConfig(min(EPISODE, ticks)), vocabulary(0, 16)
    parts = [event_streams(key_of(0, "endurance", i), config, words, 1) for i in range(-(-ticks // EPISODE))]
    zs = np.concatenate([np.asarray(part.z)[:, 0] for part in parts])[:ticks]
    return np.ascontiguousarray(zs, np.float32), np.concatenate([np.asarray(p.event)[:, 0] for p in parts])[:ticks]


def play(arm: str, folder: Path, stream_file: Path, weights: Path) -> dict[str, Any]:
    """One arm over the whole stream; its figures, with bytes at 50 equally spaced ticks."""
    zs, events = np.load(stream_file), np.load(stream_file.with_name("events.npy"))
    header, arrays = load_weights(weights, feature_size=zs.shape[1])
    own = AuraConfig.from_config(header.config)
    config = own if arm == "aura" else replace(own, gate="always")
    tick = AuraTick(config, arrays)
    journal = StateJournal(folder / f"{arm}.journal")
    log = os.open(folder / f"{arm}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    entry = np.zeros(KV_BYTES // 4, np.float32)
    every = max(1, len(zs) // 50)
    writes, on_events, curve = 0, 0, [0]
    begin, start = written_bytes(), time.perf_counter()
    for t, z in enumerate(zs):
        if arm == "kv":
            entry[:] = z[: entry.size] if z.size >= entry.size else np.resize(z, entry.size)
            os.write(log, entry.tobytes())
            os.fdatasync(log)
            writes += 1
        else:
            begins = t % EPISODE == 0
            if begins:
                tick.reset()
            wrote = tick.tick(z).wrote
            if wrote or begins:
                journal.persist(tick.W, tick.b, t)
            writes += wrote
            on_events += wrote and bool(events[t])
        if (t + 1) % every == 0:
            curve.append(written_bytes() - begin)
    seconds = time.perf_counter() - start
    size = os.fstat(log).st_size if arm == "kv" else (folder / f"{arm}.journal").stat().st_size
    return {
        "arm": arm,
        "ticks": len(zs),
        "writes": writes,
        "on_events": on_events,
        "events": int(events.sum()),
        "bytes": written_bytes() - begin,
        "size": size,
        "seconds": seconds,
        "curve": curve,
        "every": every,
    }


def persist_until_killed(path: Path, seed: int) -> None:
    """Persists random states for ever; before each it prints 'try', after each 'done', with tick and checksum."""
    draw, journal = stream(seed, "persist_until_killed"), StateJournal(path)
    tick = 0
    while True:
        W, b = draw.standard_normal((32, 32), np.float32), draw.standard_normal(32, np.float32)
        mark = f"{tick} {zlib.crc32(W.tobytes() + b.tobytes())}\n"
        os.write(1, b"try " + mark.encode())
        journal.persist(W, b, tick)
        os.write(1, b"done " + mark.encode())
        tick += 1


def kill_and_recover(path: Path, seed: int, after_s: float) -> bool:
    """Whether a process killed with SIGKILL while persisting leaves exactly its last persisted state.

    That is the state of the last 'done', or, when the kill fell between a finished write and its 'done', of the 'try'
    that follows it. Raises OSError when the process does not even begin.
    """
    words = output_until_killed(["vlamem.sim.bench.endurance.arms", "persist", str(path), str(seed)], after_s)
    allowed = {(int(t), int(c)) for word, t, c in words[-2:] if word == "done"}
    allowed |= {(int(t), int(c)) for word, t, c in words[-1:] if word == "try"}
    journal = StateJournal(path)
    W, b = np.zeros((32, 32), np.float32), np.zeros(32, np.float32)
    tick = journal.recover(W, b)
    journal.close()
    if tick is None:
        return not any(word == "done" for word, *_ in words)
    return (tick, zlib.crc32(W.tobytes() + b.tobytes())) in allowed


if __name__ == "__main__":
    if sys.argv[1] == "play":
        where = Path(sys.argv[3])
        print(json.dumps(play(sys.argv[2], where, where / "stream.npy", Path(sys.argv[4]))))
    else:
        persist_until_killed(Path(sys.argv[2]), int(sys.argv[3]))
