"""Markov skills: the current frame and the sentence say all that is needed."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.tabletop import motion
from vlamem.sim.suites.tabletop.elements import BLOCK_HALF, COLOURS, SHAPES
from vlamem.sim.suites.tabletop.language import Goal
from vlamem.sim.suites.tabletop.task import HOME, Block, Task, allowed, held_out, scatter

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.scene import Scene

_LIFTED = 0.035
"""Height of a block's centre above which it has been picked up [m]."""
_PUSH_REACH = 0.18
"""Farthest x at which the arm can come down behind a block [m]."""
PAD_RGB = 0.75
"""Pads are drawn in their colour, mixed with this much of it."""


class Skill(Task):
    """A skill with one target block, distractors around it, and nothing to remember."""

    kind = "skill"
    shapes: tuple[str, ...] = SHAPES
    distractors = 3

    def __init__(self) -> None:
        super().__init__()
        self.aim = 0

    @property
    def chance(self) -> float:
        """A skill shows its target: choosing at random among the blocks is what it is compared with."""
        return 1.0 / (1 + self.distractors)

    def blocks_for(self, rng: np.random.Generator) -> list[Block]:
        """A target and distractors; one scene in five has a second block of the target's colour in another shape."""
        colours = [str(c) for c in rng.permutation(list(COLOURS))[: 1 + self.distractors]]
        shapes = [str(s) for s in rng.choice(SHAPES, len(colours))]
        shapes[0] = str(rng.choice(self.shapes))
        if len(colours) > 1 and rng.random() < 0.2:
            colours[1] = colours[0]
            shapes[1] = str(rng.choice([s for s in SHAPES if s != shapes[0]]))
        return [Block(c, s) for c, s in zip(colours, shapes, strict=True)]

    def lay_blocks(
        self,
        scene: "Scene",
        rng: np.random.Generator,
        novel: bool | None,
        apart: float,
        taken: list[Float[np.ndarray, "2"]] | None = None,
    ) -> None:
        """Chooses blocks and positions until the split allows the target's colour and place."""
        while True:
            self.blocks = self.blocks_for(rng)
            spots = scatter(rng, len(self.blocks), apart, taken)
            if allowed(novel, held_out(self.blocks[0].colour, spots[0])):
                break
        for i, (block, xy) in enumerate(zip(self.blocks, spots, strict=True)):
            scene.place_block(i, block.colour, block.shape, xy, float(rng.uniform(-0.25, 0.25)))

    @property
    def thing(self) -> str:
        """The target in words."""
        return f"{self.blocks[self.aim].colour} {self.blocks[self.aim].shape}"

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        return scene.block(self.aim)


class Touch(Skill):
    """Touch the named block before any other."""

    name = "touch"
    longest = 80

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        self.lay_blocks(scene, rng, novel, apart=0.085)

    def update(self, scene: "Scene") -> None:
        touched = self.touched_block(scene)
        if touched is not None:
            self.status = "success" if touched == self.aim else "failure"

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("touch", thing=self.thing)

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        return motion.touch(scene, scene.block(self.aim), 2 * BLOCK_HALF)


class Push(Skill):
    """Push the named block onto the square."""

    name = "push"
    longest = 140
    shapes = ("cube", "cylinder")
    distractors = 1

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        self.square: np.ndarray = np.zeros(2)
        while True:
            self.square = scatter(rng, 1, 0.0)[0] * 0.75
            self.lay_blocks(scene, rng, novel, apart=0.12, taken=[self.square])
            start, other = scene.block(0)[:2], scene.block(1)[:2]
            way = self.square - start
            far = float(np.linalg.norm(way))
            along = way / far
            ahead = float((other - start) @ along)
            aside = float(np.linalg.norm(other - start - ahead * along))
            clear = aside > 0.09 or ahead > far + 0.06 or ahead < -0.12
            if far < 0.22 and clear and (start - 0.056 * along)[0] < _PUSH_REACH:
                break
        position = np.array([*self.square, 0.0006])
        scene.move_body("zone", position)
        scene.tint("zone_square", (0.93, 0.93, 0.93))
        self.places = {"square": position}

    def update(self, scene: "Scene") -> None:
        away = np.abs(scene.block(0)[:2] - self.square).max()
        if away < 0.025:
            self.status = "success"

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("push", thing=self.thing)

    def destination(self, scene: "Scene") -> Float[np.ndarray, "3"]:
        return np.array([*self.square, 0.0])

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        return motion.push(scene, self.aim, self.square)


