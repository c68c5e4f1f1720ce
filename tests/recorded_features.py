"""Recordings for tests, made without a simulator: a cue is seen for a few ticks, later the answer is asked for."""

import json
from pathlib import Path

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.train.features import EpisodeTicks, FeaturesMeta, FeatureWriter
from vlamem.memory.weights import TrainedFor

POLICY = TrainedFor("points", "abc-0123", "none")
D, C, CHUNK, ANSWERS = 20, 4, (4, 7), 3


def meta(policy: TrainedFor = POLICY, command: str = "test") -> FeaturesMeta:
    goals = (("ask",) * 3, *((f"take {i}",) * 3 for i in range(ANSWERS)))
    return FeaturesMeta(policy, D, C, CHUNK, goals, "points", command)


def contexts() -> np.ndarray:
    """[G, P, C]; paraphrases lie close to each other."""
    draw = stream(0, "contexts")
    return (draw.standard_normal((1 + ANSWERS, 1, C)) + 0.05 * draw.standard_normal((1 + ANSWERS, 3, C))).astype("f4")


def episode(number: int, task: str) -> EpisodeTicks:
    """Ticks of one episode: in `remember` the cue is on at ticks 3 to 7, the answer is asked from tick 8 on."""
    draw, ticks = stream(0, "episode", task, number), 20
    z = 0.3 * draw.standard_normal((ticks, D)) + draw.standard_normal(D)
    answer = int(draw.integers(ANSWERS))
    goal = np.zeros((ticks, 2), int)
    asked = np.zeros(ticks, int)
    chunk = np.full((ticks, *CHUNK), answer / ANSWERS)
    if task == "remember":
        goal[:, 1] = 1 + answer
        asked[8:] = 1
        z[3:8, :5] = 0.0
        z[3:8, answer] = 6.0
    else:
        goal[:] = 1 + answer
    return EpisodeTicks(z, chunk, goal, asked)


def record(folder: Path, episodes: int = 40, tasks: tuple[str, ...] = ("remember", "skill")) -> Path:
    writer = FeatureWriter(folder, meta(), contexts())
    for number in range(episodes):
        for task in tasks:
            writer.add(task, number, "expert", episode(number, task), True)
    writer.close()
    return folder


def without_checksums(folder: Path) -> None:
    """Makes a recording one of version 0.1."""
    index = folder / "episodes.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    old = [{name: x for name, x in line.items() if name not in ("crc", "columns")} for line in lines]
    index.write_text("".join(json.dumps(line) + "\n" for line in old))
