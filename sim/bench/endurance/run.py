"""What memory that outlives power loss costs in bytes written: the page docs/results/endurance.md.

Three arms play the same event stream, each in a process of its own, and make their memory durable before the next tick:
AURA with its trained gate and the same memory that writes at every tick persist the state at every write and only then;
a growing key-value log appends 256 bytes a tick. Bytes are those that the operating system sent to the device.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.journal import StateJournal
from vlamem.memory.designs.aura.reference import AuraTick
from vlamem.memory.weights import WeightsError, load_weights
from vlamem.sim.bench.kills import output_until_killed
from vlamem.sim.results.pages import Figure, write_result_page

ARMS = ("aura", "always", "kv")
KV_BYTES = 256
"""A key and a value of 32 float32 each."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class EnduranceBench:
    """Options of the bench.

    Attributes:
        ticks: of each arm.
        kills: how often a writing process is killed to see what it leaves.
        weights: trained gate of the synthetic benchmark; its feature size must be that of the event stream.
        folder: where the arms keep their files while they run; the file system under test.
        results: folder of the page.
        command: what made the page.
    """

    ticks: int
    kills: int
    weights: Path
    folder: Path
    results: Path
    command: str


def shipped_weights() -> Path:
    """The trained gate of the synthetic benchmark that comes with vlamem."""
    with resources.as_file(resources.files("vlamem.memory.designs.aura") / "learned_gate.safetensors") as path:
        return path


