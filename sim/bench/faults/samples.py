"""A sample of every kind of file that vlamem writes, and a way to read it that gives all that it says."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream

Read = Callable[[], Any]
"""Reads the sample; what it gives is compared. Raises ValueError or OSError for what is damaged, and what is warned
of."""


@contextmanager
def _heard(logger: str) -> Iterator[None]:
    """Raises ValueError, with its words, where something is warned of in the context and nothing is raised."""
    heard = list[str]()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listening, ear = logging.getLogger(logger), Ear(logging.WARNING)
    listening.addHandler(ear)
    try:
        yield
    finally:
        listening.removeHandler(ear)
    if heard:
        raise ValueError(heard[0])


def _bytes(arrays: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    return {name: (str(np.asarray(x).dtype), np.asarray(x).tobytes()) for name, x in sorted(arrays.items())}


def gate_sample(folder: Path) -> tuple[Path, Read]:
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


def policy_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.policies.tiny.weights import load_weights, save_weights

    path = folder / "policy.safetensors"
    save_weights(path, {"w": stream(0, "sample").standard_normal((8, 8))}, {"kind": "sample"})

    def read() -> Any:
        found, header = load_weights(path)
        return header, _bytes(found)

    return path, read


def critic_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.memory.success import ProgressCritic

    path, ones = folder / "critic.safetensors", np.ones(4, np.float32)
    ProgressCritic({"w1": np.ones((2, 4, 3), np.float32)}, ones, ones, 0.9, 0.1, 0.97, 0.6, 40, 20).save(path)

    def read() -> Any:
        found = ProgressCritic.load(path)
        return _bytes(found.weights), _bytes({"m": found.mean, "s": found.scale}), found.threshold, found.episodes

    return path, read


def checkpoint_sample(folder: Path) -> tuple[Path, Read]:
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


def database_sample(folder: Path) -> tuple[Path, Read]:
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


def snapshot_sample(folder: Path) -> tuple[Path, Read]:
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


def session_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.server.session_record import read_record

    _store(folder).close()
    return folder / "arm" / "session.json", lambda: read_record(folder / "arm")


def journal_sample(folder: Path) -> tuple[Path, Read]:
    _store(folder).close()
    made = iter(range(1 << 30))

    def read() -> Any:
        import shutil

        copy = folder.parent / f"{folder.name}-{next(made)}"
        shutil.copytree(folder, copy)
        try:
            store = _opened(copy)
            try:
                with _heard("vlamem.serve"):
                    session, state, step = store.recover("arm")
            except ValueError as error:  # of the copy
                raise ValueError(str(error).replace(str(copy), str(folder))) from error
            finally:
                store.close()
            return session.episode, step, _bytes(state)
        finally:
            shutil.rmtree(copy)

    return folder / "arm" / "memory.journal", read


def _opened(folder: Path) -> Any:
    from vlamem.deploy.server.session_record import Owner, layout_of
    from vlamem.deploy.server.session_store import SessionStore

    state = {"W": np.zeros((4, 4), np.float32)}
    return SessionStore(folder, Owner("sample", "a", "b", "c", layout_of(state)), state)


def export_sample(folder: Path) -> tuple[Path, Read]:
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


def labels_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.server.labels import Label, LabelQueue

    def wait(label: Label) -> str:
        raise OSError("not now")

    queue = LabelQueue(folder / "labels.jsonl", wait)
    for i in range(4):
        queue.add(Label(f"label-{i}", "arm", i + 1, "success", "operator", 5.0, "ab"), hold=True)
    queue.close()

    def read() -> Any:
        reported = list[str]()
        again = LabelQueue(folder / "labels.jsonl", wait, reported.append, runs=lambda label: True)
        again.close()
        if again.damaged:
            raise ValueError(reported[0])
        return [asdict(label) for label in again._held]

    return folder / "labels.jsonl", read


def spool_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.server.traces import TraceStore

    traces = TraceStore(folder)
    traces.begin("arm", 1)
    for step in range(6):
        if step:
            traces.record_action("arm", 1, step, np.full(7, step / 10, np.float32))
        chunk = np.full((4, 7), step / 10, np.float32)
        traces.record_plan("arm", 1, step, "touch it", np.array([1, 0], np.float32), np.zeros(8, np.float32), chunk)
    return traces.path("arm", 1), lambda: str(list(TraceStore(folder).read("arm", 1)))


def link_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.deploy.robot.events import EventLog
    from vlamem.deploy.robot.outbox import Outbox

    box = Outbox("arm", folder, 9, 3, EventLog(), lambda: 0.0)
    box.joined({"session": "arm", "token": "secret", "episode": 1}, first=True)
    box.label(1, "success", "operator")
    return folder / "link.json", lambda: dict(Outbox("arm", folder, 9, 3, EventLog(), lambda: 0.0)._saved)


def episodes_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord

    path = folder / "episodes.jsonl"
    log = EpisodeLog(path)
    log.append(*(EpisodeRecord("none", "touch", "test", i, 0, "success", f"state-{i}") for i in range(4)))
    return path, lambda: [asdict(record) for record in EpisodeLog(path).read()]


def recording_sample(folder: Path, file: str) -> tuple[Path, Read]:
    from vlamem.memory.train.features import EpisodeTicks, Features, FeaturesMeta, FeatureWriter
    from vlamem.memory.weights import TrainedFor

    meta = FeaturesMeta(TrainedFor("sample", "a", "b"), 8, 2, (4, 7), (("go",), ("stop",)), "sample", "drawn")
    writer = FeatureWriter(folder, meta, np.zeros((2, 1, 2)))
    for i in range(2):
        z, chunk = np.ones((5, 8)), np.zeros((5, 4, 7))
        writer.add("touch", i, "expert", EpisodeTicks(z, chunk, np.zeros((5, 2)), np.zeros(5)), True)
    writer.close()

    def read() -> Any:
        with _heard("vlamem.memory.train.features"):
            found = Features(folder)
        return [(asdict(e), {n: x.tobytes() for n, x in vars(found.ticks(e)).items()}) for e in found.episodes]

    return folder / file, read


def trace_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.core.tick_trace import STEP, TickTrace, read_trace, write_trace

    path = folder / "touch-0000.parquet"
    rows = [{"step": i, "weight": i / 8, "command": [0.5] * 7, "encode_ms": 1.5} for i in range(40)]
    write_trace(path, TickTrace(dict(STEP), rows, {"task": "touch"}))

    def read() -> Any:
        found = read_trace(path)
        return dict(found.columns), found.rows, found.about

    return path, read


def contexts_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.memory.train.features import Features

    recording_sample(folder, "z")
    return folder / "contexts.npy", lambda: Features(folder).contexts.tobytes()


def conditioning_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.memory.train.conditioning import Conditioned, read_conditioning, write_conditioning
    from vlamem.memory.train.features import FeatureEpisode

    ticks, rows = np.arange(3, dtype=np.int32), np.arange(12, dtype=np.float16).reshape(3, 4)
    write_conditioning(folder, "touch", 0, "expert", Conditioned(ticks, np.ones(3, np.float32), rows))
    episode = FeatureEpisode("touch", 0, "expert", 0, 5, True)

    def read() -> Any:
        return [column.tobytes() for column in read_conditioning(folder, episode)]

    return folder / "conditioning" / "touch-0-expert.npy", read


def frames_sample(folder: Path) -> tuple[Path, Read]:
    from vlamem.policies.tiny.frames import Frames, FramesMeta, FramesWriter, Goal

    goals = (Goal("touch", ("touch it",)),)
    meta = FramesMeta(("touch",), goals, (), (), (), (), (), image_size=4, horizon=2, command="sample")
    rows = {name: np.zeros((3, *shape), kind) for name, (kind, shape) in meta.columns().items()}
    with FramesWriter(folder, meta) as writer:
        writer.add_episode(rows)
    camera = meta.cameras[0]

    def read() -> Any:
        found = Frames(folder)
        return found.images(camera, np.arange(3)).tobytes(), _bytes(found.columns)

    return folder / "shard-00000" / f"{camera}.npy", read
