"""The strict verdict of an episode, beside the benchmark's own.

The benchmark's metric, `success_once`, is whether its success held at any control step. For tasks that end by touching
the right object it holds wherever the hand rests within 5 cm of the right object, also while the cue still shows that
object alone, and touching wrong ones first costs nothing. The strict verdict asks for what the sentence asks for: to
wait, then to touch the right one.
"""

from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["cue", "gap", "choice"]


@dataclass
class TouchJudge:
    """Judges an episode whose task is to touch one object.

    The first object that is touched once all can be chosen from decides. An object touched before, which only the cue
    can show, is a failure. A touch is what the benchmark counts as one: the hand at rest, within its distance of the
    object; of several the nearest.

    Attributes:
        target: the right object.
        verdict: None until something is touched.
        reason: why it failed; empty otherwise.
    """

    target: int
    verdict: bool | None = None
    reason: str = field(default="", compare=False)

    def see(self, phase: Phase, touched: int | None) -> None:
        """Takes a control step: its phase and what is touched."""
        if self.verdict is not None or touched is None:
            return
        if phase != "choice":
            self.verdict, self.reason = False, "touched the cue"
        elif touched == self.target:
            self.verdict = True
        else:
            self.verdict, self.reason = False, "touched a wrong object first"


def nearest_touched(distances: dict[int, float], reach: float, still: bool) -> int | None:
    """The object that a hand at rest touches: the nearest within `reach` [m]; None where there is none."""
    if not still or not distances:
        return None
    key = min(distances, key=lambda k: (distances[k], k))
    return key if distances[key] <= reach else None
