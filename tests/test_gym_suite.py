"""vlamem.suite_from_gym, over the example's environment and one that gives its images and infos in every form."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gym_cases import PLANE, START, Dot, made

import vlamem
from vlamem.core.observation import Encoding, Observation
from vlamem.core.spec import OSC_POSE, ActionSpec, PolicySpec, SpecMismatchError
from vlamem.scripts.config import preset
from vlamem.sim.results.episodes import EpisodeLog
from vlamem.sim.results.pages import load_results
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines import RunRefusedError
from vlamem.sim.rollout.run import rollout
from vlamem.sim.suites.gym import GymSuite, GymSuiteError
from vlamem.sim.suites.protocol import Cue, NoExpertError, Suite, SuiteEnv, SuiteError, TaskInfo
from vlamem.sim.suites.registry import load_suite
from vlamem.testing import ConformanceError

sys.path.append(str(Path(__file__).resolve().parent.parent))  # examples/ lie outside the package
from examples.reach_gym import COLOURS, STRIDE, SUITE, ReachEnv  # found there


def walk(suite: GymSuite, task: str = "dots", steps: int = 99) -> Any:
    """The environment and the last step of an episode that walks on."""
    env = suite.make(task)
    env.reset(options=dict(START))
    for _ in range(steps):
        last = env.step(np.array([1, 0], np.float32))
        if last[2] or last[3]:
            break
    return env, last


class Seeing:
    """Sends the white point to the mark of the colour that its sentence names, by the picture alone."""

    history, lowest_start = 1, 0.2
    spec = PolicySpec("seeing", 4, 4, 2, 1, 10.0, ("top",), 64, 2, SUITE.make("red").action_spec, "none")

    def encode(self, obs: Observation) -> Encoding:
        places = []
        for image, sentence in zip(obs.images["top"], obs.instruction, strict=True):
            colour = COLOURS[next(c for c in COLOURS if c in sentence)]
            found = [np.argwhere((image == rgb).all(-1)) for rgb in ((255, 255, 255), colour)]
            places.append(np.concatenate([x.mean(0)[::-1] for x in found]))  # column, row
        z = np.array(places, np.float32)
        return Encoding(z, np.tile(np.array([1, 0], np.float32), (len(obs), 1)), z)

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        away = (encoding.context[:, 2:] - encoding.context[:, :2]) * 2 / 59 / STRIDE / 4
        return np.tile(np.clip(away, -1, 1)[:, None], (1, 4, 1)).astype(np.float32)

    def context_of(self, instruction: list[str]) -> Any:
        return np.zeros((len(instruction), 1), np.float32)


def policy() -> Seeing:
    """Factory for `--policy`."""
    return Seeing()


def factory() -> GymSuite:
    """For `--suite`."""
    return made()


def no_suite() -> int:
    """For `--suite`, by mistake."""
    return 3


def test_the_example_keeps_every_promise_of_a_suite() -> None:
    assert isinstance(SUITE, Suite)
    assert isinstance(SUITE.make("red"), SuiteEnv)
    vlamem.check_suite(SUITE)


def test_both_engines_play_the_example_alike(tmp_path: Path) -> None:
    asked = replace(
        preset(RolloutConfig, "rollout"), suite="examples.reach_gym:SUITE", tasks=("all",), size=64, episodes=3,
        policy="test_gym_suite:policy", execute=4,
    )  # fmt: skip
    played = []
    for engine, workers in (("inline", 0), ("processes", 1)):
        out = tmp_path / engine
        end = rollout(replace(asked, out=out, engine=engine, workers=workers))
        assert end.errors == 0
        (arm,) = load_results(out)["arms"].values()
        assert (arm["total"]["successes"], arm["total"]["n"]) == (6, 6)
        played.append(
            {(r.task, r.episode): replace(r, wall_clock={}) for r in EpisodeLog(out / "episodes.jsonl").read()}
        )
    assert played[0] == played[1]
    assert {record.instruction for record in played[0].values()} == {"go to the red mark", "go to the blue mark"}


def test_what_a_policy_sees_is_read_by_key_in_the_order_given() -> None:
    env = made().make("dots")
    seen, _ = env.reset(options=dict(START))
    at = np.float32(env.env.at)
    np.testing.assert_array_equal(seen["proprioception"], np.array([0.5, at, 1], np.float32))
    assert seen["proprioception"].dtype == np.float32
    assert (seen["top"].shape, seen["top"].dtype, seen["instruction"]) == ((4, 6, 3), np.uint8, "walk")
    before = seen["top"].copy()
    env.step(np.array([1, 0], np.float32))
    np.testing.assert_array_equal(seen["top"], before)  # not what the environment drew over it
    env.render_on_step = False
    assert "top" not in env.step(np.zeros(2, np.float32))[0]
    assert "top" in env.observe()


@pytest.mark.parametrize(
    "form",
    [
        lambda image: np.moveaxis(image, -1, 0),
        lambda image: np.moveaxis(image / 255, -1, 0),
        lambda image: (image / 255).astype(np.float32),
    ],
)
def test_images_of_every_form_come_out_alike(form: Any) -> None:
    seen = [walk(made(partial(Dot, form=f)), steps=2)[0].observe()["top"] for f in (form, None)]
    np.testing.assert_array_equal(*seen)
    assert seen[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        (
            lambda image: image[..., 0],
            r"'top' \(key 'pixels/top'\) is uint8 \[4, 6\]: expected uint8 \[H, W, 3\]",
        ),
        (lambda image: image[..., :2], r"uint8 \[4, 6, 2\]: expected"),
        (lambda image: image.astype(np.int64), r"int64 \[4, 6, 3\]: expected"),
        (
            lambda image: image * 1.0 + 7,
            r"float64 \[4, 6, 3\] with values from [0-9.]+ to .*: expected .* 0 to 1",
        ),
        (lambda image: image * np.nan, "with values from nan"),
        (lambda image: image[None], r"uint8 \[1, 4, 6, 3\]: expected one image"),
        (lambda image: "top.png", r"<U7 \[\]: expected"),
    ],
)
def test_what_is_no_image_is_refused_by_key_shape_and_type(form: Any, complaint: str) -> None:
    with pytest.raises(GymSuiteError, match=complaint):
        walk(made(partial(Dot, form=form)))


def test_a_rendered_camera_is_drawn_when_it_is_looked_at_alone() -> None:
    env = made(cameras={"render()": "scene"}).make("dots")
    env.render_on_step = False
    env.reset(options=dict(START))
    env.step(np.ones(2, np.float32))
    assert env.env.drawn == 0
    assert env.observe()["scene"].shape == (4, 6, 3)
    assert env.env.drawn == 1
    env.env.render = lambda: None
    with pytest.raises(GymSuiteError, match="render_mode='rgb_array'"):
        env.observe()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (
            {"cameras": {"pixels": "top"}},
            "camera 'top': the observation has no key 'pixels', it has pixels/top, b",
        ),
        ({"proprioception": ["joints"]}, "proprioception: the observation has no key 'joints'"),
        ({"proprioception": ["text"]}, r"key 'text'\) is <U5 \[\]: expected numbers"),
        ({"proprioception": ["nothing"]}, r"key 'nothing'\) is not finite: \[nan\]"),
        ({"instruction": lambda env: ""}, "the instruction is '': expected a sentence"),
        ({"instruction": "", "instruction_key": "words"}, "the observation and its info has no key 'words'"),
    ],
)
def test_a_key_that_is_not_there_or_no_number_is_named(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GymSuiteError, match=complaint):
        made(**changed).make("dots").reset(options=dict(START))


def test_a_sentence_is_a_text_a_key_of_observation_or_info_or_made_by_a_function() -> None:
    def sentences(**changed: Any) -> list[str]:
        env = made(**changed).make("dots")
        first = env.reset(options=dict(START))[0]["instruction"]
        return [first, env.step(np.zeros(2, np.float32))[0]["instruction"], env.instruction]

    assert sentences() == ["walk"] * 3
    assert sentences(instruction="", instruction_key="text") == ["stand"] * 3
    assert sentences(instruction="", instruction_key="sentence") == ["walk", "walk on", "walk on"]
    assert sentences(instruction=lambda env: f"step {env.now}") == ["step 0", "step 1", "step 1"]


def test_sentences_of_the_environments_making_are_listed_for_whom_asks() -> None:
    spoken = {"instruction": "", "instruction_key": "sentence"}
    with pytest.raises(GymSuiteError, match="goals="):
        made(**spoken).goals()
    assert made(**spoken, goals=["walk", ("walk on", "go on")]).goals() == (("walk", "walk"), ("walk on", "go on"))
    vlamem.check_suite(made(**spoken, goals=["walk", "walk on"]))
    with pytest.raises(ConformanceError, match="every instruction is among the goals: 'walk on'"):
        vlamem.check_suite(made(**spoken, goals=["walk"]))


def test_success_ends_an_episode_and_the_horizon_truncates_it() -> None:
    env, (_, _, terminated, truncated, info) = walk(made())
    assert (terminated, truncated, info["success"], env.env.at > 3) == (True, False, True, True)
    env, (_, _, terminated, truncated, info) = walk(made(horizon=2))
    assert (terminated, truncated, info["success"], env.env.now) == (False, True, False, 2)
    env, (_, _, terminated, truncated, info) = walk(made(ends_at_success=False))
    assert (terminated, truncated, info["success"], env.env.now) == (False, True, True, 8)
    assert walk(made(partial(Dot, longest=1)))[1][3]  # the environment's own limit


def test_success_is_read_where_it_is_said_and_its_absence_at_the_end_is_an_error() -> None:
    assert walk(made(partial(Dot, key="success")))[1][4]["success"]
    assert walk(made(partial(Dot, key="solved"), success="solved"))[1][4]["success"]
    assert walk(made(partial(Dot, key="solved"), success=lambda info: info["solved"]))[1][4]["success"]
    assert walk(made(partial(Dot, silent=True)))[1][4]["success"]  # silent until it is done
    with pytest.raises(GymSuiteError, match="no key 'is_success' or 'success', it has solved, sentence: name"):
        walk(made(partial(Dot, key="solved")))
    with pytest.raises(GymSuiteError, match="expected one true or false"):
        walk(made(success="sentence"))


def test_an_initial_state_has_one_seed_whatever_was_played_before() -> None:
    env, seeds = made().make("dots"), {}
    for split in ("test", "train", "test"):
        for episode in (0, 1, 0):
            env.reset(options={"episode": episode, "split": split})
            assert seeds.setdefault((split, episode), env.env.seed) == env.env.seed
    assert len(set(seeds.values())) == 4
    env = made(seed_of=lambda task, split, episode: 4242 + episode, reset_options={"fresh": True}).make("dots")
    env.reset(options={"episode": 3})
    assert (env.env.seed, env.env.options) == (4245, {"fresh": True})
    for refused in ({"split": "novel"}, {"wording": "held_out"}, {"seed": 1}):
        with pytest.raises(ValueError, match=next(iter(refused))):
            env.reset(options={"episode": 0} | refused)


def test_a_command_is_brought_back_to_the_declared_range_and_a_broken_one_refused() -> None:
    half = ActionSpec((replace(PLANE.components[0], low=-0.5, high=0.5),))
    env = made(action=half).make("dots")
    env.reset(options=dict(START))
    before = env.env.at
    env.step(np.array([7, 0]))
    assert env.env.at == before + 0.5
    for action in (np.zeros(3), np.array([0, np.nan])):
        with pytest.raises(ValueError, match="must be 2 finite numbers"):
            env.step(action)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"action": OSC_POSE}, "takes 2 action entries and the spec declares 7"),
        ({"action": ActionSpec((replace(PLANE.components[0], high=2.0),))}, "entry 0 .* to 2 .* takes -1 to 1"),
        ({"make_env": partial(gymnasium.vector.SyncVectorEnv, [Dot, Dot])}, "SyncVectorEnv of 2 environments"),
    ],
)
def test_an_environment_that_is_not_as_declared_is_refused_when_it_is_made(
    changed: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(GymSuiteError, match=complaint):
        made(**changed).make("dots")


def test_an_environment_with_choices_for_actions_or_without_a_rate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dot, "metadata", {})
    with pytest.raises(GymSuiteError, match="control_hz="):
        made().make("dots")
    assert made(control_hz=30).make("dots").control_hz == 30
    with pytest.raises(GymSuiteError, match="a number above 0"):
        made(control_hz=0).make("dots")
    monkeypatch.setattr(Dot, "action_space", gymnasium.spaces.Discrete(4))
    with pytest.raises(GymSuiteError, match=r"Discrete\(4\): expected a Box"):
        made(control_hz=30).make("dots")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"cameras": {}}, "a camera by key"),
        ({"cameras": {"a": "top", "b": "top"}}, "camera 'top' is reserved or there twice"),
        ({"cameras": {"a": "proprioception"}}, "reserved"),
        ({"horizon": 0}, "horizon is 0"),
        ({"instruction_key": "text"}, "give one of the two"),
        ({"instruction": ""}, "give one of the two"),
        ({"proprioception": "joints"}, r"\['joints'\]"),
        ({"tasks": "near"}, r"\['near'\]"),
        ({"tasks": ["near", "near"], "make_env": ReachEnv}, "'near' is there twice"),
        ({"tasks": ["near", "far"]}, "without the argument 'task'"),
        ({"tasks": ["near"], "instruction": {"far": "go"}}, "no sentence for task 'near', only for far"),
    ],
)
def test_arguments_that_do_not_fit_each_other_are_refused(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        made(**changed)


def test_actions_are_declared_by_name_or_file_as_for_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "plane.toml"
    file.write_text('[[part]]\nname="xy"\nsize=2\nmode="delta"\nunit="1 m"\nlow=-1.0\nhigh=1.0\nform="xyz"\n')
    assert made(action=str(file)).make("dots").action_spec.components[0].name == "xy"
    with pytest.raises(SpecMismatchError, match="unknown actions 'osc'"):
        made(action="osc")


def test_make_env_gets_what_its_arguments_name_and_an_id_is_made_by_gymnasium() -> None:
    got: dict[str, Any] = {}

    def make_env(task: str, image_size: int, longest: int = 5) -> Dot:
        got.update(task=task, image_size=image_size, longest=longest)
        return Dot()

    suite = made(make_env, tasks=["near", TaskInfo("far", "skill", "", 0.5, 99)])
    suite.make("far", image_size=32, longest=7)
    assert got == {"task": "far", "image_size": 32, "longest": 7}
    assert [info.max_steps for info in suite.tasks.values()] == [8, 99]
    with pytest.raises(SuiteError, match="does not take the parameter 'delay'"):
        suite.make("far", delay=3)
    with pytest.raises(SuiteError, match="unknown task 'nearer' in suite 'dots': choose one of near, far"):
        suite.make("nearer")
    gymnasium.register("vlamem_test/Reach-v0", ReachEnv, kwargs={"task": "blue"}, max_episode_steps=5)
    reach = vlamem.suite_from_gym(
        "vlamem_test/Reach-v0", name="reach", cameras={"pixels": "top"}, proprioception=["agent_pos"],
        instruction="go", action=PLANE, horizon=8,
    )  # fmt: skip
    assert reach.make("reach").env.unwrapped.colour == "blue"
    vlamem.check_suite(reach)
    with pytest.raises(GymSuiteError, match="gymnasium cannot make 'vlamem_test/Reach-v1'"):
        made("vlamem_test/Reach-v1").make("dots")


def test_the_one_environment_of_a_vectorised_one_is_played() -> None:
    suite = made(partial(gymnasium.vector.SyncVectorEnv, [Dot]))
    vlamem.check_suite(suite)
    assert isinstance(suite.make("dots").env, Dot)


def test_a_suite_without_an_expert_is_checked_with_random_actions_and_says_that_it_has_none() -> None:
    vlamem.check_suite(made())
    env = made().make("dots")
    env.reset(options=dict(START))
    with pytest.raises(NoExpertError, match="expert="):
        env.expert_action()
    with pytest.raises(SuiteError, match="guess="):
        made().make("dots", guessing=True)
    env = made(expert=lambda env: np.zeros(3)).make("dots")
    with pytest.raises(GymSuiteError, match=r"\[3\]: expected \[2\]"):
        env.expert_action()


def test_a_memory_task_has_a_cue_and_an_expert_that_guesses() -> None:
    hidden = {
        "tasks": [TaskInfo("dots", "memory", "where to", 0.5, 8)], "goals": ["walk", "walk there"],
        "expert": lambda env: np.array([1, 0]), "cue": lambda env: Cue(env.now > 0, env.now > 1, "walk there"),
    }  # fmt: skip
    with pytest.raises(ConformanceError, match="a memory task has an expert that guesses"):
        vlamem.check_suite(made(**hidden))
    suite = made(**hidden, guess=lambda env: np.array([-1, 0]))
    vlamem.check_suite(suite)
    assert suite.make("dots", guessing=True).expert_action()[0] == -1


def test_a_suite_can_be_named_by_the_function_that_makes_it() -> None:
    assert isinstance(load_suite("test_gym_suite:factory"), GymSuite)
    with pytest.raises(SuiteError, match="makes a int"):
        load_suite("test_gym_suite:no_suite")


def test_a_policy_of_another_image_size_is_told_that_the_environment_draws_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Seeing, "spec", replace(Seeing.spec, image_size=32))
    asked = replace(
        preset(RolloutConfig, "rollout"), suite="examples.reach_gym:SUITE", tasks=("red",), size=32, episodes=1,
        policy="test_gym_suite:policy", execute=4, workers=0, out=tmp_path,
    )  # fmt: skip
    with pytest.raises(RunRefusedError, match="64 x 64 pixels and policy 'seeing' reads 32 x 32: this suite draws"):
        rollout(asked)
