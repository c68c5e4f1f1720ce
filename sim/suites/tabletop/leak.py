"""Whether anything that a policy sees after the cue tells what must be remembered: linear probes, with a control."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.policies.protocol import FrozenPolicy
from vlamem.sim.suites.tabletop.env import TabletopEnv
from vlamem.sim.suites.tabletop.memory_tasks import RecallColour
from vlamem.sim.suites.tabletop.memory_tasks_objects import CountPress, PutBack, ShellGame
from vlamem.sim.suites.tabletop.render import CAMERAS
from vlamem.sim.suites.tabletop.task import Task

_POOL = 4
_FOLDS = 10
_SHUFFLES = 999
Look = Callable[[Mapping[str, Any]], Float[np.ndarray, "features"]]
"""Makes the features that a probe reads out of an observation of the environment."""


@dataclass(frozen=True)
class ProbeResult:
    """How well a probe tells the answer.

    Attributes:
        accuracy: on frames after the cue, cross-validated.
        cue_accuracy: the same probe on frames that show the answer: the control that it can find one. None where no
            single frame does.
        chance: mean accuracy of the same probe on answers drawn anew: of what each scene allows where that is given by
            the scene (a colour is that of one of its blocks), shuffled among the episodes elsewhere.
        n: episodes.
        p_value: share of these draws that do as well, one-sided.
    """

    accuracy: float
    cue_accuracy: float | None
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


def allowed_answers(task: Task) -> list[int] | None:
    """The answers that this episode's scene allows, all equally likely; None when the scene tells nothing of them."""
    return [block.colour_id for block in task.blocks] if isinstance(task, RecallColour) else None


def pixels(seen: Mapping[str, Any]) -> Float[np.ndarray, "features"]:
    """Both images averaged over squares of 4 x 4 pixels, and the proprioception."""
    parts = []
    for camera in CAMERAS:
        size = len(seen[camera]) // _POOL
        cut = seen[camera][: size * _POOL, : size * _POOL]
        parts.append(cut.reshape(size, _POOL, size, _POOL, 3).mean((1, 3)).ravel() / 255)
    return np.asarray(np.concatenate([*parts, seen["proprioception"]]), np.float64)


def feature_of(policy: FrozenPolicy) -> Look:
    """The memory feature z that the frozen policy makes of the same images and proprioception."""

    def look(seen: Mapping[str, Any]) -> Float[np.ndarray, "features"]:
        images = {name: seen[name][None] for name in policy.spec.cameras}
        z = policy.encode(Observation(images, seen["proprioception"][None], (seen["instruction"],))).z[0]
        return np.asarray(z, np.float64)

    return look


def probe(
    env: TabletopEnv, episodes: int, first: int = 0, looks: Mapping[str, Look] | None = None
) -> dict[str, ProbeResult]:
    """Plays `episodes` with the expert up to the go signal and probes for the answer, once for each of `looks`.

    Frames are taken when the answer can be seen and when the go signal has just come. `looks` is {"pixels": pixels}
    unless given.
    """
    looks = looks or {"pixels": pixels}
    during: dict[str, list[np.ndarray]] = {name: [] for name in looks}
    after: dict[str, list[np.ndarray]] = {name: [] for name in looks}
    answers: list[int] = []
    others: list[list[int] | None] = []
    env.render_on_step = False
    for episode in range(first, first + episodes):
        env.reset(options={"episode": episode})
        task = env.task
        answers.append(answer_of(task))
        others.append(allowed_answers(task))
        shown = None
        while task.status == "running" and not getattr(task, "may_act", True):
            env.step(env.expert_action())
            if shown is None and _shows(task):
                shown = env.observe()
        last = env.observe()
        for name, look in looks.items():
            after[name].append(look(last))
            if shown is not None:
                during[name].append(look(shown))
    y = np.array(answers)
    labels = np.stack([y, *_drawn_anew(y, others)], 1)
    found = {}
    for name in looks:
        accuracy, chance, p_value = _cross_validated(np.stack(after[name]), labels)
        control = None
        if len(during[name]) == len(y):
            control, *_ = _cross_validated(np.stack(during[name]), labels)
        found[name] = ProbeResult(accuracy, control, chance, len(y), p_value)
    return found


def _shows(task: Task) -> bool:
    """Whether the answer can be seen in the frame of this moment."""
    if isinstance(task, RecallColour):
        return task.lamp == task.blocks[task.answer].colour
    return not isinstance(task, CountPress) and task.now == (1 if isinstance(task, PutBack) else 11)


def _drawn_anew(y: Int[np.ndarray, "n"], allowed: list[list[int] | None]) -> list[Int[np.ndarray, "n"]]:
    """Answers as they could have been as well, _SHUFFLES times."""
    rng = stream(len(y), "answers drawn anew")
    if all(a is None for a in allowed):
        return [rng.permutation(y) for _ in range(_SHUFFLES)]
    return [np.array([rng.choice(a or [own]) for a, own in zip(allowed, y, strict=True)]) for _ in range(_SHUFFLES)]


def _cross_validated(
    x: Float[np.ndarray, "n features"], labels: Int[np.ndarray, "n draws"]
) -> tuple[float, float, float]:
    """Accuracy of ridge regression on one-hot answers over folds, its mean on drawn ones, and the p value.

    The first column of `labels` has the answers, the others what was drawn.
    """
    y = labels[:, 0]
    x = (x - x.mean(0)) / (x.std(0) + 1e-3)
    hits = np.zeros(labels.shape[1])
    for fold in range(_FOLDS):
        test = np.arange(len(y)) % _FOLDS == fold
        kernel = x[~test] @ x[~test].T
        ridge = 0.03 * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
        smooth = np.linalg.solve(kernel + ridge, x[~test] @ x[test].T).T
        scores = np.stack([smooth @ (labels[~test] == c) for c in range(int(y.max()) + 1)])
        hits += (scores.argmax(0) == labels[test]).sum(0)
    at_least = int((hits[1:] >= hits[0]).sum())
    return float(hits[0]) / len(y), float(hits[1:].mean()) / len(y), (1 + at_least) / (1 + _SHUFFLES)
