"""Origins, layouts and episodes for tests of the success memory: a hand that is drawn to a mark in the plane."""

import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.success import ActionPart, Episode, Layout, Origin, Segment

LAYOUT = Layout(
    key_size=6,
    horizon=4,
    parts=(
        ActionPart("translation", 3, "linear"),
        ActionPart("rotation", 3, "axis_angle", 0.5),
        ActionPart("gripper", 1, "vote"),
    ),
    proprioception_scale=(0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.05),
    quaternion=3,
)
ORIGIN = Origin("policy-a", "weights-a", "normaliser-a", "panda")


def state(seed: int, *names: str | int) -> tuple[np.ndarray, np.ndarray]:
    """Key [6] and proprioception [8] of a drawn state."""
    draw = stream(seed, "state", *names)
    key = draw.standard_normal(6)
    place = draw.uniform(-0.2, 0.2, 3)
    proprioception = np.array([*place, 1.0, 0.0, 0.0, 0.0, 0.04], np.float32)
    return (key / np.linalg.norm(key)).astype(np.float32), proprioception


def segment(seed: int, tick: int = 0) -> Segment:
    """A segment that is a function of `seed` and `tick`."""
    key, proprioception = state(seed, tick)
    chunk = stream(seed, "chunk", tick).uniform(-0.9, 0.9, (4, 7)).astype(np.float32)
    chunk[:, 6] = np.sign(chunk[:, 6])
    return Segment(tick, min(1.0, tick / 16), key, proprioception, chunk)


def episode(seed: int, segments: int = 3, outcome: str = "success", instruction: str = "touch the mark") -> Episode:
    """An episode of some segments, a function of `seed`."""
    cut = tuple(segment(seed, 4 * i) for i in range(segments))
    return Episode(f"{outcome}-{seed}", instruction, outcome, "predicate", 1.0, 1000.0 + seed, cut)  # type: ignore[arg-type]


def job(seed: int, count: int) -> list[Episode]:
    """Episodes in which what is done is a function of where the hand is, so that alike states call for alike chunks."""
    made = []
    for i in range(count):
        draw = stream(seed, "job", i)
        cut = []
        for t in range(4):
            place = draw.uniform(-0.1, 0.1, 3)
            key = np.array([1.0, *(4 * place), 0.0, 0.0]) + 0.01 * draw.standard_normal(6)
            chunk = np.zeros((4, 7), np.float32)
            chunk[:, :3] = -8 * place
            proprioception = np.array([*place, 1, 0, 0, 0, 0.04], np.float32)
            cut.append(Segment(t, t / 4, np.float32(key / np.linalg.norm(key)), proprioception, chunk))
        made.append(Episode(f"job-{seed}-{i}", "go home", "success", "predicate", 1.0, float(i), tuple(cut)))
    return made
