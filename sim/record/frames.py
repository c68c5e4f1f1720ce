"""Features from demonstrations that are recorded already: sparse frames, each held until the next.

Recording anew costs a simulation and two renderings a tick; encoding what 'vlamem collect' has stored costs a tenth, so
that a memory sees far more layouts. What frames cannot give is the policy's own states, and what happens between them.
What a task's frames show of its answer is declared by its suite (Recorder.frames).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from vlamem.core.observation import Observation
from vlamem.core.registry import load_attribute
from vlamem.memory.train.features import EpisodeTicks, FeaturesError, FeatureWriter
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, load_policy
from vlamem.policies.tiny.frames import Frames
from vlamem.sim.record.features import features_meta
from vlamem.sim.suites.protocol import FrameLabels, Suite
from vlamem.sim.suites.registry import DEFAULT_SUITE, load_suite

ACTOR = "frames"
_BATCH = 64


@dataclass(frozen=True)
class FrameCollection:
    """What to encode.

    Attributes:
        policy: as in `--policy`.
        frames: directories of frames.
        episodes: most episodes by task.
        out: directory to record into.
        command: written into the meta.
        suite: that the frames are of.
    """

    policy: str
    frames: tuple[Path, ...]
    episodes: Mapping[str, int]
    out: Path
    command: str = "vlamem collect --features"
    suite: str = DEFAULT_SUITE


def query_mask(
    suite: Suite, task: str, goal: Int[np.ndarray, "N 2"], categories: Mapping[str, Int[np.ndarray, "N"]]
) -> Bool[np.ndarray, "N"]:
    """At which frames of one episode an answer is needed that has been shown.

    Raises FeaturesError for a task that hides something in a suite that declares no labels of frames.
    """
    asked: Bool[np.ndarray, N] = goal[:, 0] != goal[:, 1]
    if not asked.any():  # the instruction contains the answer, and no label is needed
        return asked
    labels = _labels(suite)
    if labels is None:
        raise _refused(task, f"suite '{suite.name}' declares no labels of frames")
    asked &= labels.known(task, categories)
    return asked


def held_episode(
    z: np.ndarray,
    ticks: Int[np.ndarray, "N"],
    goal: Int[np.ndarray, "N 2"],
    chunks: np.ndarray,
    asked: Bool[np.ndarray, "N"],
) -> EpisodeTicks:
    """N sparse frames as an episode of every tick from the first frame to the last; chunks move on with the ticks."""
    at = np.searchsorted(ticks, np.arange(ticks[0], ticks[-1] + 1), side="right") - 1
    since = np.arange(ticks[0], ticks[-1] + 1) - ticks[at]
    steps = np.minimum(np.arange(chunks.shape[1]) + since[:, None], chunks.shape[1] - 1)
    return EpisodeTicks(z[at], chunks[at[:, None], steps], goal[at], asked[at])


def encode_frames(what: FrameCollection, progress: Callable[[int, int], None]) -> None:
    """Records features of the frames of `what.episodes`; goes on where a killed call stopped.

    Raises FeaturesError when a task's frames are missing or of another size than the policy's images, and for tasks
    whose frames show too little.
    """
    suite = load_suite(what.suite)
    labels = _labels(suite)
    refused = {} if labels is None else labels.refused
    for task in what.episodes.keys() & refused.keys():
        raise _refused(task, refused[task])
    source = find_policy(what.policy)
    policy, frames = load_policy(source), Frames(what.frames)
    for task in what.episodes:
        if task not in frames.meta.tasks:
            raise _refused(task, "none of its frames are recorded there")
    if frames.meta.image_size != policy.spec.image_size:
        raise FeaturesError(
            f"frames of {frames.meta.image_size} pixels do not fit policy '{policy.spec.name}', which reads "
            f"{policy.spec.image_size}: record frames of that size with 'vlamem collect --size'"
        )
    meta = features_meta(policy, source.sha256, what.command, what.suite)
    of_sentences = {tuple(g[:-1]): i for i, g in enumerate(meta.goals)}
    goal_index = np.array([of_sentences[tuple(g.paraphrases)] for g in frames.meta.goals])
    contexts = np.stack([policy.context_of(list(g)) for g in meta.goals])
    writer = FeatureWriter(what.out, meta, contexts)
    done = {(e.task, e.episode) for e in writer.episodes}
    columns = frames.columns
    starts = np.flatnonzero(np.diff(columns["episode"], prepend=-1) | np.diff(columns["task"], prepend=-1))
    bounds = list(zip(starts, [*starts[1:], len(frames)], strict=True))
    left, recorded = dict(what.episodes), 0
    names = [name for name, _ in frames.meta.categories]
    for first, last in bounds:
        task, episode = frames.meta.tasks[int(columns["task"][first])], int(columns["episode"][first])
        if left.get(task, 0) == 0 or last - first < 4:
            continue
        left[task] -= 1
        if (task, episode) not in done:
            rows = np.arange(first, last)
            goal = goal_index[columns["goal"][rows]]
            goal[columns["goal"][rows][:, 1] < 0, 1] = goal[columns["goal"][rows][:, 1] < 0, 0]
            z = _encoded(policy, frames, rows, [meta.goals[g][0] for g in goal[:, 0]])
            categories = {name: columns["categories"][rows, i] for i, name in enumerate(names)}
            asked = query_mask(suite, task, goal, categories)
            made = held_episode(z, columns["tick"][rows], goal, columns["chunk"][rows], asked)
            writer.add(task, episode, ACTOR, made, True)
        recorded += 1
        progress(recorded, 0)
    writer.close()


def _labels(suite: Suite) -> FrameLabels | None:
    path = suite.recorder.frames
    labels: FrameLabels | None = None if path is None else load_attribute(path)
    return labels


def _refused(task: str, why: str) -> FeaturesError:
    return FeaturesError(f"no features of task {task!r} from frames ({why}): play it with 'vlamem collect --features'")


def _encoded(policy: FrozenPolicy, frames: Frames, rows: Int[np.ndarray, "N"], sentences: Sequence[str]) -> np.ndarray:
    z: list[np.ndarray] = []
    for first in range(0, len(rows), _BATCH):
        part = rows[first : first + _BATCH]
        images = {name: frames.images(name, part) for name in policy.spec.cameras}
        instructions = tuple(sentences[first : first + _BATCH])
        z.append(policy.encode(Observation(images, frames.columns["proprioception"][part], instructions)).z)
    return np.concatenate(z)
