"""One of several episodes that are played side by side: its environment, what its policy sees, and its record."""

import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.policies.memory_policy import Tick
from vlamem.sim.results.episodes import EpisodeRecord, side_by_side, with_gate, write_video
from vlamem.sim.rollout.ablations import StateAblation
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.protocol import SuiteEnv, images_of


class Row:
    """An episode under way.

    Attributes:
        index: row of the policy, and of the environments that are kept.
        env, task, episode: what is played.
        filmed: whether every control step is drawn and kept.
        full: the observation of this control step with its images, where something wants it.
        seen: what the policy sees of it, one row, where it is to be encoded.
        control: an ablation of the row's memory, or None.
        ended: by the task, or by an error.
        progress: fields of the record so far.
        milliseconds: decision times after warm-up.
    """

    def __init__(
        self,
        index: int,
        env: SuiteEnv,
        config: RolloutConfig,
        task: str,
        episode: int,
        cameras: Sequence[str],
        depth: int,
    ) -> None:
        """`cameras` are those that the policy reads, `depth` the observations that it reads at once."""
        self.index, self.env, self.task, self.episode = index, env, task, episode
        self.filmed = episode < config.video
        self.full: dict[str, Any] | None = None
        self.seen: Observation | None = None
        self.control: StateAblation | None = None
        self.ended = False
        self.progress: dict[str, Any] = {
            "arm": config.arm,
            "task": task,
            "split": config.split,
            "episode": episode,
            "seed": config.seed,
            "initial_state": f"{config.split}/{episode}",
        }
        self.milliseconds: list[float] = []
        self._config, self._cameras = config, cameras
        # networks that read several observations at once see every control step
        self._past: deque[dict[str, Any]] = deque(maxlen=depth)
        self._depth = depth
        self._camera = stream(config.seed, "camera", task, episode)
        self._frames: list[np.ndarray] = []
        self._success = False

    def reset(self) -> None:
        """Starts the episode in its environment."""
        config = self._config
        options = {"episode": self.episode, "split": config.split, "wording": config.wording}
        observation, _ = self.env.reset(options=options)
        self.progress |= {"instruction": str(observation["instruction"]), "steps": 0, "decisions": 0}
        self.progress |= {"writes": 0, "ticks": 0, "state_bytes": 0}

    def look(self, wanted: bool) -> None:
        """Takes the observation of this control step; as the policy sees it when it is `wanted` by it."""
        self.full = self.env.observe() if wanted or self.filmed or self._depth > 1 else None
        if self.full is not None:
            self._past.append(self.full)
        self.seen = self._observation(self.full) if wanted and self.full is not None else None

    def step(self, action: np.ndarray) -> bool:
        """One control step; whether it was the last."""
        _, _, terminated, truncated, info = self.env.step(action)
        self.progress["steps"] += 1
        self._success, self.ended = bool(info["success"]), terminated or truncated
        return self.ended

    def film(self, tick: Tick | None) -> None:
        """Keeps what the cameras show of this control step, with the gate's firing where a memory ticks."""
        if not self.filmed or self.full is None:
            return
        image = side_by_side(v for v in self.full.values() if getattr(v, "ndim", 0) == 3)
        if tick is not None:
            mine = tick.of(np.array([self.index]))
            image = with_gate(image, float(mine.gate[0]), bool(mine.wrote[0]), float(mine.confidence[0]))
        self._frames.append(image)

    def finish(self) -> None:
        """The verdict, and the video of a filmed episode. Raises DiskFullError when it cannot be written."""
        self.progress["outcome"] = "success" if self._success else "failure"
        if self.filmed:
            name = f"{self.task}-{self.episode:04d}.mp4"
            title = f"{self.task} {self.episode}: {self.progress['instruction']} ({self.progress['outcome']})"
            write_video(self._config.out / "videos" / name, self._frames, self.env.control_hz, title)

    def fail(self, error: Exception) -> None:
        """Ends the episode as an error."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
        self.progress |= {"outcome": "error", "error": f"{type(error).__name__}: {error} ({place})"}
        self.ended = True

    def record(self, seconds: float) -> EpisodeRecord:
        """The record of the ended episode, which took `seconds`."""
        wall = {"seconds": seconds, "decision_ms": [round(ms, 3) for ms in self.milliseconds]}
        return EpisodeRecord(**self.progress, wall_clock=wall)

    def _observation(self, full: dict[str, Any]) -> Observation:
        images = {name: image[None] for name, image in images_of(full, self._cameras).items()}
        body = full["proprioception"][None]
        if self._depth > 1:
            past = [self._past[0]] * (self._depth - len(self._past)) + list(self._past)
            images = {name: np.stack([seen[name] for seen in past])[None] for name in images}
            body = np.stack([seen["proprioception"] for seen in past])[None]
        if self._config.camera_noise:
            for name, image in images.items():
                noise = self._config.camera_noise * self._camera.standard_normal(image.shape, dtype=np.float32)
                images[name] = np.clip(image + noise, 0, 255).astype(np.uint8)
        return Observation(images, body, (full["instruction"],))


def seen_by(rows: Sequence[Row]) -> Observation:
    """What the policy sees of all `rows`, in their order."""
    return Observation.stack([row.seen for row in rows if row.seen is not None])
