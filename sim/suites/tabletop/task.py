"""What every tabletop task shares: layout, timeline, verdict, sentences, privileged labels and an expert."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.tabletop.elements import COLOURS, SHAPES
from vlamem.sim.suites.tabletop.language import PLACES, REFERENCE_COLOURS, REFERENCE_SHAPES, Goal

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.scene import Scene

Status = Literal["running", "success", "failure"]
WORKSPACE = np.array([[-0.12, 0.16], [-0.19, 0.19]])
"""Range of x and of y in which things are laid out [m]."""
HOME = np.array([-0.10, 0.0, 0.20])
"""Where the hand waits."""
CATEGORIES: tuple[tuple[str, int], ...] = (
    ("lamp_colour", 1 + len(COLOURS)),
    ("go_light", 2),
    ("pea_place", 1 + len(PLACES)),
    ("block_on_pad", 1 + len(COLOURS)),
    ("button_lit", 2),
    ("touched_colour", 1 + len(COLOURS)),
)
VALUES: tuple[str, ...] = tuple(
    f"{thing}_{axis}" for thing in (*COLOURS, "bowl", "button", "square", "pea") for axis in "xyz"
)


@dataclass(frozen=True)
class Block:
    """One block of the episode."""

    colour: str
    shape: str

    @property
    def colour_id(self) -> int:
        """Index into COLOURS."""
        return list(COLOURS).index(self.colour)


class Task(ABC):
    """One kind of episode. Calls come in this order: `reset`, then `tick` after every control step.

    Attributes:
        name: as in `--tasks`.
        kind: "skill" (the current frame suffices) or "memory".
        remember: what must be remembered, empty for a skill.
        longest: control steps that an episode can take at most.
        cue_end: control step at which the answer is known to who has seen everything; 0 for a skill.
        max_steps: control steps after which the episode at hand fails.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["skill", "memory"]]
    remember: ClassVar[str] = ""
    longest: int
    cue_end: int = 0

    @property
    def cue_over(self) -> bool:
        """Whether all that has to be remembered has been shown."""
        return self.now >= self.cue_end

    def __init__(self) -> None:
        self.max_steps = 0
        self.now = 0
        self.status: Status = "running"
        self.blocks: list[Block] = []
        self.lamp: str | None = None
        self.go = False
        self.lit: int | None = None
        self._dark_at = 0
        self.pads: list[str] = []
        self.pad_positions = np.zeros((0, 2))
        self.places: dict[str, Float[np.ndarray, 3]] = {}

    # What a task defines ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def chance(self) -> float:
        """Success rate of an expert that knows everything but what must be remembered."""

    @abstractmethod
    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        """Lays the episode out. `novel`: only (True) or never (False) combinations held out of training."""

    @abstractmethod
    def update(self, scene: "Scene") -> None:
        """Moves the timeline on by one control step and decides `status`."""

    @abstractmethod
    def goal(self, oracle: bool) -> Goal:
        """The instruction; with `oracle` the oracle instruction, which contains the answer."""

    @abstractmethod
    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        """The scripted expert's action, with privileged state."""

    def guess(self, rng: np.random.Generator) -> None:
        """Replaces what the expert knows of the answer by a random choice."""
        raise NotImplementedError(f"task {self.name} has nothing to guess: it is a skill")

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        """Where the thing is that the (oracle) sentence refers to now."""
        return None

    def destination(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        """Where the thing of the (oracle) instruction is to be brought in the end, known from the first frame on."""
        return None

    # What they share ----------------------------------------------------------------------------------------------

    def reset(self, scene: "Scene", rng: np.random.Generator, novel: bool | None = None) -> None:
        """Starts an episode; a function of `rng` and `novel` alone."""
        scene.reset(rng)
        Task.__init__(self)
        self.max_steps = self.longest
        self.layout(scene, rng, novel)
        scene.settle()
        self._show(scene)

    def tick(self, scene: "Scene") -> None:
        """To be called after every control step."""
        self.now += 1
        if self.status == "running":
            self.update(scene)
        if self.status == "running" and self.now >= self.max_steps:
            self.status = "failure"
        if self.lit is not None and self.now >= self._dark_at:
            self.lit = None
        self._show(scene)

    def flash(self, block: int) -> None:
        """Lights a block up for a moment, to show that its touch was felt."""
        self.lit = block
        self._dark_at = self.now + 5

    def _show(self, scene: "Scene") -> None:
        scene.set_light("lamp", COLOURS[self.lamp] if self.lamp else None)
        scene.set_light("go", (0.95, 0.97, 0.95) if self.go else None)
        for i, block in enumerate(self.blocks):
            scene.tint_block(i, (1.0, 1.0, 1.0) if self.lit == i else COLOURS[block.colour])

    def touched_block(self, scene: "Scene") -> int | None:
        """Index of the block that the hand touches, the lowest if several."""
        names = scene.touched()
        return next((i for i in range(len(self.blocks)) if f"block{i}" in names), None)

    def find(self, **what: str) -> int:
        """Index of the block of a colour (and shape)."""
        return next(i for i, b in enumerate(self.blocks) if all(getattr(b, k) == v for k, v in what.items()))

    def categories(self, scene: "Scene") -> list[int]:
        """Privileged labels in the order of CATEGORIES."""
        colour_ids = {c: 1 + i for i, c in enumerate(COLOURS)}
        on_pad = 0
        if self.pads and self.blocks:
            distance = np.linalg.norm(self.pad_positions - scene.block(0)[:2], axis=1)
            if distance.min() < 0.04 and scene.block(0)[2] < 0.03:
                on_pad = colour_ids[self.pads[int(distance.argmin())]]
        pea = self.places.get("pea")
        return [
            colour_ids[self.lamp] if self.lamp else 0,
            int(self.go),
            0 if pea is None else 1 + int(np.argmin([abs(pea[1] - y) for y in (-0.13, 0.0, 0.13)])),
            on_pad,
            int("button" in self.places and self.button_lit),
            colour_ids[self.blocks[self.lit].colour] if self.lit is not None else 0,
        ]

    button_lit: bool = False

    def values(self, scene: "Scene") -> list[float]:
        """Privileged positions in the order of VALUES; nan for what is not there or not unique."""
        colours = [b.colour for b in self.blocks]
        row: list[float] = []
        for colour in COLOURS:
            known = colours.count(colour) == 1
            row += scene.block(colours.index(colour)).tolist() if known else [np.nan] * 3
        for thing in ("bowl", "button", "square", "pea"):
            row += self.places[thing].tolist() if thing in self.places else [np.nan] * 3
        return row

    def objects(self, scene: "Scene") -> Float[np.ndarray, "8 5"]:
        """What can be referred to: colour id, shape id, x, y, z per slot; colour id -1 for an empty slot."""
        rows = [(b.colour_id, SHAPES.index(b.shape), *scene.block(i)) for i, b in enumerate(self.blocks)]
        pad = REFERENCE_SHAPES.index("pad")
        rows += [(list(COLOURS).index(c), pad, *xy, 0.0) for c, xy in zip(self.pads, self.pad_positions, strict=True)]
        for name, position in self.places.items():
            colour, _, shape = name.rpartition(" ")
            if shape in REFERENCE_SHAPES:
                rows.append((REFERENCE_COLOURS.index(colour), REFERENCE_SHAPES.index(shape), *position))
        table = np.full((8, 5), -1.0, np.float32)
        table[: len(rows)] = np.array(rows[:8], np.float32).reshape(-1, 5)
        return table


def scatter(
    rng: np.random.Generator, count: int, apart: float, taken: list[Float[np.ndarray, "2"]] | None = None
) -> list[Float[np.ndarray, "2"]]:
    """`count` positions in the workspace at least `apart` from each other and from `taken` [m]."""
    while True:
        points = list(taken or [])
        for _ in range(300):
            point = rng.uniform(WORKSPACE[:, 0], WORKSPACE[:, 1])
            if all(np.linalg.norm(point - other) >= apart for other in points):
                points.append(point)
                if len(points) == count + len(taken or []):
                    return points[len(taken or []) :]


def held_out(colour: str, xy: Float[np.ndarray, "2"]) -> bool:
    """Whether training never has a target of this colour in this part of the table: one of five bands a colour."""
    low, high = WORKSPACE[1]
    band = int(np.clip(5 * (xy[1] - low) / (high - low), 0, 4))
    return (list(COLOURS).index(colour) + 2 * band) % 5 == 0


def allowed(novel: bool | None, is_held_out: bool) -> bool:
    """Whether a layout may be used in a split."""
    return novel is None or novel == is_held_out
