"""Every kind of file that vlamem reads: its form, its version, its checksum, who writes it, what a crash leaves.

For those that vlamem writes there is a sample, and a way to read it that gives all that it says.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream

Read = Callable[[], Any]
"""Reads the sample; what it gives is compared. Raises ValueError or OSError for what is damaged."""


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes:
        name: as it is called in the folder that it lies in.
        form, version: of the file; "-" where it has no version.
        checksum: what notices a changed bit.
        writer: the verb.
        crash: what is there after a crash.
        sample: writes one into a folder and gives its path and how it is read; None for what people or other programs
            write.
    """

    name: str
    form: str
    version: str
    checksum: str
    writer: str
    crash: str
    sample: Callable[[Path], tuple[Path, Read]] | None = None


_WHOLE = "the old one or the new one"


def _bytes(arrays: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    return {name: (str(np.asarray(x).dtype), np.asarray(x).tobytes()) for name, x in sorted(arrays.items())}


def _gate(folder: Path) -> tuple[Path, Read]:
    import jax

    from vlamem.memory.config import HeadConfig
    from vlamem.memory.designs.registry import design
    from vlamem.memory.protocol import named_arrays
    from vlamem.memory.weights import Header, TrainedFor, load_weights, save_weights

    memory, path = design("aura").make(16, HeadConfig(context=4)), folder / "gate.safetensors"
    arrays = named_arrays(memory.init_params(jax.random.key(0)))
    save_weights(path, Header.of(memory, TrainedFor("sample", "a", "b"), "drawn", {"error": 0.5}), arrays)

    def read() -> Any:
        header, found = load_weights(path)
        return asdict(header), _bytes(found)

    return path, read


def _policy(folder: Path) -> tuple[Path, Read]:
    from vlamem.policies.tiny.weights import load_weights, save_weights

    path = folder / "policy.safetensors"
    save_weights(path, {"w": stream(0, "sample").standard_normal((8, 8))}, {"kind": "sample"})

    def read() -> Any:
        found, header = load_weights(path)
        return header, _bytes(found)

    return path, read


def _critic(folder: Path) -> tuple[Path, Read]:
    from vlamem.memory.success import ProgressCritic

    path, ones = folder / "critic.safetensors", np.ones(4, np.float32)
    ProgressCritic({"w1": np.ones((2, 4, 3), np.float32)}, ones, ones, 0.9, 0.1, 0.97, 0.6, 40, 20).save(path)

    def read() -> Any:
        found = ProgressCritic.load(path)
        return _bytes(found.weights), _bytes({"m": found.mean, "s": found.scale}), found.threshold, found.episodes

    return path, read


def _checkpoint(folder: Path) -> tuple[Path, Read]:
    from vlamem.memory.train.checkpoint import Checkpoint

    tree = {"w": np.arange(8, dtype=np.float32)}
    kept = Checkpoint(folder, {"seed": 0})
    kept.save(tree, 3, 1.5, [{"error": 0.25}])

    def read() -> Any:
        done, seconds, history, found = kept.restore(tree)
        return done, seconds, history, _bytes(found)

    return folder / "checkpoint.safetensors", read


def _memory(path: Path) -> Any:
    """A success memory with two episodes in a file."""
    from vlamem.memory.success import Episode, Segment, SuccessMemory
    from vlamem.sim.bench.deployment.crash import LAYOUT, ORIGIN

    memory, draw = SuccessMemory(path, ORIGIN, LAYOUT), stream(0, "sample")
    for i in range(2):
        cut = []
        for tick in range(3):
            key = draw.standard_normal(LAYOUT.key_size).astype(np.float32)
            proprioception = np.zeros(LAYOUT.proprioception_size, np.float32)
            if LAYOUT.quaternion is not None:
                proprioception[LAYOUT.quaternion] = 1
            chunk = draw.uniform(-0.5, 0.5, (LAYOUT.horizon, LAYOUT.action_size)).astype(np.float32)
            cut.append(Segment(tick, tick / 4, key / np.linalg.norm(key), proprioception, chunk))
        memory.commit(Episode(f"episode-{i}", "go home", "success", "operator", 1.0, float(i), tuple(cut)))
    return memory


def _database(folder: Path) -> tuple[Path, Read]:
    from vlamem.memory.success import MemoryOptions, SuccessMemory
    from vlamem.sim.bench.deployment.crash import LAYOUT, ORIGIN

    path = folder / "memory.db"
    memory = _memory(path)
    memory.store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    memory.close()

    def read() -> Any:
        with SuccessMemory(path, ORIGIN, LAYOUT, MemoryOptions(read_only=True)) as found:
            store = found.store
            segments = [
                (s.outcome, s.segment.tick, s.segment.key.tobytes(), s.segment.chunk.tobytes())
                for s in store.segments(found.origin)
            ]
            heads = [head.described() for head in store.episode_heads(found.origin)]
            return segments, heads, [i.text for i in store.instructions()]

    return path, read


def _snapshot(folder: Path) -> tuple[Path, Read]:
    from vlamem.memory.success.store import export, read_snapshot

    path, memory = folder / "memory.safetensors", _memory(folder / "memory.db")
    export(memory.store, memory.origin, path)
    memory.close()

    def read() -> Any:
        found = read_snapshot(path)
        return asdict(found.origin), found.layout, found.calibration, str(found.episodes), found.use

    return path, read


def _store(folder: Path) -> Any:
    """A store of sessions with one that has written."""
    from vlamem.deploy.server.session_record import Owner, hash_token, layout_of
    from vlamem.deploy.server.session_store import SessionStore

    state = {"W": np.zeros((4, 4), np.float32)}
    store = SessionStore(folder, Owner("sample", "a", "b", "c", layout_of(state)), state)
    store.persist(store.begin("arm", hash_token("t"), 2), 7, {"W": np.full((4, 4), 3, np.float32)})
    return store


def _session(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.server.session_record import read_record

    _store(folder).close()
    return folder / "arm" / "session.json", lambda: read_record(folder / "arm")


def _journal(folder: Path) -> tuple[Path, Read]:
    _store(folder).close()
    made = iter(range(1 << 30))

    def read() -> Any:
        import shutil

        from vlamem.deploy.server.session_record import StateError

        copy = folder.parent / f"{folder.name}-{next(made)}"
        shutil.copytree(folder, copy)
        try:
            store = _opened(copy)
            try:
                session, state, step = store.recover("arm")
            finally:
                store.close()
            if step < 0:  # nothing of it could be read, which the server says
                raise StateError("the journal holds no state")
            return session.episode, step, _bytes(state)
        finally:
            shutil.rmtree(copy)

    return folder / "arm" / "memory.journal", read


def _opened(folder: Path) -> Any:
    from vlamem.deploy.server.session_record import Owner, layout_of
    from vlamem.deploy.server.session_store import SessionStore

    state = {"W": np.zeros((4, 4), np.float32)}
    return SessionStore(folder, Owner("sample", "a", "b", "c", layout_of(state)), state)


def _export(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.server.session_export import export_session, import_session

    store, path = _store(folder / "a"), folder / "arm.safetensors"
    export_session(store, "arm", path)
    store.close()

    def read() -> Any:
        other = _opened(folder / "b")
        try:
            session = import_session(other, path)
            return session.token, session.episode, session.ended, str(other.recover("arm")[1:])
        finally:
            other.remove("arm")
            other.close()

    return path, read


def _labels(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.server.labels import Label, LabelQueue

    def wait(label: Label) -> str:
        raise OSError("not now")

    queue = LabelQueue(folder / "labels.jsonl", wait)
    for i in range(4):
        queue.add(Label(f"label-{i}", "arm", i + 1, "success", "operator", 5.0, "ab"), hold=True)
    queue.close()

    def read() -> Any:
        again = LabelQueue(folder / "labels.jsonl", wait, runs=lambda label: True)
        again.close()
        if again.damaged:
            raise ValueError(f"{again.damaged} lines are damaged, set aside and counted")
        return [asdict(label) for label in again._held]

    return folder / "labels.jsonl", read


def _spool(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.server.traces import TraceStore

    traces = TraceStore(folder)
    traces.begin("arm", 1)
    for step in range(6):
        if step:
            traces.record_action("arm", 1, step, np.full(7, step / 10, np.float32))
        chunk = np.full((4, 7), step / 10, np.float32)
        traces.record_plan("arm", 1, step, "touch it", np.array([1, 0], np.float32), np.zeros(8, np.float32), chunk)
    return traces.path("arm", 1), lambda: str(list(TraceStore(folder).read("arm", 1)))


def _link(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.robot.events import EventLog
    from vlamem.deploy.robot.outbox import Outbox

    box = Outbox("arm", folder, 9, 3, EventLog(), lambda: 0.0)
    box.joined({"session": "arm", "token": "secret", "episode": 1}, first=True)
    box.label(1, "success", "operator")
    return folder / "link.json", lambda: dict(Outbox("arm", folder, 9, 3, EventLog(), lambda: 0.0)._saved)


def _episodes(folder: Path) -> tuple[Path, Read]:
    from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord

    path = folder / "episodes.jsonl"
    log = EpisodeLog(path)
    log.append(*(EpisodeRecord("none", "touch", "test", i, 0, "success", f"state-{i}") for i in range(4)))
    return path, lambda: [asdict(record) for record in EpisodeLog(path).read()]


def _recording(folder: Path, file: str) -> tuple[Path, Read]:
    from vlamem.memory.train.features import EpisodeTicks, Features, FeaturesMeta, FeatureWriter
    from vlamem.memory.weights import TrainedFor

    meta = FeaturesMeta(TrainedFor("sample", "a", "b"), 8, 2, (4, 7), (("go",), ("stop",)), "sample", "drawn")
    writer = FeatureWriter(folder, meta, np.zeros((2, 1, 2)))
    for i in range(2):
        z, chunk = np.ones((5, 8)), np.zeros((5, 4, 7))
        writer.add("touch", i, "expert", EpisodeTicks(z, chunk, np.zeros((5, 2)), np.zeros(5)), True)
    writer.close()

    def read() -> Any:
        found = Features(folder)
        if len(found.episodes) < 2:
            raise ValueError("fewer episodes than were recorded, which is said")
        return [(asdict(e), {n: x.tobytes() for n, x in vars(found.ticks(e)).items()}) for e in found.episodes]

    return folder / file, read


def _trace(folder: Path) -> tuple[Path, Read]:
    from vlamem.core.tick_trace import STEP, TickTrace, read_trace, write_trace

    path = folder / "touch-0000.parquet"
    rows = [{"step": i, "weight": i / 8, "command": [0.5] * 7, "encode_ms": 1.5} for i in range(40)]
    write_trace(path, TickTrace(dict(STEP), rows, {"task": "touch"}))

    def read() -> Any:
        found = read_trace(path)
        return dict(found.columns), found.rows, found.about

    return path, read


KINDS = (
    FileKind("gate.safetensors", "safetensors", "header", "SHA-256 of all", "train-gate, fit", _WHOLE, _gate),
    FileKind("tiny.safetensors", "safetensors", "header", "SHA-256 of all", "pretrain", _WHOLE, _policy),
    FileKind("critic.safetensors", "safetensors", "header", "SHA-256 of all", "critic", _WHOLE, _critic),
    FileKind("checkpoint.safetensors", "safetensors", "marks", "SHA-256 of all", "train-gate, fit", _WHOLE,
             _checkpoint),
    FileKind("memory.db", "SQLite", "schema", "CRC-32 of each segment and episode", "serve, rollout, memory",
             "as of the last commit", _database),
    FileKind("memory.safetensors", "safetensors", "header", "SHA-256 of all", "memory export", _WHOLE, _snapshot),
    FileKind("sessions/*/session.json", "JSON", "-", "CRC-32 of the record", "serve", _WHOLE, _session),
    FileKind("sessions/*/memory.journal", "two slots", "magic", "CRC-32 of each slot", "serve",
             "the last write that was whole", _journal),
    FileKind("SESSION.safetensors", "safetensors", "-", "SHA-256 of all", "state export", _WHOLE, _export),
    FileKind("labels.jsonl", "JSON lines", "-", "CRC-32 of each line", "serve", "without a line cut short", _labels),
    FileKind("episodes/*.trace", "msgpack entries", "first entry", "CRC-32 of each entry", "serve",
             "without its last seconds", _spool),
    FileKind("link.json", "JSON", "-", "CRC-32 of the record", "control", _WHOLE, _link),
    FileKind("RUN/episodes.jsonl", "JSON lines", "-", "CRC-32 of each line", "rollout", "without a line cut short",
             _episodes),
    FileKind("RECORDING/episodes.jsonl", "JSON lines", "meta.json", "CRC-32 of each line", "collect --features",
             "up to the last whole episode", lambda folder: _recording(folder, "episodes.jsonl")),
    FileKind("RECORDING/z, chunk, goal, asked", "raw columns", "meta.json", "CRC-32 of each episode",
             "collect --features", "up to the last whole episode", lambda folder: _recording(folder, "z")),
    FileKind("traces/*.parquet", "Parquet", "metadata", "CRC-32 of each page", "rollout", _WHOLE, _trace),
    FileKind("run.json, results.json, meta.json", "JSON", "entry", "none: compared with the run", "rollout, collect",
             _WHOLE),
    FileKind("ROBOT.toml, CONFIG.yaml, KEYS", "text", "-", "none: people write them", "people", "-"),
    FileKind("--record DATASET", "LeRobotDataset v3", "theirs", "-", "control", "up to the last whole episode"),
    FileKind("LeRobot checkpoints and data sets", "theirs", "theirs", "theirs", "lerobot", "-"),
)  # fmt: skip
"""In the order of docs/files.md."""
