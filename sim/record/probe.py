"""Records what `vlamem probe` looks at: the expert's episodes of one memory task, and what can be seen of its cue."""

import numpy as np

from vlamem.core.observation import Observation
from vlamem.core.registry import load_attribute
from vlamem.core.spec import PolicySpec
from vlamem.policies.probe import ProbeError, Recording
from vlamem.sim.rollout.hooks import EpisodeHooks
from vlamem.sim.rollout.loop import EpisodeLoop
from vlamem.sim.rollout.row import Row, Start
from vlamem.sim.suites.registry import DEFAULT_SUITE, load_suite

_BATCH = 32


class CueRecorder(EpisodeHooks):
    """Keeps every `stride`-th control step with what can be seen of a cue."""

    def __init__(self, labels: str, cue: str, stride: int) -> None:
        self._labels, self._cue, self._stride = load_attribute(labels), cue, stride
        self.rows: list[Observation] = []
        self.labels: list[int] = []
        self.when: list[float] = []
        self.episodes: list[int] = []

    def before_tick(self, row: Row) -> None:
        """Draws the steps that are kept."""
        if row.steps % self._stride:
            return
        if row.full is None:
            row.look_closely()
        known = self._labels(row.env)
        if self._cue not in known:
            raise ProbeError(f"unknown cue '{self._cue}': choose one of {', '.join(known)}")
        self.rows.append(row.observed())
        self.labels.append(known[self._cue] - 1)
        self.when.append(float(row.steps))
        self.episodes.append(row.episode)

    def episode_ended(self, row: Row) -> None:
        """Turns its steps into shares of its length."""
        mine = self.episodes.count(row.episode)
        self.when[-mine:] = [step / row.steps for step in self.when[-mine:]]


def record(
    spec: PolicySpec, task: str, cue: str, episodes: int, stride: int, history: int = 1, suite: str = DEFAULT_SUITE
) -> Recording:
    """Every `stride`-th control step of the expert on `episodes` initial states of a task of a suite.

    Observations are [B, history, ...] for a policy that reads several, the first repeated where an episode begins.
    `cue` is one of the suite's privileged labels, such as lamp_colour; class 0 means that it cannot be seen now. Raises
    ProbeError for a suite without labels, an unknown cue or one that is never seen, SuiteError for an unknown task or a
    camera that is missing.
    """
    if episodes < 1 or stride < 1:
        raise ProbeError(f"{episodes} episodes at every {stride}th step: both must be 1 or more")
    found = load_suite(suite)
    if found.recorder.labels is None:
        raise ProbeError(f"suite '{found.name}' has no privileged labels: there is no cue to look for")
    recorder = CueRecorder(found.recorder.labels, cue, stride)
    env = found.make(task, image_size=spec.image_size)
    env.render_on_step = False
    loop = EpisodeLoop(None, [recorder])
    try:
        for episode in range(episodes):
            options = {"episode": episode, "split": "train", "wording": "training"}
            loop.play([Row(0, env, Start(task, episode, options), spec.cameras, history)])
    finally:
        env.close()
    if max(recorder.labels) < 0:
        raise ProbeError(f"cue '{cue}' is never seen in task '{task}': choose a cue of this task")
    rows = recorder.rows
    batches = [Observation.stack(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)]
    return Recording(batches, np.array(recorder.labels), np.array(recorder.when), np.array(recorder.episodes))
