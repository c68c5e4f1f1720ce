"""Hook that writes the trace of each episode, and the last camera image of each that failed."""

import io
from importlib import import_module
from typing import Any

import numpy as np

from vlamem.core.files import write_atomically
from vlamem.core.tick_trace import image_path, trace_path, write_trace
from vlamem.policies.memory_policy import Decision, Tick
from vlamem.policies.tick_recorder import TickRecorder
from vlamem.sim.results.episodes import disk_full, side_by_side
from vlamem.sim.rollout.hooks import EpisodeHooks, HookContext
from vlamem.sim.rollout.row import Row
from vlamem.sim.suites.protocol import Cue

_QUALITY = 80
"""Of JPEG images, which are looked at only."""


class TraceTicks(EpisodeHooks):
    """Writes traces/TASK-EPISODE.parquet when an episode ends, before its line of episodes.jsonl.

    An episode that is played again replaces its trace. An episode that ends as an error has none.
    """

    def __init__(self, context: HookContext) -> None:
        """Raises ModuleNotFoundError where traces cannot be written, before anything is played."""
        import_module("pyarrow.parquet")
        self._out, self._policy = context.config.out, context.policy
        self._recorders: dict[int, TickRecorder] = {}
        self._cues: dict[int, Cue | None] = {}

    def episode_began(self, row: Row) -> None:
        """Begins the row's trace."""
        self._recorders[row.index] = TickRecorder(self._policy, {})

    def before_tick(self, row: Row) -> None:
        """Notes what the task hides."""
        self._cues[row.index] = row.env.cue()

    def after_tick(self, row: Row, tick: Tick) -> None:
        """Notes the memories' step."""
        self._recorders[row.index].ticked(tick, tick.rows.tolist().index(row.index))

    def planned(self, row: Row, at: int, decision: Decision) -> None:
        """Notes the plan."""
        self._recorders[row.index].planned(decision, at)

    def stepped(self, row: Row, action: np.ndarray, info: dict[str, Any]) -> None:
        """Notes the action, and what the environment took."""
        more: dict[str, Any] = {f"{part}_ms": 1e3 * took for part, took in row.seconds.items()}
        cue = self._cues[row.index]
        if cue is not None and cue.answer is not None:
            more |= {"cue_known": cue.known, "cue_over": cue.over, "phase": cue.phase}
        self._recorders[row.index].acted(action, more)

    def episode_ended(self, row: Row) -> None:
        """Writes the trace. Raises DiskFullError when it cannot be written."""
        trace = self._recorders.pop(row.index).trace
        names = ("arm", "task", "split", "episode", "seed", "initial_state", "instruction", "outcome", "verdict")
        trace.about |= {name: row.progress[name] for name in names if name in row.progress} | {
            "control_hz": row.env.control_hz
        }
        path = trace_path(self._out, row.task, row.episode)
        try:
            write_trace(path, trace)
            if not row.success and self._policy is not None and self._policy.spec.cameras:
                row.look_closely()
                assert row.full is not None
                images = [row.full[camera] for camera in self._policy.spec.cameras]
                write_atomically(image_path(self._out, row.task, row.episode), _jpeg(side_by_side(images, 84)))
        except OSError as error:
            raise disk_full(error, path) from error


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