def written_bytes() -> int:
    """Bytes that this process has caused to be sent to the device, as the operating system counts them."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise OSError("/proc/self/io has no write_bytes: this bench needs Linux with task I/O accounting")


EPISODE = 4096
"""Ticks of an episode; the memory is emptied, durably, at the beginning of each."""


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
    words = output_until_killed(["vlamem.sim.bench.endurance.run", "persist", str(path), str(seed)], after_s)
    allowed = {(int(t), int(c)) for said, t, c in words[-2:] if said == "done"}
    allowed |= {(int(t), int(c)) for said, t, c in words[-1:] if said == "try"}
    journal = StateJournal(path)
    W, b = np.zeros((32, 32), np.float32), np.zeros(32, np.float32)
    tick = journal.recover(W, b)
    journal.close()
    if tick is None:
        return not any(said == "done" for said, *_ in words)
    return (tick, zlib.crc32(W.tobytes() + b.tobytes())) in allowed


def run(bench: EnduranceBench, report: Report) -> tuple[Path, Path]:
    """Plays the arms at the same time, kills and recovers, and writes the page, its twin and its plot.

    Raises WeightsError when the weights do not fit, OSError when the operating system does not count bytes.
    """
    if not bench.weights.exists():
        raise WeightsError(f"{bench.weights} is missing: 'vlamem bench synthetic' trains the gate, or name a file")
    bench.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        folder = Path(name)
        zs, events = features(bench.ticks)
        np.save(folder / "stream.npy", zs)
        np.save(folder / "events.npy", events)
        done = [json.loads(out) for out in _arms(folder, bench.weights, report)]
        recovered = 0
        for i in range(bench.kills):
            recovered += kill_and_recover(folder / f"kill{i}.journal", i, 0.02 + 0.01 * (i % 20))
        report(f"recovered exactly after {recovered} of {bench.kills} kills")
    by_arm = {arm["arm"]: arm for arm in done}
    if min(arm["bytes"] for arm in done) == 0 and by_arm["aura"]["writes"]:
        report("the file system hides its writes from the process: no figures can be had here, name another --folder")
        raise OSError(f"{bench.folder} is on a file system whose writes the operating system does not count")
    aura, always, kv = (by_arm[arm] for arm in ARMS)
    figures = {
        "bytes_aura": Figure(aura["bytes"], bench.ticks),
        "bytes_always": Figure(always["bytes"], bench.ticks),
        "bytes_kv": Figure(kv["bytes"], bench.ticks),
        "always_over_aura": Figure(always["bytes"] / max(1, aura["bytes"])),
        "kv_over_aura": Figure(kv["bytes"] / max(1, aura["bytes"])),
        "writes_aura": Figure.rate(aura["writes"], bench.ticks),
        "p_write_event_aura": Figure.rate(aura["on_events"], aura["events"]),
        "recovered_after_kill": Figure.rate(recovered, bench.kills),
    }
    bench.results.mkdir(parents=True, exist_ok=True)
    _plot(done, bench.results / "endurance.png")
    header, _ = load_weights(bench.weights)
    given = {"gate": header.command, "file_system": _file_system(bench.folder)}
    return write_result_page("endurance", bench.command, figures, _page(done, recovered, bench), bench.results, given)


def _arms(folder: Path, weights: Path, report: Report) -> list[str]:
    words = [sys.executable, "-m", "vlamem.sim.bench.endurance.run", "play"]
    running = [
        subprocess.Popen([*words, arm, str(folder), str(weights)], stdout=subprocess.PIPE, text=True) for arm in ARMS
    ]
    outs = []
    for arm, child in zip(ARMS, running, strict=True):
        out, _ = child.communicate()
        if child.returncode != 0:
            for other in running:
                other.kill()
            raise OSError(f"arm {arm} ended with status {child.returncode}: its error is above")
        said = json.loads(out)
        report(f"{arm}: {said['writes']} writes, {said['bytes'] / 1e6:.1f} MB in {said['seconds']:.0f} s")
        outs.append(out)
    return outs


def _file_system(folder: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [m for m in mounts if folder.resolve().is_relative_to(m[1])]
    return max(inside, key=lambda m: len(m[1]))[2]


def _page(done: list[dict[str, Any]], recovered: int, bench: EnduranceBench) -> str:
    title = {"aura": "AURA, learned gate", "always": "the same memory, always writing", "kv": "growing KV log"}
    aura = done[0]
    rows = [
        f"| {title[a['arm']]} | {a['writes']} | {a['bytes']:,} | {a['bytes'] / a['ticks']:,.0f} | {a['size']:,} "
        f"| {1e3 * a['seconds'] / max(1, a['writes']):.1f} |"
        for a in done
    ]
    return "\n".join(
        [
            "# Bytes written by memory that outlives power loss",
            "",
            f"{bench.ticks:,} ticks of the event-sparse stream (one in ten an event), each arm in a process of "
            "its own, all at the same time on one disk. A tick ends when what it wrote is on the medium (fdatasync). "
            f"Episodes have {EPISODE:,} ticks; the memory is emptied, durably, at the beginning of each. "
            "AURA and always-write persist W and b (4,224 bytes, a head and a checksum; two pages) at every write and "
            "only then; the log appends a key and a value (256 bytes) at every tick. The gate is the trained one of "
            f"the synthetic benchmark: it wrote {aura['on_events']:,} of {aura['events']:,} events.",
            "",
            "| arm | durable writes | bytes sent to the device | bytes a tick | file at the end | ms a durable write |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "![bytes written over ticks](endurance.png)",
            "",
            "Bytes are write_bytes of /proc/self/io: pages sent to the block layer by the process, whole pages since a "
            "device takes no less; what the file system's own journal adds is written by the kernel and is not in it. "
            "Wear within the flash device (erase blocks) is not visible from here.",
            "",
            f"After kill -9 at {bench.kills} different moments of writing, {recovered} of {bench.kills} journals gave "
            "exactly the last persisted state.",
        ]
    )


def _plot(done: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(6.4, 4), layout="constrained")
    axes = canvas.subplots()
    for arm in done:
        ticks = [arm["every"] * i for i in range(len(arm["curve"]))]
        axes.plot(
            ticks, np.array(arm["curve"]) / 1e6, label={"aura": "AURA", "always": "always", "kv": "KV log"}[arm["arm"]]
        )
    axes.set(xlabel="ticks", ylabel="MB sent to the device")
    axes.legend()
    canvas.savefig(path, dpi=120)


if __name__ == "__main__":
    if sys.argv[1] == "play":
        where = Path(sys.argv[3])
        print(json.dumps(play(sys.argv[2], where, where / "stream.npy", Path(sys.argv[4]))))
    else:
        persist_until_killed(Path(sys.argv[2]), int(sys.argv[3]))
