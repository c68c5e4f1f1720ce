"""A conformance checker for suites of tasks, in the manner of gymnasium's check_env."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import stream
from vlamem.sim.suites.protocol import KINDS, Cue, NoExpertError, Suite, SuiteEnv, SuiteError
from vlamem.testing.errors import ConformanceError, require

Options = dict[str, Any]


def check_suite(
    suite: Suite, task: str | None = None, episodes: int = 3, longest: int = 2000, **made_with: Any
) -> None:
    """Checks a task of `suite`, or all, made with `made_with`; raises ConformanceError for the first broken promise.

    The initial state is a function of (task, split, episode) alone, whatever was played before; observations keep
    their shapes and types, with and without images; `observe` and `cue` change nothing; a cue is known and over in
    time and, where there is one, its answer and the instruction are among the suite's goals; an episode ends by itself;
    the scripted expert succeeds in one episode at least, and repeats itself; there is one that guesses where something
    is hidden. A task without an expert (NoExpertError) is played with random actions, the same ones each time.

    Args:
        suite: to check.
        task: one of its tasks; all when not given.
        episodes: initial states that are played.
        longest: control steps after which an episode is taken not to end.
        made_with: task parameters and `image_size` of `make`.
    """
    if task is None:
        for each in suite.tasks:
            check_suite(suite, each, episodes, longest, **made_with)
        return
    require(task in suite.tasks, f"the suite has no task '{task}'", f"it has {', '.join(suite.tasks)}")
    info = suite.tasks[task]
    require(info.name == task, "a task is listed under its own name", f"'{task}' is called '{info.name}'")
    require(info.kind in KINDS.values(), f"kind '{info.kind}' is unknown", f"choose one of {', '.join(KINDS.values())}")
    goals = suite.goals()
    require(bool(goals) and all(len(g) >= 2 for g in goals), "a goal has a sentence and a held-out paraphrase")
    refused = False
    try:
        suite.make(f"no_{task}", **made_with)
    except SuiteError:
        refused = True
    require(refused, "make raises SuiteError for a task that does not exist")
    try:
        suite.make(task, guessing=True, **made_with).close()
    except TypeError as error:
        raise ConformanceError(
            f"make takes guessing=True, for the expert that guesses what is hidden: {error}"
        ) from error
    except SuiteError as error:
        require(info.kind != "memory", "a memory task has an expert that guesses", str(error))
    env, other = suite.make(task, **made_with), suite.make(task, **made_with)
    try:
        env.reset(options=_options(0))
        expert = _has_expert(env)
        first = [_played(env, episode, info.max_steps, longest, goals) for episode in range(episodes)]
        if expert:
            require(any(first), "the scripted expert succeeds in one episode at least", f"{episodes} were played")
        _check_history(env, other, episodes)
    finally:
        env.close()
        other.close()


def _options(episode: int) -> Options:
    return {"episode": episode, "split": "train", "wording": "training"}


def _has_expert(env: SuiteEnv) -> bool:
    """Whether the task, in the state that it is in, has a scripted expert."""
    try:
        env.expert_action()
    except NoExpertError:
        return False
    return True


def _action(env: SuiteEnv, episode: int, step: int) -> Float[np.ndarray, "A"]:
    """What the expert does; where there is none, a draw from the range of the action spec."""
    try:
        return env.expert_action()
    except NoExpertError:
        parts = env.action_spec.components
        draw = stream(0, "check_suite", episode, step)
        return np.concatenate([draw.uniform(c.low, c.high, c.size) for c in parts]).astype(np.float32)


def _played(env: SuiteEnv, episode: int, most: int, longest: int, goals: tuple[tuple[str, ...], ...]) -> bool:
    """One episode, the expert's where there is one, with every check on the way; whether it succeeded."""
    env.render_on_step = False
    observation, _ = env.reset(options=_options(episode))
    _check_observation(observation, images=False)
    shapes = _shapes(env.observe())
    sentences = {sentence for paraphrases in goals for sentence in paraphrases}
    known = over = success = ended = False
    steps = 0
    while not ended:
        _check_looking(env)
        cue = env.cue()
        require(env.instruction in sentences, "every instruction is among the goals", repr(env.instruction))
        if cue is not None:
            _check_cue(cue, sentences, known, over)
            known, over = cue.known, cue.over
        action = _action(env, episode, steps)
        require(action.shape == (env.action_spec.size,), f"the expert's action has shape {action.shape}")
        observation, _, terminated, truncated, info = env.step(action)
        _check_observation(observation, images=False)
        require("success" in info, "step reports success in its info")
        success, ended, steps = bool(info["success"]), terminated or truncated, steps + 1
        require(steps < longest, f"an episode ends by itself, and this one did not within {longest} steps")
    require(steps <= most, f"an episode of at most {most} steps took {steps}")
    require(_shapes(env.observe()) == shapes, "an observation keeps its shapes and types to the end")
    return success


def _check_observation(observation: Mapping[str, Any], images: bool) -> None:
    proprioception, sentence = observation.get("proprioception"), observation.get("instruction")
    require(
        isinstance(proprioception, np.ndarray) and proprioception.ndim == 1 and proprioception.dtype == np.float32,
        "proprioception is float32 [P]",
    )
    assert isinstance(proprioception, np.ndarray)
    require(bool(np.isfinite(proprioception).all()), "proprioception is finite")
    require(isinstance(sentence, str) and bool(sentence), "instruction is a sentence")
    cameras = {name: x for name, x in observation.items() if getattr(x, "ndim", 0) == 3}
    require(bool(cameras) == images, f"images are there {'when asked for' if images else 'only when asked for'}")
    for name, image in cameras.items():
        require(image.dtype == np.uint8 and image.shape[2] == 3, f"camera '{name}' is uint8 [H, W, 3]")


def _check_looking(env: SuiteEnv) -> None:
    """That looking changes nothing: two looks see the same."""
    first = env.observe()
    _check_observation(first, images=True)
    cue, second = env.cue(), env.observe()
    require(_same(first, second), "observe and cue change nothing: two looks at one moment differ")
    require(env.cue() == cue, "cue changes nothing: two of one moment differ")
    require(first["instruction"] == env.instruction, "instruction is that of the observation")


def _check_cue(cue: Cue, sentences: set[str], known: bool, over: bool) -> None:
    require(cue.answer is None or cue.answer in sentences, "an answer is among the goals", repr(cue.answer))
    require(cue.known or not known, "what is known stays known")
    require(cue.over or not over, "a cue that is over stays over")


def _check_history(env: SuiteEnv, other: SuiteEnv, episodes: int) -> None:
    """That an initial state is a function of the episode alone, and an episode of its actions alone."""
    other.render_on_step = env.render_on_step = False
    for episode in reversed(range(episodes)):  # in `env` after all of them, in `other` before most
        for made in (env, other):
            made.reset(options=_options(episode))
        require(
            _same(env.observe(), other.observe()),
            "an initial state is a function of (task, split, episode) alone",
            f"episode {episode} begins otherwise in an environment that played others before",
        )
        for step in range(3):
            action = _action(env, episode, step)
            require(np.array_equal(action, _action(other, episode, step)), "the expert is a function of the state")
            env.step(action)
            other.step(action)
        require(
            _same(env.observe(), other.observe()),
            "an episode is a function of its initial state and actions",
            f"episode {episode} goes on otherwise in an environment that played others before",
        )


def _shapes(observation: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (x.shape, x.dtype) if isinstance(x, np.ndarray) else type(x) for name, x in observation.items()}


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
