"""Makes a suite of a gymnasium environment."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from vlamem.core.spec import ActionSpec
from vlamem.policies.action_file import actions_of
from vlamem.sim.suites.gym.env import Acting, Course, GymSuiteEnv, episode_seed
from vlamem.sim.suites.gym.view import GymSuiteError, GymView
from vlamem.sim.suites.protocol import Cue, Recorder, RenderProfile, SuiteError, TaskInfo

MakeEnv = str | Callable[..., Any]
Goals = tuple[tuple[str, ...], ...]
_RESERVED = ("proprioception", "instruction")


def suite_from_gym(
    make_env: MakeEnv,
    *,
    name: str,
    cameras: Mapping[str, str],
    action: ActionSpec | str,
    horizon: int,
    instruction: str | Mapping[str, str] | Callable[[Any], str] = "",
    instruction_key: str = "",
    proprioception: Sequence[str] = (),
    tasks: Sequence[str | TaskInfo] = (),
    success: str | Callable[[Mapping[str, Any]], bool] | None = None,
    goals: Sequence[str | Sequence[str]] = (),
    control_hz: float | None = None,
    expert: Acting | None = None,
    guess: Acting | None = None,
    cue: Callable[[Any], Cue | None] | None = None,
    seed_of: Callable[[str, str, int], int] = episode_seed,
    reset_options: Mapping[str, Any] | None = None,
    ends_at_success: bool = True,
    recorder: Recorder | None = None,
    needs_gl: bool = False,
) -> "GymSuite":
    """A suite whose tasks are played in a gymnasium environment.

    A key names an entry of the observation; that of an inner dictionary is "outer/inner", and an observation that is
    no dictionary is "observation".

    Args:
        make_env: an id of gymnasium, after the module that registers it ("gym_pusht:gym_pusht/PushT-v0"), or a function
            that makes an environment. It is given `task` and `image_size` where its arguments have these names, and
            task parameters as they are.
        name: of the suite.
        cameras: camera by key: {"pixels/top": "top"}. The key "render()" is what the environment's `render` gives.
            Images are uint8 [H, W, 3] or channels first, or floating point from 0 to 1, as large as the environment
            draws them.
        action: what the action entries mean: a spec, "osc_pose", "so101", "bi_so101", or the path of a TOML file.
        horizon: control steps after which an episode is truncated; a TaskInfo has its own.
        instruction: the sentence, a sentence by task, or a function from the environment to it.
        instruction_key: in place of `instruction`, the key of the sentence in the observation or the info.
        proprioception: keys, concatenated in this order as float32.
        tasks: names; more than one needs a `make_env` that takes `task`. One task named as the suite when empty.
        success: key of the info, or a function from the info; `is_success` or else `success` when not given. It may be
            missing until an episode ends.
        goals: every sentence, or the paraphrases of each with the last held out of training; needed where sentences
            are made by a function or read from a key, and a recording or a check asks for them.
        control_hz: control steps a second; the environment's render_fps when not given.
        expert: from the environment to the action of a scripted expert; None for a suite without.
        guess: the same for one that does not know what a memory task hides.
        cue: from the environment to what a memory task hides at this moment.
        seed_of: from task, split and number of an initial state to the seed of the reset; a stream of that name when
            not given.
        reset_options: of every reset of the environment.
        ends_at_success: False for an environment that is judged by the last of its control steps alone.
        recorder: what of the suite can be recorded beside LeRobotDatasets, which can be of any suite; a policy's
            features when not given and there is an expert.
        needs_gl: True for an environment that MuJoCo draws: the renderer is chosen and written down with each run.

    Raises ValueError for arguments that do not fit each other; what does not fit the environment is a GymSuiteError
    when it is made or played.
    """
    if not isinstance(cameras, Mapping) or not cameras:
        raise ValueError(f"cameras is {cameras!r}: expected a camera by key, e.g. {{'pixels': 'top'}}")
    names = list(cameras.values())
    for camera in names:
        if camera in _RESERVED or names.count(camera) > 1:
            raise ValueError(f"camera '{camera}' is reserved or there twice in {dict(cameras)}: rename it")
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}: expected 1 or more control steps")
    if bool(instruction) == bool(instruction_key):
        raise ValueError("instruction and instruction_key: give one of the two")
    if isinstance(proprioception, str):  # a text would be read letter by letter
        raise ValueError(f"proprioception is '{proprioception}': expected a list of keys, ['{proprioception}']")
    declared = actions_of(action) if isinstance(action, str) else action
    listed = _tasks(tasks or (name,), horizon, instruction)
    if len(listed) > 1 and (isinstance(make_env, str) or "task" not in _arguments(make_env)):
        raise ValueError(f"{len(listed)} tasks and a make_env without the argument 'task': let it take one")
    views = {
        task: GymView(
            dict(cameras),
            tuple(proprioception),
            instruction[task] if isinstance(instruction, Mapping) else instruction,
            instruction_key,
            success,
        )
        for task in listed
    }
    course = Course(declared, seed_of, reset_options, ends_at_success, cue)
    return GymSuite(
        name, listed, views, course, make_env, (expert, guess), control_hz, _goals(goals), recorder, needs_gl
    )


class GymSuite:
    """A suite of tasks that are played in a gymnasium environment; made by `suite_from_gym`."""

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, TaskInfo],
        views: Mapping[str, GymView],
        course: Course,
        make_env: MakeEnv,
        experts: tuple[Acting | None, Acting | None],
        control_hz: float | None,
        goals: Goals,
        recorder: Recorder | None,
        needs_gl: bool = False,
    ) -> None:
        """`experts` are the one that knows what is hidden and the one that guesses."""
        self.needs_gl = needs_gl
        self.name, self.tasks = name, tasks
        # an expert that is a function of the environment acts in every state that a policy gets into
        self.recorder = recorder or Recorder(features=experts[0] is not None)
        self._views, self._course, self._make_env = views, course, make_env
        self._experts, self._control_hz, self._goals = experts, control_hz, goals

    def goals(self) -> Goals:
        """Every sentence. Raises GymSuiteError where the environment makes them and none were listed."""
        if self._goals:
            return self._goals
        sentences = {view.instruction: None for view in self._views.values()}  # in the order of the tasks
        if not all(isinstance(sentence, str) and sentence for sentence in sentences):
            raise GymSuiteError(
                f"suite '{self.name}' has sentences of its environment's making: list them with suite_from_gym goals="
            )
        return tuple((str(sentence), str(sentence)) for sentence in sentences)

    def make(
        self,
        task: str,
        *,
        image_size: int = 84,
        render: RenderProfile = "fast",
        guessing: bool = False,
        **task_parameters: Any,
    ) -> GymSuiteEnv:
        """An environment for one task; `image_size` is for a `make_env` that takes it, `render` has no effect.

        Raises SuiteError for an unknown task or parameter and where no expert guesses, GymSuiteError for an environment
        that is not as the suite was told.
        """
        if task not in self.tasks:
            raise SuiteError(f"unknown task '{task}' in suite '{self.name}': choose one of {', '.join(self.tasks)}")
        expert, guess = self._experts
        if guessing and guess is None:
            raise SuiteError(f"task '{task}' has no expert that guesses: give suite_from_gym guess=")
        env = _alone(self._called(task, image_size, task_parameters))
        acting = guess if guessing else expert
        try:
            return GymSuiteEnv(env, self.tasks[task], self._views[task], self._course, acting, self._control_hz)
        except GymSuiteError:
            env.close()
            raise

    def _called(self, task: str, image_size: int, parameters: Mapping[str, Any]) -> Any:
        """What `make_env` makes."""
        if isinstance(self._make_env, str):
            import gymnasium

            try:
                return gymnasium.make(self._make_env, **parameters)
            except gymnasium.error.Error as error:
                raise GymSuiteError(f"gymnasium cannot make '{self._make_env}': {error}") from error
        known = _arguments(self._make_env)
        unknown = [key for key in parameters if key not in known and "**" not in known]
        if unknown:
            raise SuiteError(f"task '{task}' does not take the parameter '{unknown[0]}': its make_env has none such")
        offered = {"task": task, "image_size": image_size}
        return self._make_env(**{key: value for key, value in offered.items() if key in known}, **parameters)


def _arguments(make_env: Callable[..., Any]) -> set[str]:
    """Names that a function takes as keywords, those apart that are given already; "**" where it takes any."""
    given = set(make_env.keywords) if isinstance(make_env, partial) else set()
    found = set()
    for key, parameter in inspect.signature(make_env).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.add("**")
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            found.add(key)
    return found - given


def _alone(env: Any) -> Any:
    """An environment, or the one in a vectorised environment of one, as lerobot's `make_env` gives it."""
    count = getattr(env, "num_envs", None)
    if count is None:
        return env
    if count != 1 or not hasattr(env, "envs"):
        raise GymSuiteError(
            f"make_env gives a {type(env).__name__} of {count} environments: expected one environment, the rollout "
            "plays several side by side by itself"
        )
    return env.envs[0]


def _tasks(
    given: Sequence[str | TaskInfo], horizon: int, instruction: str | Mapping[str, str] | Callable[[Any], str]
) -> dict[str, TaskInfo]:
    """Tasks by name. Raises ValueError for a text in place of a list, a name twice, and a task without a sentence."""
    if isinstance(given, str):
        raise ValueError(f"tasks is '{given}': expected a list of names, ['{given}']")
    found: dict[str, TaskInfo] = {}
    for entry in given:
        task = entry if isinstance(entry, str) else entry.name
        if task in found:
            raise ValueError(f"task '{task}' is there twice")
        if isinstance(instruction, Mapping) and task not in instruction:
            raise ValueError(f"instruction has no sentence for task '{task}', only for {', '.join(instruction)}")
        text = instruction[task] if isinstance(instruction, Mapping) else instruction
        examples = (text,) if isinstance(text, str) and text else ()
        found[task] = TaskInfo(entry, "skill", "", 0.0, horizon, examples) if isinstance(entry, str) else entry
    return found


def _goals(given: Sequence[str | Sequence[str]]) -> Goals:
    """Paraphrases of each goal; a sentence without has itself twice."""
    return tuple((goal, goal) if isinstance(goal, str) else tuple(goal) for goal in given)
