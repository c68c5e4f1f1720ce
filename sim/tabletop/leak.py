"""Whether anything that a policy sees after the cue tells what must be remembered: a linear probe, with a control."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from vlamem.sim.tabletop.env import TabletopEnv
from vlamem.sim.tabletop.memory_tasks import RecallColour
from vlamem.sim.tabletop.memory_tasks_objects import CountPress, PutBack, ShellGame
from vlamem.sim.tabletop.render import CAMERAS
from vlamem.sim.tabletop.task import Task

_POOL = 4
_FOLDS = 10


@dataclass(frozen=True)
class ProbeResult:
    """How well a probe tells the answer.

    Attributes:
        accuracy: on frames after the cue, cross-validated.
        cue_accuracy: the same probe on frames during the cue: the control that it can find an answer.
        chance: share of the commonest answer.
        n: episodes.
        p_value: of an accuracy this high by chance (one-sided binomial).
    """

    accuracy: float
    cue_accuracy: float
    chance: float
    n: int
    p_value: float


def answer_of(task: Task) -> int:
    """What must be remembered in this episode, as a class number that does not depend on the layout."""
    if isinstance(task, RecallColour):
        return task.blocks[task.answer].colour_id
    if isinstance(task, ShellGame | CountPress | PutBack):
        return int(task.answer)
    raise ValueError(f"task {task.name} has no answer to probe for: it is a skill")


def probe(env: TabletopEnv, episodes: int, first: int = 0) -> ProbeResult:
    """Plays `episodes` with the expert up to the go signal and probes images and proprioception for the answer.

    Frames are taken in the middle of the cue and when the go signal has just come, both cameras, averaged over
    squares of 4 x 4 pixels.
    """
    during, after, answers = [], [], []
    env.render_on_step = False
    for episode in range(first, first + episodes):
        env.reset(options={"episode": episode})
        task = env.task
        answers.append(answer_of(task))
        cue = None
        while task.status == "running" and not getattr(task, "may_act", True):
            env.step(env.expert_action())
            if task.now == _cue_tick(task):
                cue = _features(env)
        during.append(cue if cue is not None else _features(env))
        after.append(_features(env))
    y = np.array(answers)
    accuracy, hits = _cross_validated(np.stack(after), y)
    cue_accuracy, _ = _cross_validated(np.stack(during), y)
    chance = float(np.bincount(y).max() / len(y))
    p_value = float(stats.binomtest(hits, len(y), chance, alternative="greater").pvalue)
    return ProbeResult(accuracy, cue_accuracy, chance, len(y), p_value)


def _cue_tick(task: Task) -> int:
    return 1 if isinstance(task, PutBack) else 11


def _features(env: TabletopEnv) -> Float[np.ndarray, "d"]:
    seen = env.observe()
    size = env.image_size // _POOL
    pooled = [
        seen[c][: size * _POOL, : size * _POOL].reshape(size, _POOL, size, _POOL, 3).mean((1, 3)).ravel() / 255
        for c in CAMERAS
    ]
    return np.asarray(np.concatenate([*pooled, seen["proprioception"]]), np.float64)


def _cross_validated(x: Float[np.ndarray, "n d"], y: Int[np.ndarray, "n"]) -> tuple[float, int]:
    """Accuracy and number right of ridge regression on one-hot answers, over folds."""
    x = (x - x.mean(0)) / (x.std(0) + 1e-3)
    targets = np.eye(int(y.max()) + 1)[y]
    hits = 0
    for fold in range(_FOLDS):
        test = np.arange(len(y)) % _FOLDS == fold
        kernel = x[~test] @ x[~test].T
        weights = np.linalg.solve(kernel + 0.03 * np.trace(kernel) / len(kernel) * np.eye(len(kernel)), targets[~test])
        hits += int(((x[test] @ x[~test].T @ weights).argmax(1) == y[test]).sum())
    return hits / len(y), hits
