"""One of several episodes that are played side by side: its environment, what its policy sees, and its record."""

import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlamem.core.observation import Observation
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.suites.protocol import SuiteEnv, images_of


@dataclass(frozen=True)
class Start:
    """How an episode begins.

    Attributes:
        task, episode: which one it is, in its run.
        options: of the environment's reset: episode (the initial state), split and wording.
        noise: stream of the policy's noise; None where no policy plays.
    """

    task: str
    episode: int
    options: dict[str, Any]
    noise: np.random.Generator | None = None


class Row:
    """An episode under way.

    Attributes:
        index: row of the policy, and of the environments that are kept.
        env: where it is played.
        start: how it begins.
        drawn: whether every control step is drawn, though no policy asks for it.
        full: the observation of this control step with its images, where something wants it.
        seen: what the policy sees of it, one row, where it is to be encoded.
        ended: by the task, or by an error.
        success: as the environment says.
        progress: fields of the record so far.
        milliseconds: decision times after warm-up.
        seconds: that the environment took in this control step: "observe", where it was drawn, and "simulate".
        wall_clock: other fields of the record that differ from run to run.
    """

    def __init__(self, index: int, env: SuiteEnv, start: Start, cameras: Sequence[str], depth: int) -> None:
        """`cameras` are those that the policy reads, `depth` the observations that it reads at once."""
        self.index, self.env, self.start = index, env, start
        self.drawn = False
        self.full: dict[str, Any] | None = None
        self.seen: Observation | None = None
        self.ended = self.success = False
        self.progress: dict[str, Any] = {}
        self.milliseconds: list[float] = []
        self.seconds: dict[str, float] = {}
        self.wall_clock: dict[str, Any] = {}
        self._weights: list[float] = []
        self._cameras, self._depth = cameras, depth
        # networks that read several observations at once see every control step
        self._past: deque[dict[str, Any]] = deque(maxlen=depth)

    @property
    def task(self) -> str:
        """Of the suite."""
        return self.start.task

    @property
    def episode(self) -> int:
        """Its number in the run."""
        return self.start.episode

    @property
    def steps(self) -> int:
        """Control steps carried out."""
        steps: int = self.progress.get("steps", 0)
        return steps

    def reset(self) -> None:
        """Starts the episode in its environment."""
        observation, _ = self.env.reset(options=self.start.options)
        self.progress |= {"instruction": str(observation["instruction"]), "steps": 0, "decisions": 0}
        self.progress |= {"writes": 0, "ticks": 0, "state_bytes": 0}

    def look(self, wanted: bool) -> None:
        """Takes the observation of this control step; as the policy sees it when it is `wanted` by it."""
        self.full, self.seconds = None, {}
        if wanted or self.drawn or self._depth > 1:
            self.look_closely()
        self.seen = self.observed() if wanted else None

    def look_closely(self) -> None:
        """Draws this control step, which nothing else asked for."""
        began = time.perf_counter()
        self.full = self.env.observe()
        self.seconds["observe"] = time.perf_counter() - began
        self._past.append(self.full)

    def step(self, action: np.ndarray) -> dict[str, Any]:
        """One control step; what the environment reports of it."""
        began = time.perf_counter()
        _, _, terminated, truncated, info = self.env.step(action)
        self.seconds["simulate"] = time.perf_counter() - began
        self.progress["steps"] += 1
        self.success, self.ended = bool(info["success"]), terminated or truncated
        if self.ended:
            self.progress["outcome"] = "success" if self.success else "failure"
            self.progress["strict"] = info.get("strict")
        return info

    def decided(self, weight: float, milliseconds: float | None) -> None:
        """A chunk was planned, with a proposal of this weight (0: none), in this time where it counts."""
        self.progress["decisions"] += 1
        if weight > 0:
            self._weights.append(weight)
        if milliseconds is not None:
            self.milliseconds.append(milliseconds)

    def fail(self, error: Exception) -> None:
        """Ends the episode as an error."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
        self.progress |= {"outcome": "error", "error": f"{type(error).__name__}: {error} ({place})"}
        self.ended = True

    def record(self, seconds: float) -> EpisodeRecord:
        """The record of the ended episode, which took `seconds`."""
        wall = {"seconds": seconds, "decision_ms": [round(ms, 3) for ms in self.milliseconds]} | self.wall_clock
        weight = float(np.mean(self._weights)) if self._weights else 0.0
        proposed = {"proposals": len(self._weights), "proposed_weight": weight}
        return EpisodeRecord(**(self.progress | proposed), wall_clock=wall)

    def observed(self) -> Observation:
        """This control step as the policy would see it. Raises ValueError where nothing asked for images."""
        full = self.full
        if full is None:
            raise ValueError("nothing asked for this control step's images: set `drawn` when the episode begins")
        images = {name: image[None] for name, image in images_of(full, self._cameras).items()}
        body = full["proprioception"][None]
        if self._depth > 1:
            past = [self._past[0]] * (self._depth - len(self._past)) + list(self._past)
            images = {name: np.stack([seen[name] for seen in past])[None] for name in images}
            body = np.stack([seen["proprioception"] for seen in past])[None]
        return Observation(images, body, (full["instruction"],))


def seen_by(rows: Sequence[Row]) -> Observation:
    """What the policy sees of all `rows`, in their order."""
    return Observation.stack([row.seen for row in rows if row.seen is not None])
