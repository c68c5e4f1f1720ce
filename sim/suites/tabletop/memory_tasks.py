"""Tasks that the current frame cannot decide: something seen or done before must be remembered.

Each ends its delay with a visible go signal, so that waiting itself needs no memory; `go_signal=False` gives the
variant that tests timing. After the cue, no pixel, proprioceptive value or object pose tells the answer.
"""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.tabletop import motion
from vlamem.sim.suites.tabletop.elements import BLOCK_HALF, COLOURS, SHAPES
from vlamem.sim.suites.tabletop.language import Goal
from vlamem.sim.suites.tabletop.task import HOME, Block, Task, allowed, held_out, scatter

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.scene import Scene

_CUE_START = (3, 7)
_CUE_TICKS = 10
_GAP_TICKS = 6
_FIRST_QUERY_STEP, _ROUND_STEPS = 57, 113


class MemoryTask(Task):
    """Timeline of a memory task: cue, delay, go.

    Args:
        choices: how many answers there are.
        delay: control steps between the end of the cue and the go signal.
        go_signal: whether the end of the delay is shown.
        visible_cue: shows what has to be remembered until the end, so that the frame at hand decides: the oracle
            variant for a policy that reads no sentence.
    """

    kind = "memory"
    acting_steps: ClassVar[int] = 80
    most_cues: ClassVar[int] = 1

    def __init__(self, choices: int = 3, delay: int = 20, go_signal: bool = True, visible_cue: bool = False) -> None:
        super().__init__()
        if not 2 <= choices <= len(COLOURS):
            raise ValueError(f"{self.name}: choices {choices} is outside 2 to {len(COLOURS)}")
        if delay < 0:
            raise ValueError(f"{self.name}: delay {delay} is negative: it is a number of control steps")
        self.choices, self.delay, self.go_signal, self.visible_cue = choices, delay, go_signal, visible_cue
        self.may_act = False
        self.cue_end = 0
        self.longest = _CUE_START[1] + self.most_cues * (_CUE_TICKS + _GAP_TICKS) + delay + self.acting_steps

    def begin(self, cue_end: int) -> None:
        """Fixes the timeline once the cue's end is known [control steps]."""
        self.cue_end = cue_end
        self.may_act = False
        self.max_steps = cue_end + self.delay + self.acting_steps

    def follow_timeline(self) -> None:
        """Gives the go signal when the delay is over."""
        self.may_act = self.now >= self.cue_end + self.delay
        self.go = self.may_act and self.go_signal

    def lay_colours(self, scene: "Scene", rng: np.random.Generator, novel: bool | None, answer: int) -> None:
        """`choices` blocks of different colours; `answer` is the one whose place a split may hold out."""
        while True:
            colours = [str(c) for c in rng.permutation(list(COLOURS))[: self.choices]]
            spots = scatter(rng, self.choices, 0.09)
            if allowed(novel, held_out(colours[answer], spots[answer])):
                break
        self.blocks = [Block(c, str(rng.choice(SHAPES))) for c in colours]
        for i, (block, xy) in enumerate(zip(self.blocks, spots, strict=True)):
            scene.place_block(i, block.colour, block.shape, xy, float(rng.uniform(-0.25, 0.25)))

    def touch_block(self, scene: "Scene", index: int) -> Float[np.ndarray, "7"]:
        """Touches a block once acting is allowed, waits at home until then."""
        if not self.may_act:
            return motion.wait(scene, HOME)
        return motion.touch(scene, scene.block(index), 2 * BLOCK_HALF)


class RecallColour(MemoryTask):
    """The lamp shows a colour, goes dark; after the delay, touch the block of that colour."""

    name = "recall_colour"
    remember = "the colour of the lamp"

    @property
    def chance(self) -> float:
        return 1.0 / self.choices

    def layout(self, scene: "Scene", rng: np.random.Generator, novel: bool | None) -> None:
        self.cues = self.draw_cues(rng)
        self.answer = self.known = self.cues[-1]
        self.lay_colours(scene, rng, novel, self.answer)
        self._start = int(rng.integers(*_CUE_START))
        self.begin(self._start + len(self.cues) * (_CUE_TICKS + _GAP_TICKS) - _GAP_TICKS)

    def draw_cues(self, rng: np.random.Generator) -> list[int]:
        """Blocks whose colours the lamp shows, in order."""
        return [int(rng.integers(self.choices))]

    def show_cues(self) -> None:
        """Lights the lamp with the cue of this moment, if any."""
        index, within = divmod(self.now - self._start, _CUE_TICKS + _GAP_TICKS)
        on = 0 <= index < len(self.cues) and within < _CUE_TICKS and self.now >= self._start
        self.lamp = self.blocks[self.cues[index]].colour if on else None
        if self.visible_cue and self.cue_over:
            self.lamp = self.blocks[self.next].colour

    @property
    def next(self) -> int:
        """The block to touch now."""
        return self.answer

    def update(self, scene: "Scene") -> None:
        self.show_cues()
        self.follow_timeline()
        touched = self.touched_block(scene)
        if touched is not None:
            self.status = "success" if touched == self.answer and self.may_act else "failure"

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("touch", thing=f"{self.blocks[self.answer].colour} block") if oracle else Goal(self.name)

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        return scene.block(self.answer)

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        return self.touch_block(scene, self.known)

    def guess(self, rng: np.random.Generator) -> None:
        self.known = int(rng.integers(self.choices))


