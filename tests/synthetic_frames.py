"""A drawn tabletop for tests of TinyVLA: coloured shapes seen from above and from a moving camera, and a lamp.

The sentence names one shape, or asks for the colour that a lamp shows or showed; the expert moves straight to it.
"""

from pathlib import Path

import numpy as np

from vlamem.core.seeding import stream
from vlamem.policies.tiny.frames import FramesMeta, FramesWriter, Goal

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 70, 210),
    "yellow": (220, 200, 50),
    "purple": (150, 60, 180),
}
SHAPES = ("cube", "cylinder", "ball")
SIZE = 48
SCALE = SIZE / 84
WORDINGS = ("touch the {}", "go and touch the {}", "put your hand on the {}")
ASKING = ("touch the block of the colour that the lamp showed", "the lamp showed a colour touch that block")
CENTRE, HALF = np.array([0.0, 0.0]), 0.3


def meta() -> FramesMeta:
    pairs = [(c, s) for c in range(len(COLOURS)) for s in range(len(SHAPES))]
    names = list(COLOURS)
    goals = [
        Goal(
            "touch",
            tuple(t.format(f"{names[c]} {SHAPES[s]}") for t in WORDINGS),
            (f"please tap the {names[c]} {SHAPES[s]}",),
            oracle=True,
        )
        for c, s in pairs
    ]
    goals.append(Goal("recall", ASKING))
    values = tuple(f"{name}_{axis}" for name in names for axis in "xy")
    return FramesMeta(
        tasks=("touch", "recall"),
        goals=tuple(goals),
        categories=(("lamp", len(COLOURS) + 1),),
        values=values,
        colours=tuple(names),
        shapes=SHAPES,
        references=tuple((c, s, (f"the {names[c]} {SHAPES[s]}",)) for c, s in pairs),
        image_size=SIZE,
        command="synthetic",
    )


def _draw(image: np.ndarray, at: np.ndarray, radius: float, colour: tuple[int, int, int], shape: int) -> None:
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    dx, dy = x / SCALE - at[0], y / SCALE - at[1]
    if shape == 0:
        inside = np.maximum(abs(dx), abs(dy)) < radius * 0.9
    elif shape == 1:
        inside = (abs(dx) < radius * 0.6) & (abs(dy) < radius * 1.2)
    else:
        inside = dx**2 + dy**2 < radius**2
    image[inside] = colour


def frame(rng: np.random.Generator, objects: np.ndarray, hand: np.ndarray, lamp: int) -> dict[str, np.ndarray]:
    """Both images, [SIZE, SIZE, 3]."""
    rgb = list(COLOURS.values())
    top = np.full((SIZE, SIZE, 3), (150, 140, 130), np.uint8)
    wrist = top.copy()
    for colour, shape, *where in objects[objects[:, 0] >= 0]:
        xy = np.array(where[:2])
        _draw(top, 42 + (xy - CENTRE) / HALF * 38, 3.5, rgb[int(colour)], int(shape))
        _draw(wrist, 42 + (xy - hand) / HALF * 110, 10.0, rgb[int(colour)], int(shape))
    _draw(top, np.array([42.0, 4.0]), 4.0, rgb[lamp] if lamp < len(COLOURS) else (30, 30, 30), 0)
    _draw(top, 42 + (hand - CENTRE) / HALF * 38, 2.5, (90, 90, 90), 2)
    noise = rng.integers(-8, 9, (2, SIZE, SIZE, 1))
    return {
        "agentview": np.clip(top + noise[0], 0, 255).astype(np.uint8),
        "wrist": np.clip(wrist + noise[1], 0, 255).astype(np.uint8),
    }


def episode(seed: int, task: int, number: int, rows: int = 8) -> dict[str, np.ndarray]:
    """One layout, `rows` hand positions on the way to the target."""
    m, rng = meta(), stream(seed, "synthetic", task, number)
    count = int(rng.integers(3, 5))
    objects = np.full((8, 5), -1, np.float32)
    colours = rng.permutation(len(COLOURS))[:count]
    placed: list[np.ndarray] = []
    while len(placed) < count:
        at = CENTRE + rng.uniform(-0.22, 0.22, 2)
        if all(np.linalg.norm(at - other) > 0.1 for other in placed):
            placed.append(at)
    for i in range(count):
        objects[i] = (colours[i], rng.integers(3), *placed[i], 0.02)
    chosen = int(rng.integers(count))
    target = objects[chosen, 2:].astype(np.float64)
    lamp = len(COLOURS) if task == 0 or rng.random() < 0.5 else int(colours[chosen])
    start = np.array([*(CENTRE + rng.uniform(-0.2, 0.2, 2)), 0.25])
    arrays = {n: np.zeros((rows, *s), k) for n, (k, s) in m.columns().items()}
    values = np.full(len(m.values), np.nan)
    for i in range(count):
        values[2 * colours[i] : 2 * colours[i] + 2] = placed[i]
    for row in range(rows):
        hand = start + (target - start) * rng.random() + rng.normal(0, 0.01, 3)
        images = frame(rng, objects, hand[:2], lamp)
        arrays["proprioception"][row] = (*hand, 0, 1, 0, 0, 0.08)
        at = hand.copy()
        for step in range(m.horizon):
            move = np.clip(15 * (target - at), -1, 1)
            arrays["chunk"][row, step] = (*move, 0, 0, 0, -1)
            at = at + 0.02 * move
        for camera, image in images.items():
            arrays[camera][row] = image
    arrays["chunk_valid"][:] = True
    named = int(objects[chosen, 0]) * len(SHAPES) + int(objects[chosen, 1])
    arrays["goal"][:] = (named, -1) if task == 0 else (len(m.goals) - 1, named)
    arrays["categories"][:] = lamp
    arrays["values"][:] = values
    arrays["objects"][:] = objects
    arrays["target"][:] = target
    arrays["destination"][:] = np.nan
    arrays["episode"][:], arrays["task"][:], arrays["tick"][:] = number, task, np.arange(rows)
    return arrays


def write(directory: Path, episodes: int, seed: int = 0, shard_size: int = 512) -> None:
    """Records `episodes` episodes of both tasks."""
    with FramesWriter(directory, meta(), shard_size) as writer:
        for number in range(episodes):
            for task in (0, 1):
                writer.add_episode(episode(seed, task, number))
