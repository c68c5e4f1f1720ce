"""Hooks of the cameras: noise on what the policy sees, and a video of what happened."""

from dataclasses import replace
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.policies.memory_policy import Tick
from vlamem.sim.results.episodes import side_by_side, video_path, with_gate, write_video
from vlamem.sim.rollout.hooks import EpisodeHooks, HookContext
from vlamem.sim.rollout.row import Row


class CameraNoise(EpisodeHooks):
    """Adds Gaussian noise to the images that the policy sees; a function of (task, episode, seed)."""

    in_rehearsal = True

    def __init__(self, context: HookContext) -> None:
        self._deviation, self._seed = context.config.camera_noise, context.config.seed
        self._streams: dict[int, np.random.Generator] = {}

    def episode_began(self, row: Row) -> None:
        """A new stream for the row."""
        self._streams[row.index] = stream(self._seed, "camera", row.task, row.episode)

    def before_tick(self, row: Row) -> None:
        """Replaces what the policy is going to see."""
        if row.seen is None:
            return
        images = dict(row.seen.images)
        for name, image in images.items():
            noise = self._deviation * self._streams[row.index].standard_normal(image.shape, dtype=np.float32)
            images[name] = np.clip(image + noise, 0, 255).astype(np.uint8)
        row.seen = replace(row.seen, images=images)


class Video(EpisodeHooks):
    """Films the first episodes of each task, with the gate's firing where a memory ticks."""

    def __init__(self, context: HookContext) -> None:
        self._config = context.config
        self._frames: dict[int, list[np.ndarray]] = {}
        self._ticks: dict[int, Tick] = {}

    def episode_began(self, row: Row) -> None:
        """Asks for every control step to be drawn."""
        row.drawn = row.episode < self._config.video
        self._frames[row.index] = []
        self._ticks.pop(row.index, None)

    def after_tick(self, row: Row, tick: Tick) -> None:
        """Keeps what the gate did."""
        if row.drawn:
            self._ticks[row.index] = tick.of(np.array([row.index]))

    def stepped(self, row: Row, action: np.ndarray, info: dict[str, Any]) -> None:
        """Keeps what the cameras showed of this control step."""
        if not row.drawn or row.full is None:
            return
        image = side_by_side(v for v in row.full.values() if getattr(v, "ndim", 0) == 3)
        tick = self._ticks.get(row.index)
        if tick is not None:
            image = with_gate(image, float(tick.gate[0]), bool(tick.wrote[0]), float(tick.confidence[0]))
        self._frames[row.index].append(image)

    def episode_ended(self, row: Row) -> None:
        """Writes the video. Raises DiskFullError when it cannot be written."""
        if not row.drawn:
            return
        title = f"{row.task} {row.episode}: {row.progress['instruction']} ({row.progress['outcome']})"
        frames = self._frames.pop(row.index)
        write_video(video_path(self._config.out, row.task, row.episode), frames, row.env.control_hz, title)