class LatestWins(RecallColour):
    """The lamp changes its colour two to four times; the last one counts."""

    name = "latest_wins"
    remember = "the last colour of the lamp, not the earlier ones"
    most_cues = 4

    def draw_cues(self, rng: np.random.Generator) -> list[int]:
        cues = [int(rng.integers(self.choices))]
        for _ in range(int(rng.integers(1, 4))):
            cues.append(int(rng.choice([i for i in range(self.choices) if i != cues[-1]])))
        return cues


class Sequence(RecallColour):
    """The lamp shows several colours; touch their blocks in that order. A touched block lights up for a moment.

    Args:
        length: how many touches.
    """

    name = "sequence"
    remember = "the order of the colours, and how many were touched already"
    acting_steps = 140

    def __init__(
        self,
        choices: int = 3,
        delay: int = 20,
        go_signal: bool = True,
        length: int = 2,
        visible_cue: bool = False,
    ) -> None:
        super().__init__(choices, delay, go_signal, visible_cue)
        if not 2 <= length <= choices:
            raise ValueError(f"sequence: length {length} is outside 2 to {choices}, the number of blocks")
        self.length = length
        self.longest += (length - 1) * (_CUE_TICKS + _GAP_TICKS)

    @property
    def chance(self) -> float:
        return float(1.0 / np.prod([self.choices - i for i in range(self.length)]))

    def draw_cues(self, rng: np.random.Generator) -> list[int]:
        self.done = 0
        self._touching: int | None = None
        self.order = [int(i) for i in rng.permutation(self.choices)[: self.length]]
        self.believed = list(self.order)
        return self.order

    def update(self, scene: "Scene") -> None:
        self.show_cues()
        self.follow_timeline()
        touched = self.touched_block(scene)
        if touched is not None and touched != self._touching:
            if not self.may_act or touched != self.order[self.done]:
                self.status = "failure"
                return
            self.flash(touched)
            self.done += 1
            if self.done == self.length:
                self.status = "success"
        self._touching = touched

    @property
    def next(self) -> int:
        """The block to touch now."""
        return self.order[min(self.done, self.length - 1)]

    def goal(self, oracle: bool) -> Goal:
        return Goal.of("touch", thing=f"{self.blocks[self.next].colour} block") if oracle else Goal(self.name)

    def target(self, scene: "Scene") -> Float[np.ndarray, "3"] | None:
        return scene.block(self.next)

    def act(self, scene: "Scene") -> Float[np.ndarray, "7"]:
        return self.touch_block(scene, self.believed[min(self.done, self.length - 1)])

    def guess(self, rng: np.random.Generator) -> None:
        self.believed = [int(i) for i in rng.permutation(self.choices)[: self.length]]


class Patrol(RecallColour):
    """One long stream of rare cues and queries that never resets: at each go signal touch the latest cue's block.

    The arm is homed before each further cue, as by the robot's own controller: a policy that turns the hand by a degree
    a round is else out of what it knows after an hour, with or without a memory.

    Args:
        steps: length of the stream [control steps], up to 100,000.
    """

    name = "patrol"
    remember = "the last colour of the lamp, again and again, in one stream without a reset"

    def __init__(
        self,
        choices: int = 3,
        delay: int = 20,
        go_signal: bool = True,
        steps: int = 360,
        visible_cue: bool = False,
    ) -> None:
        super().__init__(choices, delay, go_signal, visible_cue)
        if not 200 <= steps <= 100_000:
            raise ValueError(f"patrol: steps {steps} is outside 200 to 100000")
        self.longest = steps

    @property
    def chance(self) -> float:
        """Every query right; the first comes at about step 57, the next ones every 113 steps in the mean."""
        queries = 1 + max(0, self.longest - _FIRST_QUERY_STEP) // _ROUND_STEPS
        return float((1.0 / self.choices) ** queries)

    def draw_cues(self, rng: np.random.Generator) -> list[int]:
        self._rng = rng
        self.queries = self.correct = 0
        self._guess: np.random.Generator | None = None
        return [int(rng.integers(self.choices))]

    def begin(self, cue_end: int) -> None:
        super().begin(cue_end)
        self.max_steps = self.longest
        self._spots: list[Float[np.ndarray, 3]] = []

    def update(self, scene: "Scene") -> None:
        if not self._spots:
            self._spots = [scene.block(i) for i in range(self.choices)]
        if self.queries and self.now == self._start:
            scene.park()
        self.show_cues()
        self.follow_timeline()
        touched = self.touched_block(scene)
        late = self.now >= self.cue_end + self.delay + self.acting_steps
        if (touched is not None and self.may_act) or late:
            self.queries += 1
            self.correct += int(touched == self.answer)
            if touched is not None:
                self.flash(touched)
            self._next_round(scene)
        if self.now >= self.max_steps:
            self.status = "success" if self.queries and self.correct == self.queries else "failure"

    def _next_round(self, scene: "Scene") -> None:
        self._start = self.now + int(self._rng.integers(40, 70))
        self.cues = [int(self._rng.integers(self.choices)) for _ in range(int(self._rng.integers(1, 3)))]
        self.answer = self.known = self.cues[-1]
        if self._guess is not None:
            self.known = int(self._guess.integers(self.choices))
        cue_end = self._start + len(self.cues) * (_CUE_TICKS + _GAP_TICKS) - _GAP_TICKS
        self.cue_end = cue_end
        self.may_act = self.go = False
        for i, spot in enumerate(self._spots):
            if np.linalg.norm(scene.block(i)[:2] - spot[:2]) > 0.03:
                scene.place_block(i, self.blocks[i].colour, self.blocks[i].shape, spot[:2])

    def guess(self, rng: np.random.Generator) -> None:
        super().guess(rng)
        self._guess = rng
