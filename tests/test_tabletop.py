"""The tabletop suite: initial states, verdicts, sentences, experts and bad input."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vlamem.core.seeding import stream
from vlamem.sim.suites.protocol import SuiteError
from vlamem.sim.suites.registry import load_suite
from vlamem.sim.suites.tabletop import SUITE, register_gymnasium
from vlamem.sim.suites.tabletop.env import TabletopEnv
from vlamem.sim.suites.tabletop.language import TEMPLATES, all_goals
from vlamem.sim.suites.tabletop.task import held_out
from vlamem.sim.suites.tabletop.tasks import MEMORY, SKILLS, TASKS

EXPERT_EPISODES = {"patrol": 1, "put_back": 1}


def play(env: TabletopEnv, episode: int, **options: object) -> bool:
    env.render_on_step = False
    env.reset(options={"episode": episode, **options})
    while True:
        _, _, terminated, truncated, info = env.step(env.expert_action())
        if terminated or truncated:
            return bool(info["success"])


@pytest.fixture
def make():
    made = []

    def factory(task: str, **options: object) -> TabletopEnv:
        made.append(SUITE.make(task, **options))
        return made[-1]

    yield factory
    for env in made:
        env.close()


@pytest.mark.parametrize("task", TASKS)
def test_expert_succeeds(make, task):
    env = make(task)
    assert all(play(env, episode) for episode in range(EXPERT_EPISODES.get(task, 3)))


@pytest.mark.parametrize("task", [t.name for t in MEMORY])
def test_expert_that_guesses_sometimes_fails_and_never_knows(make, task):
    env = make(task, guessing=True)
    outcomes = []
    for episode in range(12):
        env.render_on_step = False
        env.reset(options={"episode": episode})
        known = getattr(env.task, "believed", getattr(env.task, "known", None))
        truth = getattr(env.task, "order", env.task.answer)
        outcomes.append(known == truth)
    assert not all(outcomes)


@pytest.mark.parametrize("task", TASKS)
def test_initial_state_depends_on_task_and_episode_alone(make, task):
    env = make(task)
    first, _ = env.reset(options={"episode": 7})
    env.reset(options={"episode": 3})
    for _ in range(5):
        env.step(np.array([0.5, 0.5, -0.5, 0.2, 0.1, 0.0, 1.0]))
    again, _ = env.reset(options={"episode": 7})
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key], err_msg=key)


@pytest.mark.parametrize("task", [t.name for t in MEMORY])
def test_oracle_variant_has_the_same_initial_state_and_another_sentence(make, task):
    own, _ = make(task).reset(options={"episode": 4})
    oracle, _ = make(f"{task}_told").reset(options={"episode": 4})
    np.testing.assert_array_equal(own["agentview"], oracle["agentview"])
    assert own["instruction"] != oracle["instruction"]


def test_every_goal_has_four_training_paraphrases_and_one_held_out():
    for goal in all_goals():
        assert len(set(goal.training_sentences)) >= 4
        assert goal.sentence(-1) not in goal.training_sentences


def test_held_out_wordings_have_no_unknown_words():
    known = {w for g in all_goals() for s in g.training_sentences for w in s.split()}
    assert {w for g in all_goals() for w in g.sentence(-1).split()} <= known


def test_wording_option_chooses_the_held_out_paraphrase(make):
    env = make("press")
    seen, _ = env.reset(options={"episode": 0, "wording": "held_out"})
    assert seen["instruction"] == TEMPLATES["press"][-1]


def test_novel_split_has_only_held_out_combinations_and_train_has_none(make):
    env = make("touch")
    for split, expected in (("novel", True), ("train", False)):
        for episode in range(5):
            env.reset(options={"episode": episode, "split": split})
            assert held_out(env.task.blocks[0].colour, env.scene.block(0)[:2]) is expected


def test_touching_another_block_first_fails(make):
    env = make("touch")
    env.render_on_step = False
    env.reset(options={"episode": 0})
    env.task.aim = 1
    while env.task.status == "running":
        action = env.expert_action()
        env.task.aim = 0
        env.step(action)
        env.task.aim = 1
    assert env.task.status == "failure"


@pytest.mark.parametrize("go_signal", [True, False])
def test_acting_before_the_delay_is_over_fails(make, go_signal):
    env = make("recall_colour", delay=60, go_signal=go_signal)
    env.render_on_step = False
    env.reset(options={"episode": 0})
    while env.task.status == "running":
        may_act, env.task.may_act = env.task.may_act, True
        action = env.expert_action()
        env.task.may_act = may_act
        env.step(action)
    assert env.task.status == "failure"
    assert not env.task.go


def test_delay_moves_the_go_signal(make):
    starts = []
    for delay in (5, 40):
        env = make("recall_colour", delay=delay)
        env.render_on_step = False
        env.reset(options={"episode": 2})
        while not env.task.go:
            env.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
        starts.append(env.task.now)
    assert starts[1] - starts[0] == 35


@pytest.mark.parametrize("swaps", [0, 1, 3])
def test_shell_game_expert_follows_the_swaps(make, swaps):
    env = make("shell_game", swaps=swaps)
    assert play(env, 5)


def test_steps_without_rendering_lead_to_the_same_image(make):
    env = make("push")
    images = []
    for rendering in (True, False):
        env.render_on_step = rendering
        env.reset(options={"episode": 1})
        for _ in range(4):
            env.step(env.expert_action())
        images.append(env.observe()["wrist"])
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("task", ["recall_colour", "sequence", "shell_game"])
def test_a_visible_cue_is_seen_until_the_end_and_hidden_otherwise(make, task):
    for shown in (True, False):
        env = make(task, visible_cue=shown, delay=2)
        env.render_on_step = False
        env.reset(options={"episode": 0, "split": "train"})
        seen = []
        while env.task.status == "running":
            if env.task.cue_over:
                seen.append(_cue_in_view(env))
            env.step(env.expert_action())
        assert env.task.status == "success"
        assert len(seen) > 10
        # what changes at a tick (a touch, the cue's end) is in the scene from the next one on
        assert seen.count(False) <= 1 if shown else not any(seen[1:])


def _cue_in_view(env: TabletopEnv) -> bool:
    """Whether the picture of this moment says what has to be done now."""
    task, scene = env.task, env.scene
    if task.name == "shell_game":
        pea = scene.data.body("pea").xpos - scene.data.body(f"cup{task.answer}").xpos
        return bool(np.linalg.norm(pea[:2]) < 0.07)
    return bool(task.lamp == task.blocks[task.next].colour)


def test_gymnasium_ids_pass_its_checker_and_vectorise():
    ids = register_gymnasium()
    assert len(ids) == len(SKILLS) + 2 * len(MEMORY)
    env = gymnasium.make("vlamem/Tabletop-Touch-v0", disable_env_checker=True)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()
    pair = gymnasium.make_vec("vlamem/Tabletop-RecallColourTold-v0", num_envs=2, vectorization_mode="sync")
    seen, _ = pair.reset(seed=3)
    assert seen["agentview"].shape == (2, 84, 84, 3)
    assert not np.array_equal(seen["agentview"][0], seen["agentview"][1])
    pair.close()


def test_image_size_and_faithful_profile(make):
    seen, _ = make("touch", image_size=64, render="faithful").reset(options={"episode": 0})
    assert seen["agentview"].shape == (64, 64, 3)
    fast, _ = make("touch", image_size=64).reset(options={"episode": 0})
    assert not np.array_equal(seen["agentview"], fast["agentview"])


def test_listing_tasks_names_what_must_be_remembered():
    tasks = load_suite("tabletop").tasks
    assert all(info.remember for info in tasks.values() if info.kind == "memory")
    assert {f"{t.name}_told" for t in MEMORY} <= set(tasks)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("tuoch", {}, "unknown task 'tuoch'"),
        ("touch", {"delay": 3}, "does not take these parameters"),
        ("recall_colour", {"choices": 9}, "choices 9 is outside 2 to 5"),
        ("recall_colour", {"delay": -1}, "delay -1 is negative"),
        ("sequence", {"length": 7}, "length 7 is outside"),
        ("patrol", {"steps": 10**6}, "steps 1000000 is outside"),
        ("touch", {"render": "nice"}, "render profile 'nice' is unknown"),
        ("touch", {"image_size": 4}, "image_size 4 is outside"),
    ],
)
def test_bad_task_options_are_one_clear_error(task, options, message):
    with pytest.raises((SuiteError, ValueError), match=message):
        SUITE.make(task, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsiode": 1}, "unknown reset option 'epsiode'"),
        ({"split": "validation"}, "split 'validation' is unknown"),
        ({"wording": "rude"}, "wording 'rude' is unknown"),
        ({"episode": -1}, "episode -1 is outside"),
    ],
)
def test_bad_reset_options_are_one_clear_error(make, options, message):
    with pytest.raises(ValueError, match=message):
        make("touch").reset(options=options)


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan), np.full(7, np.inf)])
def test_bad_actions_are_refused(make, action):
    env = make("touch")
    env.reset(options={"episode": 0})
    with pytest.raises(ValueError, match="7 finite numbers"):
        env.step(action)


def test_layout_streams_do_not_depend_on_each_other():
    assert stream(0, "layout", "touch", 1).random() != stream(0, "layout", "touch", 2).random()