class _Place(Skill):
    """Pick the named block up and place it somewhere."""

    longest = 160
    distractors = 2
    drop = BLOCK_HALF
    near = 0.035

    def __init__(self) -> None:
        super().__init__()
        self.there = np.zeros(2)

    def update(self, scene: "Scene") -> None:
        at = scene.block(0)
        on = np.linalg.norm(at[:2] - self.there) < self.near and at[2] < self.drop + 0.02
        if on and "block0" not in scene.touched():
            self.status = "success"
        elif at[2] < -0.05:
            self.status = "failure"

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        """The block, and once it is lifted the place that it goes to."""
        block = scene.block(self.aim)
        return np.array([*self.there, 0.0]) if block[2] > _LIFTED else block

    def destination(self, scene: "Scene") -> Float[np.ndarray, "3"]:
        return np.array([*self.there, 0.0])

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        return motion.pick_and_place(scene, self.aim, self.there, self.drop)


class PlaceInBowl(_Place):
    """Put the named block in the bowl."""

    name = "place_bowl"
    drop = BLOCK_HALF + 0.016
    near = 0.045

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        self.there = scatter(rng, 1, 0.0)[0]
        self.lay_blocks(scene, rng, novel, apart=0.115, taken=[self.there])
        position = np.array([*self.there, 0.0])
        scene.move_body("bowl", position)
        self.places = {"bowl": position}

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("bowl", thing=self.thing)


class PlaceOnPad(_Place):
    """Put the named block on the pad of the named colour; another pad is there too."""

    name = "place_pad"
    distractors = 1

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        pads = scatter(rng, 2, 0.12)
        self.lay_blocks(scene, rng, novel, apart=0.105, taken=pads)
        lay_pads(self, scene, [str(c) for c in rng.permutation(list(COLOURS))[:2]], pads)
        self.there = pads[0]

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("pad", thing=self.thing, pad=self.pads[0])


class Press(Skill):
    """Press the button until it lights up."""

    name = "press"
    longest = 80
    distractors = 2

    @property
    def chance(self) -> float:
        return 0.0

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        while True:
            xy = scatter(rng, 1, 0.0)[0]
            if allowed(novel, held_out("red", xy)):
                break
        self.lay_blocks(scene, rng, None, apart=0.11, taken=[xy])
        lay_button(self, scene, xy)

    def update(self, scene: "Scene") -> None:
        follow_button(self, scene)
        if self.button_lit:
            self.status = "success"

    def goal(self, oracle: bool) -> Goal:
        return Goal("press")

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        return self.places["button"]

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        return motion.press(scene, self.places["button"], self.button_lit)


class Raise(Skill):
    """Bring the hand up, away from whatever it is near."""

    name = "raise"
    longest = 60
    distractors = 2

    @property
    def chance(self) -> float:
        return 0.0

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        self.lay_blocks(scene, rng, None, apart=0.11)
        self._held = 0
        low = np.array([*scatter(rng, 1, 0.0)[0], rng.uniform(0.06, 0.12)])
        scene.settle()
        for _ in range(40):
            scene.step(motion.funnel(scene.hand, low[:2], float(low[2]), motion.CLOSED))

    def update(self, scene: "Scene") -> None:
        self._held = self._held + 1 if scene.hand[2] > 0.16 else 0
        if self._held >= 5:
            self.status = "success"
        elif self.touched_block(scene) is not None:
            self.status = "failure"

    def goal(self, oracle: bool) -> Goal:
        return Goal("raise")

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        return None

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        return motion.wait(scene, HOME)


def lay_pads(task: Task, scene: "Scene", colours: list[str], spots: list[Float[np.ndarray, "2"]]) -> None:
    """Puts coloured pads on the table."""
    task.pads, task.pad_positions = colours, np.array(spots)
    for i, (colour, xy) in enumerate(zip(colours, spots, strict=True)):
        scene.move_body(f"pad{i}", np.array([*xy, 0.0008]))
        r, g, b = (PAD_RGB * v + (1 - PAD_RGB) * 0.8 for v in COLOURS[colour])
        scene.tint(f"pad{i}_disc", (r, g, b))


def lay_button(task: Task, scene: "Scene", xy: Float[np.ndarray, "2"]) -> None:
    """Puts the button on the table."""
    position = np.array([*xy, 0.0])
    scene.move_body("button", position)
    task.places = {**task.places, "button": position}
    task.button_lit = False


def follow_button(task: Task, scene: "Scene") -> bool:
    """Lights the button when it is pressed and darkens it when the hand has left it; True at the moment of a press."""
    was = task.button_lit
    if scene.button_depth > 0.006:
        task.button_lit = True
    elif scene.hand[2] > 0.085:
        task.button_lit = False
    scene.tint("button_top", (1.0, 0.85, 0.3) if task.button_lit else (0.55, 0.08, 0.08))
    return task.button_lit and not was
