"""Sentences: several paraphrases of every goal, the last of which is held out of training."""

from dataclasses import dataclass

from vlamem.sim.suites.tabletop.elements import COLOURS, SHAPES

TEMPLATES: dict[str, tuple[str, ...]] = {
    "touch": (
        "touch the {thing}",
        "tap the {thing}",
        "reach out and touch the {thing}",
        "move your finger to the {thing} and tap it",
        "reach the {thing} and touch it",
    ),
    "push": (
        "push the {thing} to the square",
        "slide the {thing} onto the square",
        "move the {thing} to the square by pushing it",
        "push the {thing} until it is on the square",
        "slide the {thing} to the square",
    ),
    "bowl": (
        "put the {thing} in the bowl",
        "pick up the {thing} and place it in the bowl",
        "place the {thing} into the bowl",
        "grasp the {thing} and drop it in the bowl",
        "pick up the {thing} and put it into the bowl",
    ),
    "pad": (
        "put the {thing} on the {pad} pad",
        "pick up the {thing} and place it on the {pad} pad",
        "place the {thing} onto the {pad} pad",
        "grasp the {thing} and set it on the {pad} pad",
        "pick up the {thing} and put it onto the {pad} pad",
    ),
    "press": (
        "press the button",
        "push the button down",
        "press down on the button",
        "move to the button and press it",
        "reach the button and push it down",
    ),
    "raise": (
        "raise your hand",
        "lift your hand and stay up",
        "move your hand up",
        "go up and stay there",
        "lift your hand up",
    ),
    "recall_colour": (
        "touch the block of the colour that the lamp showed",
        "tap the block with the colour of the lamp",
        "touch the block that has the colour the lamp had",
        "remember the colour of the lamp and touch that block",
        "tap the block of the colour that the lamp had",
    ),
    "latest_wins": (
        "touch the block of the last colour that the lamp showed",
        "tap the block with the latest colour of the lamp",
        "touch the block that has the last colour the lamp had",
        "remember the last colour of the lamp and touch that block",
        "tap the block of the latest colour that the lamp had",
    ),
    "sequence": (
        "touch the blocks in the order that the lamp showed",
        "tap the blocks in the order of the colours of the lamp",
        "touch the blocks in the order the lamp had",
        "remember the order of the colours and touch those blocks",
        "tap the blocks in the order that the lamp had",
    ),
    "shell_game": (
        "touch the cup with the ball",
        "tap the cup that hides the ball",
        "find the ball and touch its cup",
        "remember where the ball is and touch that cup",
        "tap the cup with the ball",
    ),
    "count_press": (
        "press the button as many times as the lamp blinked",
        "push the button once for every blink of the lamp",
        "count the blinks of the lamp and press the button that many times",
        "remember how many times the lamp blinked and press the button as many times",
        "push the button as many times as the lamp blinked",
    ),
    "put_back": (
        "move the block to the square and then put it back where it was",
        "put the block on the square and then return it to its pad",
        "bring the block to the square and later put it back on its pad",
        "remember the pad of the block and return it there from the square",
        "move the block to the square and then return it to its pad",
    ),
    "put_back_told": (
        "move the block to the square and then put it back on the {pad} pad",
        "put the block on the square and then return it to the {pad} pad",
        "bring the block to the square and later put it back on the {pad} pad",
        "the {pad} pad is the pad of the block, return it there from the square",
        "move the block to the square and then return it to the {pad} pad",
    ),
    "patrol": (
        "at every signal touch the block of the last colour that the lamp showed",
        "when the signal is on tap the block with the latest colour of the lamp",
        "at each signal touch the block that has the last colour the lamp had",
        "remember the last colour of the lamp and touch that block at every signal",
        "at every signal tap the block of the latest colour that the lamp had",
    ),
    "presses_left": (
        "press the button {count} more times",
        "push the button down {count} more times",
        "press down on the button {count} times more",
        "there are {count} presses of the button left",
        "push the button {count} times more",
    ),
}
HELD_OUT = -1
"""Index of the paraphrase that no policy is trained on."""


@dataclass(frozen=True)
class Goal:
    """What the policy is asked to do now: a key of TEMPLATES and the words that fill it."""

    key: str
    words: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(key: str, **words: str) -> "Goal":
        """A goal with its words by name."""
        return Goal(key, tuple(sorted(words.items())))

    def sentence(self, paraphrase: int) -> str:
        """One of the paraphrases; -1 is the one held out."""
        return TEMPLATES[self.key][paraphrase].format(**dict(self.words))

    @property
    def training_sentences(self) -> list[str]:
        """All paraphrases but the one held out."""
        return [self.sentence(i) for i in range(len(TEMPLATES[self.key]) - 1)]


PLACES = ("left", "middle", "right")
"""Where a cup stands, as the agentview camera sees it."""
COUNTS = ("one", "two", "three", "four", "five")
REFERENCE_COLOURS = (*COLOURS, *PLACES, "")
REFERENCE_SHAPES = (*SHAPES, "pad", "cup", "bowl", "button", "square")


def references() -> list[tuple[int, int, list[str]]]:
    """(colour id, shape id, noun phrases) of everything that a sentence can refer to; shape id -1 is any shape."""
    rows: list[tuple[int, int, list[str]]] = []
    for c, colour in enumerate(COLOURS):
        rows += [(c, s, [f"the {colour} {shape}"]) for s, shape in enumerate(SHAPES)]
        rows.append((c, -1, [f"the {colour} block"]))  # known by its colour alone
        rows.append((c, REFERENCE_SHAPES.index("pad"), [f"the {colour} pad"]))
    cup = REFERENCE_SHAPES.index("cup")
    rows += [(REFERENCE_COLOURS.index(p), cup, [f"the {p} cup"]) for p in PLACES]
    nothing = REFERENCE_COLOURS.index("")
    rows += [(nothing, REFERENCE_SHAPES.index(n), [f"the {n}"]) for n in ("bowl", "button", "square")]
    return rows


def all_goals() -> list[Goal]:
    """Every goal that a task of the suite can have, in a fixed order."""
    things = [f"{c} {s}" for c in COLOURS for s in SHAPES]
    goals = [Goal.of("touch", thing=t) for t in things]
    goals += [Goal.of("touch", thing=f"{c} block") for c in COLOURS]
    goals += [Goal.of("touch", thing=f"{p} cup") for p in PLACES]
    goals += [Goal.of("push", thing=t) for t in things]
    goals += [Goal.of("bowl", thing=t) for t in things]
    goals += [Goal.of("pad", thing=t, pad=c) for t in things for c in COLOURS]
    goals += [Goal.of("put_back_told", pad=c) for c in COLOURS]
    goals += [Goal.of("presses_left", count=n) for n in COUNTS]
    plain = [k for k in TEMPLATES if "{" not in TEMPLATES[k][0]]
    return goals + [Goal(k) for k in plain]
