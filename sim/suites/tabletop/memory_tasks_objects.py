"""Memory tasks in which places and counts must be remembered: cups, pads and a button."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.tabletop import motion
from vlamem.sim.suites.tabletop.elements import BLOCK_HALF, COLOURS, CUP_HEIGHT, N_CUPS, N_PADS, SHAPES
from vlamem.sim.suites.tabletop.language import COUNTS, PLACES, Goal
from vlamem.sim.suites.tabletop.memory_tasks import MemoryTask
from vlamem.sim.suites.tabletop.skills import follow_button, lay_button, lay_pads
from vlamem.sim.suites.tabletop.task import HOME, Block, allowed, held_out, scatter

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.scene import Scene

_CUP_Y = (-0.13, 0.0, 0.13)
_LIFT_TICKS, _SWAP_TICKS, _SHOW_TICKS = 8, 14, 10
_BESIDE = 0.06
"""Distance towards the camera at which a ball lies that shows where the answer is [m]."""


class ShellGame(MemoryTask):
    """A ball is covered by one of three cups, the cups may swap; touch the cup that hides it.

    Args:
        swaps: how many times two neighbouring cups change places.
    """

    name = "shell_game"
    remember = "which cup hides the ball, through every swap"

    def __init__(
        self,
        choices: int = 3,
        delay: int = 20,
        go_signal: bool = True,
        swaps: int = 0,
        visible_cue: bool = False,
    ) -> None:
        super().__init__(choices, delay, go_signal, visible_cue)
        if choices != N_CUPS:
            raise ValueError(f"shell_game: choices {choices} is not {N_CUPS}, the number of cups")
        if not 0 <= swaps <= 10:
            raise ValueError(f"shell_game: swaps {swaps} is outside 0 to 10")
        self.swaps = swaps
        self.longest = 7 + _SHOW_TICKS + _LIFT_TICKS + swaps * _SWAP_TICKS + delay + self.acting_steps

    @property
    def chance(self) -> float:
        return 1.0 / N_CUPS

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        while True:
            self._x = rng.uniform(0.0, 0.12, N_CUPS)
            self._y = np.array(_CUP_Y) + rng.uniform(-0.015, 0.015, N_CUPS)
            start = int(rng.integers(N_CUPS))
            if allowed(novel, bool(self._x[start] > 0.06) == (start == 1)):
                break
        self._moves = [int(rng.integers(N_CUPS - 1)) for _ in range(self.swaps)]
        self.cup_at = list(range(N_CUPS))
        self._first = start
        self.answer = start
        for left in self._moves:
            if self.answer in (left, left + 1):
                self.answer = 2 * left + 1 - self.answer
        self.known = self.answer
        self._start = int(rng.integers(3, 7)) + _SHOW_TICKS
        self.begin(self._start + _LIFT_TICKS + self.swaps * _SWAP_TICKS)
        self._place_cups(scene)

    def _place_cups(self, scene: "Scene") -> None:
        """Cups hover beside the ball, come down over it and then swap along half circles."""
        since = self.now - self._start
        lift = 0.09 * float(np.clip(1.0 - since / _LIFT_TICKS, 0.0, 1.0))
        swap, within = divmod(max(0, since - _LIFT_TICKS), _SWAP_TICKS)
        swap, within = (swap, within) if swap < self.swaps else (self.swaps, 0)
        order = list(range(N_CUPS))
        for left in self._moves[:swap]:
            order[left], order[left + 1] = order[left + 1], order[left]
        spots = np.stack([self._x, self._y], axis=1)
        positions = {cup: spots[place].copy() for place, cup in enumerate(order)}
        if within:
            left = self._moves[swap]
            a, b = spots[left], spots[left + 1]
            angle = np.pi * within / _SWAP_TICKS
            middle, half = (a + b) / 2, (b - a) / 2
            across = np.array([-half[1], half[0]]) * 0.6
            positions[order[left]] = middle - half * np.cos(angle) + across * np.sin(angle)
            positions[order[left + 1]] = middle + half * np.cos(angle) - across * np.sin(angle)
        for cup, xy in positions.items():
            scene.move_body(f"cup{cup}", np.array([*xy, lift]))
        hidden = lift < 0.01
        if hidden and self.visible_cue and self.cue_over:
            x, y = spots[self.answer]
            scene.move_body("pea", np.array([x + _BESIDE, y, 0.022]))
        elif hidden:
            scene.hide_body("pea")
        else:
            scene.move_body("pea", np.array([*spots[self._first], 0.022]))
        self.places = {f"{place} cup": np.array([*spots[i], CUP_HEIGHT]) for i, place in enumerate(PLACES)}
        if not hidden:
            self.places["pea"] = np.array([*spots[self._first], 0.022])
        self._order = order

    def update(self, scene: "Scene") -> None:
        self._place_cups(scene)
        self.follow_timeline()
        touched = [place for place, cup in enumerate(self._order) if f"cup{cup}" in scene.touched()]
        if touched:
            self.status = "success" if touched == [self.answer] and self.may_act else "failure"

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("touch", thing=f"{PLACES[self.answer]} cup") if oracle else Goal(self.name)

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        return self.places[f"{PLACES[self.answer]} cup"]

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        if not self.may_act:
            return motion.wait(scene, HOME)
        return motion.touch(scene, self.places[f"{PLACES[self.known]} cup"], CUP_HEIGHT)

    def guess(self, rng: np.random.Generator) -> None:
        self.known = int(rng.integers(N_CUPS))


class CountPress(MemoryTask):
    """The lamp blinks; press the button as many times, then raise the hand. The lit button shows a press was felt."""

    name = "count_press"
    remember = "how many times the lamp blinked, and how many presses were made"

    def __init__(self, choices: int = 3, delay: int = 20, go_signal: bool = True, visible_cue: bool = False) -> None:
        super().__init__(choices, delay, go_signal, visible_cue)
        self.longest = 7 + 12 * choices + delay + 50 + 30 * choices

    @property
    def chance(self) -> float:
        return 1.0 / self.choices

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        self.answer = self.known = 1 + int(rng.integers(self.choices))
        while True:
            xy = scatter(rng, 1, 0.0)[0]
            if allowed(novel, held_out("red", xy)):
                break
        self.blocks = []
        lay_button(self, scene, xy)
        self._colour = str(rng.choice(list(COLOURS)))
        self._start = int(rng.integers(3, 7))
        self.presses = 0
        self._up = 0
        self.begin(self._start + 12 * self.choices)
        self.max_steps = self.cue_end + self.delay + 50 + 30 * self.choices

    def update(self, scene: "Scene") -> None:
        blink, within = divmod(self.now - self._start, 12)
        self.lamp = self._colour if 0 <= blink < self.answer and within < 6 and self.now >= self._start else None
        if self.visible_cue and self.cue_over and self.presses < self.answer:
            self.lamp = self._colour
        self.follow_timeline()
        if follow_button(self, scene):
            self.presses += 1
            if not self.may_act or self.presses > self.answer:
                self.status = "failure"
                return
        self._up = self._up + 1 if self.presses and scene.hand[2] > 0.17 else 0
        if self._up >= 5 or self.now >= self.max_steps:
            self.status = "success" if self.presses == self.answer else "failure"

    def goal(self, oracle: bool) -> Goal:
        if not oracle:
            return Goal(self.name)
        left = self.answer - self.presses
        if left <= 0:
            return Goal("raise")
        return Goal.of("presses_left", count=COUNTS[left - 1])

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        return self.places["button"] if self.presses < self.answer else None

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        if not self.may_act or self.presses >= self.known:
            return motion.wait(scene, HOME)
        return motion.press(scene, self.places["button"], self.button_lit)

    def guess(self, rng: np.random.Generator) -> None:
        self.known = 1 + int(rng.integers(self.choices))


_PARKED = 0.03
"""Distance from where it waits at which the hand is taken to be back [m]."""
_RETURN_TICKS = 60
"""Control steps after which the delay begins though the hand is not back."""


class PutBack(MemoryTask):
    """Take the block from one of four pads to the square in the middle; at the signal, return it to its pad.

    The cue ends when the hand is back where it waits: arm and block are then set to positions that have nothing to do
    with the way they came, which would else show by a millimetre.
    """

    name = "put_back"
    remember = "which pad the block came from"

    def __init__(self, choices: int = 4, delay: int = 20, go_signal: bool = True, visible_cue: bool = False) -> None:
        super().__init__(choices, delay, go_signal, visible_cue)
        if choices > N_PADS:
            raise ValueError(f"put_back: choices {choices} is more than the {N_PADS} pads")
        self.longest = 300 + delay

    @property
    def chance(self) -> float:
        return 1.0 / self.choices

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        corners = np.array([[-0.08, -0.13], [-0.08, 0.13], [0.12, -0.13], [0.12, 0.13]])[: self.choices]
        while True:
            spots = [c + rng.uniform(-0.02, 0.02, 2) for c in corners]
            colours = [str(c) for c in rng.permutation(list(COLOURS))]
            self.answer = int(rng.integers(self.choices))
            if allowed(novel, held_out(colours[self.answer], spots[self.answer])):
                break
        self.known = self.answer
        lay_pads(self, scene, colours[: self.choices], spots)
        self.blocks = [Block(colours[-1], str(rng.choice(SHAPES)))]
        scene.place_block(0, self.blocks[0].colour, self.blocks[0].shape, spots[self.answer])
        self.square = np.array([0.02, 0.0]) + rng.uniform(-0.015, 0.015, 2)
        position = np.array([*self.square, 0.0006])
        scene.move_body("zone", position)
        scene.tint("zone_square", (0.93, 0.93, 0.93))
        self.places = {"square": position}
        self._put_down: int | None = None
        self._moved: int | None = None
        self._rest = rng.uniform(-0.006, 0.006, 2)
        self.begin(0)
        self.max_steps = self.longest

    @property
    def cue_over(self) -> bool:
        return self._moved is not None

    def update(self, scene: "Scene") -> None:
        at = scene.block(0)
        free = "block0" not in scene.touched()
        if self.visible_cue and self.cue_over:
            scene.move_body("pea", np.array([*(self.pad_positions[self.answer] + [_BESIDE, 0.0]), 0.022]))
        if self._moved is None:
            on_square = np.linalg.norm(at[:2] - self.square) < 0.04 and at[2] < BLOCK_HALF + 0.015
            if self._put_down is None and on_square and free and scene.hand[2] > 0.12:
                self._put_down = self.now
            if self._put_down is not None:
                back = bool(np.linalg.norm(scene.hand - HOME) < _PARKED)
                if back or self.now >= self._put_down + _RETURN_TICKS:
                    self._moved = self.now
                    self._forget_the_way(scene, back)
            self.may_act = False
            return
        self.may_act = self.now >= self._moved + self.delay
        self.go = self.may_act and self.go_signal
        away = np.linalg.norm(self.pad_positions - at[:2], axis=1)
        if self.may_act and free and away.min() < 0.04 and at[2] < BLOCK_HALF + 0.015:
            self.status = "success" if int(away.argmin()) == self.answer else "failure"

    def _forget_the_way(self, scene: "Scene", back: bool) -> None:
        """Centres the block on the square, and parks the arm where it began if it is back there."""
        block = self.blocks[0]
        scene.place_block(0, block.colour, block.shape, self.square + self._rest)
        if back:
            scene.park()

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("put_back_told", pad=self.pads[self.answer]) if oracle else Goal(self.name)

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        there = self.pad_positions[self.answer] if self.may_act else self.square
        return np.array([*there, 0.0])

    def destination(self, scene: "Scene") -> Float[np.ndarray, "3"]:
        return np.array([*self.pad_positions[self.answer], 0.0])

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        if self.may_act:
            return motion.pick_and_place(scene, 0, self.pad_positions[self.known], BLOCK_HALF)
        if self._put_down is not None:
            return motion.wait(scene, HOME, motion.OPEN)
        return motion.pick_and_place(scene, 0, self.square, BLOCK_HALF)

    def guess(self, rng: np.random.Generator) -> None:
        self.known = int(rng.integers(self.choices))
