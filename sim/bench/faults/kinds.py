"""Every kind of file that vlamem reads: its form, its version, its checksum, who writes it, what a crash leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlamem.sim.bench.faults.samples import (
    Read,
    checkpoint_sample,
    conditioning_sample,
    contexts_sample,
    critic_sample,
    database_sample,
    episodes_sample,
    export_sample,
    frames_sample,
    gate_sample,
    journal_sample,
    labels_sample,
    link_sample,
    policy_sample,
    recording_sample,
    session_sample,
    snapshot_sample,
    spool_sample,
    trace_sample,
)


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes:
        name: as it is called in the folder that it lies in.
        form, version: of the file; "-" where it has no version.
        checksum: what notices a changed bit.
        writer: the verb.
        crash: what is there after a crash.
        mend: words of the mend in an error about a damaged one.
        sample: writes one into a folder and gives its path and how it is read; None for what people or other programs
            write.
    """

    name: str
    form: str
    version: str
    checksum: str
    writer: str
    crash: str
    mend: str = "-"
    sample: Callable[[Path], tuple[Path, Read]] | None = None


_WHOLE = "the old one or the new one"

KINDS = (
    FileKind("gate.safetensors", "safetensors", "header", "SHA-256 of all", "train-gate, fit", _WHOLE,
             "train it anew", gate_sample),
    FileKind("tiny.safetensors", "safetensors", "header", "SHA-256 of all", "pretrain", _WHOLE,
             "train it again", policy_sample),
    FileKind("critic.safetensors", "safetensors", "header", "SHA-256 of all", "train_critic, bench deployment", _WHOLE,
             "train a critic for this policy", critic_sample),
    FileKind("checkpoint.safetensors", "safetensors", "marks", "SHA-256 of all", "train-gate, fit", _WHOLE,
             "remove it to begin anew", checkpoint_sample),
    FileKind("memory.db", "SQLite", "schema", "CRC-32 of each segment and episode", "serve, rollout, memory",
             "as of the last commit", "vlamem memory verify --salvage NEW_FILE", database_sample),
    FileKind("memory.safetensors", "safetensors", "header", "SHA-256 of all", "memory export", _WHOLE,
             "export it again", snapshot_sample),
    FileKind("sessions/*/session.json", "JSON", "-", "CRC-32 of the record", "serve", _WHOLE,
             "remove the folder of this session", session_sample),
    FileKind("sessions/*/memory.journal", "two slots", "magic", "CRC-32 of each slot", "serve",
             "the last write that was whole", "begin another episode", journal_sample),
    FileKind("SESSION.safetensors", "safetensors", "-", "SHA-256 of all", "state export", _WHOLE,
             "export the session again", export_sample),
    FileKind("labels.jsonl", "JSON lines", "-", "CRC-32 of each line", "serve", "without a line cut short",
             "set aside", labels_sample),
    FileKind("episodes/*.trace", "msgpack entries", "first entry", "CRC-32 of each entry", "serve",
             "without its last seconds", "remove it", spool_sample),
    FileKind("link.json", "JSON", "-", "CRC-32 of the record", "control", _WHOLE,
             "remove it to begin a new session", link_sample),
    FileKind("RUN/episodes.jsonl", "JSON lines", "-", "CRC-32 of each line", "rollout", "without a line cut short",
             "remove the line to have it run again", episodes_sample),
    FileKind("RECORDING/episodes.jsonl", "JSON lines", "meta.json", "CRC-32 of each line", "collect --features",
             "up to the last whole episode", "record", lambda folder: recording_sample(folder, "episodes.jsonl")),
    FileKind("RECORDING/z, chunk, goal, asked", "raw columns", "meta.json", "CRC-32 of each episode",
             "collect --features", "up to the last whole episode", "record again",
             lambda folder: recording_sample(folder, "z")),
    FileKind("RECORDING/contexts.npy", "NumPy", "meta.json", "CRC-32 of all", "collect --features", _WHOLE,
             "record again", contexts_sample),
    FileKind("RECORDING/conditioning/*.npy", "NumPy", "meta.json", "CRC-32 of all", "collect --conditioning, fit",
             _WHOLE, "record it", conditioning_sample),
    FileKind("FRAMES/shard-*/*.npy", "NumPy", "meta.json", "CRC-32 of all", "collect", "up to the last whole shard",
             "record again", frames_sample),
    FileKind("traces/*.parquet", "Parquet", "metadata", "CRC-32 of each page", "rollout, serve", _WHOLE,
             "play the episode again", trace_sample),
    FileKind("run.json, results.json, meta.json", "JSON", "entry", "none: compared with the run", "rollout, collect",
             _WHOLE),
    FileKind("ROBOT.toml, CONFIG.yaml, KEYS", "text", "-", "none: people write them", "people", "-"),
    FileKind("--record DATASET", "LeRobotDataset v3", "theirs", "-", "control", "up to the last whole episode"),
    FileKind("LeRobot checkpoints and data sets", "theirs", "theirs", "theirs", "lerobot", "-"),
)  # fmt: skip
"""In the order of docs/files.md."""
