"""Records what `vlamem probe` looks at: the expert's episodes of one memory task, and what can be seen of its cue."""

from typing import Any

import numpy as np

from vlamem.core.observation import Observation
from vlamem.core.spec import PolicySpec
from vlamem.policies.probe import ProbeError, Recording
from vlamem.sim.suites.protocol import images_of
from vlamem.sim.suites.registry import load_suite

_BATCH = 32


def record(spec: PolicySpec, task: str, cue: str, episodes: int, stride: int, history: int = 1) -> Recording:
    """Every `stride`-th control step of the expert on `episodes` initial states of a task of the tabletop suite.

    Observations are [B, history, ...] for a policy that reads several, the first repeated where an episode begins.
    `cue` is one of its privileged categories, such as lamp_colour; class 0 means that it cannot be seen now. Raises
    ProbeError for an unknown cue or one that is never seen, SuiteError for an unknown task or a camera that is missing.
    """
    from vlamem.sim.suites.tabletop.task import CATEGORIES

    names = [name for name, _ in CATEGORIES]
    if cue not in names:
        raise ProbeError(f"unknown cue '{cue}': choose one of {', '.join(names)}")
    if episodes < 1 or stride < 1:
        raise ProbeError(f"{episodes} episodes at every {stride}th step: both must be 1 or more")
    env = load_suite("tabletop").make(task, image_size=spec.image_size)
    env.render_on_step = False
    rows: list[Observation] = []
    labels: list[int] = []
    when: list[float] = []
    whose: list[int] = []
    column = names.index(cue)
    try:
        for episode in range(episodes):
            env.reset(options={"episode": episode, "split": "train"})
            first, step, ended = len(rows), 0, False
            past: list[dict[str, Any]] = []
            while not ended:
                if step % stride == 0 or history > 1:
                    seen = env.observe()
                    past = [*(past or [seen] * (history - 1)), seen][-history:]
                if step % stride == 0:
                    rows.append(_row(past, spec.cameras))
                    labels.append(int(env.task.categories(env.scene)[column]) - 1)  # type: ignore[attr-defined]
                    when.append(float(step))
                    whose.append(episode)
                _, _, terminated, truncated, _ = env.step(env.expert_action())
                step, ended = step + 1, terminated or truncated
            when[first:] = [t / step for t in when[first:]]
    finally:
        env.close()
    if max(labels) < 0:
        raise ProbeError(f"cue '{cue}' is never seen in task '{task}': choose a cue of this task")
    batches = [_together(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)]
    return Recording(batches, np.array(labels), np.array(when), np.array(whose))


def _row(past: list[dict[str, Any]], cameras: tuple[str, ...]) -> Observation:
    """One row of these control steps, the newest last."""
    taken = [images_of(seen, cameras) for seen in past]
    images = {name: np.stack([each[name] for each in taken]) for name in taken[0]}
    state = np.stack([seen["proprioception"] for seen in past])
    if len(past) > 1:
        images, state = {name: image[None] for name, image in images.items()}, state[None]
    return Observation(images, state, (past[-1]["instruction"],))


def _together(rows: list[Observation]) -> Observation:
    return Observation(
        {name: np.concatenate([o.images[name] for o in rows]) for name in rows[0].images},
        np.concatenate([o.proprioception for o in rows]),
        tuple(o.instruction[0] for o in rows),
    )
