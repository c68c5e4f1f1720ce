"""Run folders for tests of the report, written without a simulator: records, traces, videos and last images."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlamem.core.files import write_atomically
from vlamem.core.running_trace import RunningTrace
from vlamem.core.seeding import stream
from vlamem.core.tick_trace import SERVED, TickTrace, columns_of, image_path, strip_path, trace_path, write_trace
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord, side_by_side, video_path, write_video
from vlamem.sim.results.pages import write_results

TASKS = ("recall_colour", "shell_game")
MEMORIES = {"aura": (True, False), "success": (False, True)}
HZ = 20.0
HORIZON = 8
ACTIONS = [
    {"name": "translation", "size": 3, "form": "xyz", "mode": "delta", "unit": "0.05 m"},
    {"name": "rotation", "size": 3, "form": "axis_angle", "mode": "delta", "unit": "0.5 rad"},
    {"name": "gripper", "size": 1, "form": "gripper", "mode": "absolute", "unit": "-1 open, +1 closed"},
]


def write_run(folder: Path, arm: str, episodes: int, rate: float, videos: int = 1, traces: bool = True) -> Path:
    """A finished run of two tasks whose episodes succeed at about `rate`; "none" is the arm without a memory."""
    log = EpisodeLog(folder / "episodes.jsonl")
    records = []
    for task in TASKS:
        for episode in range(episodes):
            rng = stream(0, arm, task, episode)
            success = bool(rng.random() < rate)
            trace = trace_of(arm, task, success, rng)
            records.append(record_of(arm, task, episode, success, trace))
            if traces:
                write_trace(trace_path(folder, task, episode), trace)
                if not success:
                    write_atomically(image_path(folder, task, episode), last_image(rng))
            if episode < videos:
                frames = [frame(i, len(trace.rows)) for i in range(len(trace.rows))]
                write_video(video_path(folder, task, episode), frames, HZ, task)
    log.append(*records)
    configuration = {"suite": "tabletop", "tasks": list(TASKS), "episodes": episodes, "memory": [arm]}
    marks = {"command": f"vlamem rollout --memory {arm}", "python": "3.12.1", "packages": {"vlamem": "0.2.0"}}
    body = {"configuration": configuration, "fingerprint": marks}
    (folder / "run.json").write_text(json.dumps({"version": 1} | body), encoding="utf-8")
    write_results(folder, body | {"arms": {}, "wall_clock": {}})
    return folder


def record_of(arm: str, task: str, episode: int, success: bool, trace: TickTrace) -> EpisodeRecord:
    """The record of an episode with this trace."""
    weights = [w for w in trace.column("weight") if w]
    wrote = [w for w in trace.column("aura.wrote") if w is not None]
    return EpisodeRecord(
        arm, task, "test", episode, 0, "success" if success else "failure", f"test/{episode}",
        instruction="touch the block of the colour that the lamp had <now>", steps=len(trace.rows),
        decisions=sum(trace.column("planned")), writes=sum(wrote), ticks=len(wrote),
        state_bytes=4224 if wrote else 0, proposals=len(weights), proposed_weight=float(np.mean(weights or [0])),
        wall_clock={"seconds": 2.5, "decision_ms": [10 + 3 * float(stream(1, task, episode).random())] * 6},
    )  # fmt: skip


def trace_of(arm: str, task: str, success: bool, rng: np.random.Generator) -> TickTrace:
    """A cue that is written in its first steps, proposals after it, and smooth commands."""
    memories = {} if arm == "none" else MEMORIES
    steps = int(rng.integers(40, 90))
    rows: list[dict[str, Any]] = []
    for i in range(steps):
        planned = i % HORIZON == 0
        row: dict[str, Any] = {
            "step": i, "planned": planned, "cue_known": i > 4, "cue_over": i > 12, "phase": int(i > 30),
            "command": np.sin(0.1 * i + np.arange(7)).tolist(), "clipped": max(0.0, float(np.sin(i))) if i > 50 else 0,
            "observe_ms": 14.0, "simulate_ms": 3.5,
        }  # fmt: skip
        if planned:
            row |= {"weight": 0.0, "sample_ms": 2.0 + float(rng.random())}
        if memories:
            seen = 3 < i < 9
            gate = 0.9 if seen else float(0.3 * rng.random())
            row |= {"aura.gate": gate, "aura.wrote": seen, "aura.surprise": 3.0 * gate, "aura.refused": False}
            row |= {"aura.confidence": 0.95 if i > 8 else 0.1, "encode_ms": 0.8, "memory_ms": 0.2}
            if planned:
                sure = i > 8
                row |= {
                    "weight": float(sure),
                    "aura.chunk_weight": 0.0,
                    "aura.context_weight": float(sure),
                    "aura.offset": 0.0,
                }
                row |= {"aura.abstained": "" if sure else "unsure", "propose_ms": 0.1}
                row |= {"success.chunk_weight": 0.4 * (not sure), "success.context_weight": 0.0, "success.offset": 0.0}
                row |= {"success.abstained": "disagree" if sure else "", "success.similarity": 0.93}
                row |= {"success.spread": 0.1, "success.failure": 0.0, "success.retrieved": [] if sure else [3, 17]}
        rows.append(row)
    return TickTrace(columns_of(memories), rows, {"task": task, "control_hz": HZ})


def frame(step: int, steps: int) -> np.ndarray:
    """Two cameras that see a square move."""
    cameras = []
    for colour in ((200, 60, 40), (40, 90, 200)):
        image = np.full((84, 84, 3), 90, np.uint8)
        left = int(step / steps * 64)
        image[30:50, left : left + 20] = colour
        cameras.append(image)
    return side_by_side(cameras)


def last_image(rng: np.random.Generator) -> bytes:
    """What TraceTicks leaves of a failed episode."""
    return _jpeg(frame(int(rng.integers(0, 9)), 10))


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue()


def write_served(folder: Path, episodes: int = 4) -> Path:
    """The state of a server: two sessions, of which one's last episode still runs, with labels and film strips."""
    about = {"arm": "aura+success", "control_hz": HZ, "instruction": "touch the block", "state_bytes": 4224}
    settings = {"aura": {"abstain_below": 0.5}, "success": {"threshold": 0.94, "agreement": 0.5, "reach": 0.5}}
    about |= {"memories": settings, "state": "pose", "actions": ACTIONS}
    columns = columns_of(MEMORIES) | SERVED
    labels = []
    for session in ("left-arm", "right-arm"):
        for episode in range(1, episodes + 1):
            rng = stream(0, session, episode)
            success = bool(rng.random() < 0.6)
            trace = trace_of("aura", session, success, rng)
            path, about["task"], about["episode"] = trace_path(folder, session, episode), session, episode
            for i, row in enumerate(trace.rows):
                row["mode"] = "wait" if i < 3 else "hold" if 30 < i < 36 else "run"
                row |= {"pass_ms": 9.0, "pass_rows": 1, "wait_ms": 0.1, "late_ms": 0.2}
                row |= {"proprioception": [0.01 * i, 0.0, 1.0, 1, 0, 0, 0, 0.04]}
                if i % 17 == 5:
                    row |= {"limits": "speed step", "clipped": 0.2}
            trace.rows[-1].pop("command")
            if session == "right-arm" and episode == episodes:
                running = RunningTrace(path, columns, about)
                for row in trace.rows:
                    running.append(row)
                running.close()
                continue
            write_trace(path, TickTrace(columns, trace.rows, dict(about)))
            strip = np.concatenate([frame(i, 12)[::4, ::8] for i in range(12)], axis=1)
            write_atomically(strip_path(folder, session, episode), _jpeg(strip))
            write_atomically(image_path(folder, session, episode), last_image(rng))
            outcome = "success" if success else "failure"
            labels.append({"session": session, "episode": episode, "outcome": outcome, "source": "operator"})
    lines = [json.dumps(label | {"quarantined": i == 0}) for i, label in enumerate(labels)]
    (folder / "traces" / "labels.jsonl").write_text("\n".join(lines) + "\n")
    return folder
