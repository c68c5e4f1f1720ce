"""Demonstrations: what is recorded, that it is reproducible and resumable, and that nothing leaks the answer."""

import numpy as np
import pytest

from vlamem.policies.registry import find_policy, load_policy
from vlamem.policies.tiny.frames import Frames, complete_shards
from vlamem.sim.record.collect import Collection, collect
from vlamem.sim.suites.tabletop import SUITE
from vlamem.sim.suites.tabletop.demonstrations import HORIZON, VISITS, Disturbance, Visitor, frames_meta, plan, record
from vlamem.sim.suites.tabletop.language import all_goals
from vlamem.sim.suites.tabletop.leak import feature_of, pixels, probe


@pytest.fixture
def env():
    made = SUITE.make("recall_colour")
    yield made
    made.close()


def test_same_episode_is_recorded_the_same_whatever_came_before(env):
    first = record(env, 3)
    record(env, 5)
    again = record(env, 3)
    assert first is not None
    for name, column in first.items():
        np.testing.assert_array_equal(column, again[name], err_msg=name)


def test_chunks_are_the_experts_actions_and_stop_at_the_go_signal(env):
    frames = record(env, 0, disturbance=Disturbance(share=0.0))
    go = frames["categories"][:, 1].astype(bool)
    waiting = frames["chunk_valid"][~go].sum(1)
    ticks_left = frames["tick"][go].min() - frames["tick"][~go]
    assert (waiting <= np.maximum(ticks_left, 1)).all()
    assert np.abs(frames["chunk"]).max() <= 1.0
    assert frames["chunk"].shape[1:] == (HORIZON, 7)


def test_both_sentences_are_recorded_with_the_same_pixels(env):
    frames = record(env, 1)
    own, oracle = frames["goal"][0]
    assert all_goals()[own].key == "recall_colour"
    assert all_goals()[oracle].key == "touch"


def test_pushed_frames_are_left_out_and_the_expert_recovers(env):
    hard = Disturbance(share=1.0, every=6.0, strength=1.0)
    frames = record(env, 2, disturbance=hard)
    assert frames is not None
    assert not frames["chunk_valid"].all()


def test_plan_gives_every_episode_to_one_worker():
    episodes = {"touch": 5, "push": 3}
    given = [list(plan(episodes, w, 2)) for w in range(2)]
    assert sorted(given[0] + given[1]) == sorted((t, e) for t, n in episodes.items() for e in range(n))
    assert sorted(plan(episodes, 0, 1, first=7)) == sorted((t, 7 + e) for t, n in episodes.items() for e in range(n))


def test_recording_with_two_processes_resumes_where_it_stopped(tmp_path):
    few = Collection({"touch": 2}, tmp_path, workers=2, shard_frames=1)
    collect(few, lambda *_: None)
    kept = {p: p.stat().st_mtime_ns for w in (0, 1) for p in complete_shards(tmp_path / f"worker-{w}")}
    counts = []
    collect(Collection({"touch": 4}, tmp_path, workers=2, shard_frames=1), lambda *c: counts.append(c))
    assert counts[-1] == (4, 0)
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())
    frames = Frames([tmp_path / "worker-0", tmp_path / "worker-1"])
    assert sorted(set(frames.columns["episode"].tolist())) == [0, 1, 2, 3]


def test_collecting_an_unknown_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown task 'tuch'"):
        collect(Collection({"tuch": 1}, tmp_path), lambda *_: None)


def test_meta_indexes_every_goal():
    assert len(frames_meta("test").goals) == len(all_goals())


@pytest.fixture(scope="module")
def lamp():
    """The probes of recall_colour, of what is seen and of what the shipped policy makes of it, on the same episodes."""
    made = SUITE.make("recall_colour")
    found = probe(made, 60, looks={"pixels": pixels, "z": feature_of(load_policy(find_policy("tiny")))})
    made.close()
    return found


@pytest.mark.parametrize(("task", "episodes"), [("shell_game", 60), ("put_back", 40)])
def test_nothing_after_the_cue_tells_the_answer(task, episodes):
    made = SUITE.make(task)
    found = probe(made, episodes)["pixels"]
    made.close()
    assert found.p_value > 0.001
    if task == "shell_game":  # the control: the same probe does find the ball while it can be seen
        assert found.cue_accuracy > found.chance + 0.2


def test_nothing_that_is_seen_after_the_lamp_tells_its_colour(lamp):
    assert lamp["pixels"].p_value > 0.001


def test_after_the_cue_of_put_back_everything_is_as_if_the_block_had_come_from_another_pad():
    made = SUITE.make("put_back")
    made.render_on_step = False
    task, seen = made.task, []
    for answer in range(task.choices):
        made.reset(options={"episode": 0})
        task.answer = task.known = answer
        made.scene.place_block(0, task.blocks[0].colour, task.blocks[0].shape, task.pad_positions[answer])
        made.scene.settle()
        while not task.may_act:
            lifted = made.scene.block(0)[2] > 0.05
            assert not (lifted and task.cue_over), "what came before is still to be seen in the hand"
            made.step(made.expert_action())
        assert task.cue_over
        seen.append(made.observe())
    made.close()
    for other in seen[1:]:
        np.testing.assert_allclose(other["proprioception"], seen[0]["proprioception"], atol=1e-4)
        for camera in ("agentview", "wrist"):
            apart = np.abs(other[camera].astype(int) - seen[0][camera].astype(int))
            assert apart.max() <= 1, camera


def test_a_probe_of_the_frozen_feature_finds_the_lamp_while_it_is_lit_and_not_afterwards(lamp):
    assert lamp["z"].cue_accuracy > 0.9
    assert lamp["z"].p_value > 0.001


def test_the_expert_goes_on_from_where_a_visiting_policy_led(env):
    visitor = Visitor(load_policy(find_policy("tiny")))
    frames = record(env, 4, disturbance=VISITS, visitor=visitor)
    assert frames is not None
    assert not frames["chunk_valid"].all()
    again = record(env, 4, disturbance=VISITS, visitor=visitor)
    for name, column in frames.items():
        np.testing.assert_array_equal(column, again[name], err_msg=name)


READ_BACK = """
import sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
dataset = LeRobotDataset("dataset", root=sys.argv[1])
last = dataset[len(dataset) - 1]
print(dataset.num_episodes, bool(last["next.success"]), tuple(last["observation.images.wrist"].shape))
"""


def test_lerobot_dataset_reads_back(lerobot_processes, tmp_path):
    pytest.importorskip("lerobot")  # it forks to encode, which a process with JAX in it must not: its own processes
    words = ["collect", "--tasks", "press", "--episodes", "1", "--format", "lerobot", "--size", "64", "--out"]
    made = lerobot_processes.run(["-m", "vlamem", *words, str(tmp_path)])
    assert made.returncode == 0, made.stderr[-2000:]
    read = lerobot_processes.run(["-c", READ_BACK, str(tmp_path / "dataset")])
    assert read.returncode == 0, read.stderr[-2000:]
    assert read.stdout.splitlines()[-1] == "1 True (3, 64, 64)"
