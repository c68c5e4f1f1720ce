"""How long a server takes to read what many days have left: labels that were processed, and segments."""

import json
import time
from pathlib import Path

import numpy as np

from vlamem.core.checksums import sealed
from vlamem.core.seeding import stream
from vlamem.deploy.server.labels import LabelQueue
from vlamem.memory.success import Episode, Segment, SuccessMemory
from vlamem.sim.bench.deployment.crash import LAYOUT, ORIGIN

_A_DAY = 1000
"""Labels of an episode each, and segments of an episode."""


def start_seconds(folder: Path, labels: int, segments: int) -> tuple[float, float]:
    """Processor time of opening a file of so many processed labels, and a memory of so many segments [s].

    The file of labels is one that a server left which has seen so many: it is opened once before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, memory = folder / "labels.jsonl", folder / "memory.db"
    with path.open("w", encoding="utf-8") as file:
        for i in range(labels):
            of = {"session": "arm", "token": "ab", "episode": i + 1}
            body = of | {"label": f"label-{i}", "outcome": "success", "source": "operator", "made": float(i)}
            file.write(json.dumps(sealed({"label": body})) + "\n")
            file.write(json.dumps(sealed({"done": f"label-{i}"} | of | {"said": "done", "at": float(i)})) + "\n")
    LabelQueue(path, lambda label: "done").close()
    began = time.process_time()
    LabelQueue(path, lambda label: "done").close()
    first = time.process_time() - began
    _fill(memory, segments)
    began = time.process_time()
    SuccessMemory(memory, ORIGIN, LAYOUT).close()
    return first, time.process_time() - began


def _fill(path: Path, segments: int) -> None:
    draw = stream(0, "start")
    with SuccessMemory(path, ORIGIN, LAYOUT) as memory:
        for number in range(-(-segments // _A_DAY)):
            count = min(_A_DAY, segments - number * _A_DAY)
            keys = draw.standard_normal((count, LAYOUT.key_size)).astype(np.float32)
            keys /= np.linalg.norm(keys, axis=1, keepdims=True)
            places = draw.uniform(-0.2, 0.2, (count, LAYOUT.proprioception_size)).astype(np.float32)
            chunk = np.zeros((LAYOUT.horizon, LAYOUT.action_size), np.float32)
            cut = tuple(Segment(i, i / count, keys[i], places[i], chunk) for i in range(count))
            made = Episode(f"e{number}", "go", "success", "operator", 1.0, float(number), cut)
            memory.store.commit(memory.origin, made)  # without the search for what is alike
