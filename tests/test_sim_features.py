"""sim/record/features.py and frames.py: what is recorded at each tick."""

import os
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from libero_cases import TASKS, frames, needs_libero
from tqdm import tqdm

from vlamem.core.observation import Encoding, Observation
from vlamem.core.spec import OSC_POSE, PolicySpec
from vlamem.memory.protocol import StepOut
from vlamem.memory.runner import InjectOptions, RecurrentRunner
from vlamem.memory.train.features import EpisodeTicks, Features, FeaturesError, parts_of
from vlamem.scripts.main import main
from vlamem.sim.record import features
from vlamem.sim.record.features import (
    ACTORS,
    FeatureCollection,
    collect_features,
    expert_chunks,
    features_meta,
    jobs,
    record_features,
)
from vlamem.sim.record.frames import FrameCollection, encode_frames, held_episode, query_mask
from vlamem.sim.suites.registry import load_suite
from vlamem.sim.suites.tabletop import SUITE
from vlamem.sim.suites.tabletop.frame_labels import FRAMES

SPEC = PolicySpec("eyes", 4, 16, 4, 3, 20.0, ("agentview", "wrist"), 16, 8, OSC_POSE, "none")


class Eyes:
    """Its feature is sixteen pixels of the picture; it moves at random, less so when its instruction names a colour."""

    spec = SPEC
    history = 1
    lowest_start = 0.2

    def encode(self, obs: Observation) -> Encoding:
        z = obs.images["agentview"][:, ::4, ::4, 0].reshape(len(obs.instruction), -1).astype(np.float32)
        return Encoding(z, z[:, :4] / (1 + np.linalg.norm(z[:, :4], axis=1, keepdims=True)), obs.instruction)

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        return 0.1 * np.asarray(noise, np.float32)

    def context_of(self, instruction: list[str]) -> Any:
        return np.array([[len(s), 0, 1] for s in instruction], np.float32)


class Hints:
    """A recurrence that is always sure of the same residual, and counts its ticks."""

    feature_size, context_size, chunk_shape = 16, 3, None

    def __init__(self) -> None:
        self.ticks = 0

    def reset(self, mask: Any) -> None:
        self.ticks = 0

    def step(self, features: Any, rows: Any) -> StepOut:
        self.ticks += 1
        one, no, yes = np.ones(1, np.float32), np.zeros(1, np.float32), np.ones(1, bool)
        return StepOut(one, None, np.ones((1, 3), np.float32), None, yes, one, no, ~yes, no)

    def state(self, row: int) -> dict[str, np.ndarray]:
        return {"ticks": np.array([self.ticks])}

    def restore(self, row: int, state: Any) -> None:
        (self.ticks,) = state["ticks"]


class Listening(Eyes):
    """Keeps its instruction and what was proposed to it at every plan."""

    def __init__(self) -> None:
        self.given: list[tuple[str, float]] = []

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        residual = 0.0 if proposal is None else float((proposal.context_weight[:, None] * proposal.context).sum())
        self.given.append((encoding.context[0], residual))
        return super().sample(encoding, noise)


def test_an_actor_that_remembers_is_given_its_memorys_residual_and_its_own_sentence_alone() -> None:
    env = SUITE.make("recall_colour", image_size=16, delay=4)
    env.task.acting_steps, env.task.longest = 12, 40
    policy, recurrence = Listening(), Hints()
    memory = RecurrentRunner("hints", recurrence, InjectOptions())
    ticks, _ = record_features(env, "recall_colour", SUITE.goals(), policy, 3, "remembers", [memory])
    assert recurrence.ticks == len(ticks.z)
    assert {residual for _, residual in policy.given} == {3.0}
    assert {instruction for instruction, _ in policy.given} <= set(env.task.goal(False).training_sentences)
    for actor, memories in (("remembers", []), ("told", [memory])):
        with pytest.raises(ValueError, match="memory"):
            record_features(env, "recall_colour", SUITE.goals(), policy, 3, actor, memories)
    env.close()


def test_a_memory_that_the_simulator_tells_is_refused_as_an_actor(tmp_path: Path) -> None:
    what = FeatureCollection("tiny", {}, {"recall_colour": 1}, tmp_path / "out", memory="oracle")
    with pytest.raises(ValueError, match="its answer from the simulator"):
        collect_features(what, lambda recorded, unsuccessful: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("actor", ACTORS[:3])
def test_every_tick_is_recorded_with_what_is_told_what_it_means_and_what_the_expert_would_do(actor: str) -> None:
    env = SUITE.make("recall_colour", image_size=16, delay=4)
    env.task.acting_steps = 12
    env.task.longest = 40
    ticks, _ = record_features(env, "recall_colour", SUITE.goals(), Eyes(), 3, actor)
    again, _ = record_features(env, "recall_colour", SUITE.goals(), Eyes(), 3, actor)
    meta = features_meta(Eyes(), None, "test")
    assert ticks.z.shape == (env.task.now, 16)
    assert ticks.chunk.shape == (env.task.now, 4, 7)
    own, oracle = ticks.goal[0]
    assert meta.goals[own][0] == "touch the block of the colour that the lamp showed"
    assert meta.goals[oracle][0].startswith("touch the ")
    first = int(np.argmax(ticks.asked))
    assert 12 <= first <= 18
    assert ticks.asked[first:].all()
    np.testing.assert_array_equal(ticks.z, again.z)
    np.testing.assert_array_equal(ticks.chunk, again.chunk)
    env.close()


@pytest.mark.parametrize("task", FRAMES.refused)
def test_tasks_that_frames_say_too_little_of_are_refused_before_anything_is_read(task: str, tmp_path: Path) -> None:
    what = FrameCollection("tiny", (tmp_path / "none",), {"touch": 1, task: 1}, tmp_path / "out")
    with pytest.raises(FeaturesError, match=f"'{task}' from frames .*play it"):
        encode_frames(what, lambda recorded, unsuccessful: None)
    assert not (tmp_path / "out").exists()


def test_a_chunk_is_what_the_expert_does_until_something_unforeseeable_happens() -> None:
    actions = np.arange(6, dtype=np.float32)[:, None] * np.ones((1, 7), np.float32)
    phases = [(False, 1)] * 3 + [(True, 1)] * 3
    chunks = expert_chunks(actions, phases, 4)[..., 0]
    np.testing.assert_array_equal(chunks[0], [0, 1, 2, 2])
    np.testing.assert_array_equal(chunks[2], [2, 2, 2, 2])
    np.testing.assert_array_equal(chunks[3], [3, 4, 5, 5])


def test_a_recording_goes_on_with_another_number_of_processes_and_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(env: Any, task: str, goals: Any, policy: Any, episode: int, *_: Any) -> tuple[EpisodeTicks, bool]:
        zero = np.zeros((2, 1))
        return EpisodeTicks(np.zeros((2, 16)), np.zeros((2, 4, 7)), np.zeros((2, 2), int), zero[:, 0]), True

    monkeypatch.setattr(features, "record_features", short)
    first = FeatureCollection("test_sim_features:Eyes", {"touch": 3}, {}, tmp_path, workers=2)
    for index in range(2):
        features._work(first, index, SimpleQueue())
    features._work(replace(first, demonstrations={"touch": 5}, workers=1), 0, SimpleQueue())
    found = [(e.task, e.episode) for part in parts_of(tmp_path) for e in Features(part).episodes]
    assert sorted(found) == [("touch", number) for number in range(5)]


def test_episodes_that_a_cut_left_half_are_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[int] = []

    def short(env: Any, task: str, goals: Any, policy: Any, episode: int, *_: Any) -> tuple[EpisodeTicks, bool]:
        played.append(episode)
        z = np.full((2, 16), 1.0 + episode)
        return EpisodeTicks(z, np.zeros((2, 4, 7)), np.zeros((2, 2), int), np.zeros(2)), True

    monkeypatch.setattr(features, "record_features", short)
    what = FeatureCollection("test_sim_features:Eyes", {"touch": 4}, {}, tmp_path)
    features._work(what, 0, SimpleQueue())
    (part,) = parts_of(tmp_path)
    whole = (part / "z").read_bytes()
    os.truncate(part / "z", 5 * 16 * 2)  # two episodes and a half
    features._work(what, 0, SimpleQueue())
    assert played == [0, 1, 2, 3, 2, 3]
    assert (part / "z").read_bytes() == whole


def test_the_bar_counts_the_rollouts_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    class Bar(tqdm):  # type: ignore[type-arg]  # cannot be subscribed when it runs
        def __init__(self, **given: Any) -> None:
            begun.append(given["total"])
            super().__init__(**given, disable=True)

        def reset(self, total: float | None = None) -> None:
            raise AssertionError("the bar began with another total")

    monkeypatch.setattr("tqdm.tqdm", Bar)
    monkeypatch.setattr(features, "collect_features", lambda what, progress: None)
    words = ["collect", "--features", "--tasks", "touch", "push", "--episodes", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    assert main([*words, "--rollouts", "0"]) == 0
    assert begun == [2 * 62, 2 * 2]


def test_a_collection_of_nothing_or_of_less_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-2 rollouts of 'touch'"):
        FeatureCollection("tiny", {}, {"touch": -2}, tmp_path)
    with pytest.raises(ValueError, match="nothing to record"):
        collect_features(FeatureCollection("tiny", {"touch": 0}, {}, tmp_path), lambda recorded, unsuccessful: None)


def test_a_part_of_a_recording_is_a_fair_sample_of_tasks_and_actors() -> None:
    everything = jobs(FeatureCollection("tiny", {"touch": 20, "patrol": 10}, {"touch": 12, "patrol": 12}, None))  # type: ignore[arg-type]
    assert len(everything) == len(set(everything)) == 54
    half = everything[:27]
    assert 8 <= sum(task == "patrol" for task, _, _ in half) <= 14
    assert {actor for _, _, actor in half} == set(ACTORS[:3])
    mistakes = jobs(FeatureCollection("tiny", {}, {"touch": 4}, None, memory="aura"))  # type: ignore[arg-type]
    assert mistakes == [("touch", 200_000 + e, "remembers") for e in range(4)]


def test_frames_are_held_until_the_next_and_their_chunks_move_on() -> None:
    ticks = np.array([0, 3, 9, 12])
    z = np.arange(4, dtype=np.float32)[:, None]
    chunks = np.tile(np.arange(4, dtype=np.float32)[:, None, None], (1, 6, 7)) * 10 + np.arange(6)[:, None]
    goal = np.tile([0, 5], (4, 1))
    lamp = {"lamp_colour": np.array([0, 2, 0, 0])}
    made = held_episode(z, ticks, goal, chunks, query_mask(SUITE, "recall_colour", goal, lamp))
    assert made.z[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3]
    assert made.chunk[4, :, 0].tolist() == [11, 12, 13, 14, 15, 15]
    assert made.asked.tolist() == [0] * 9 + [1] * 4


@pytest.mark.parametrize(
    ("task", "categories", "expected"),
    [
        ("latest_wins", {"lamp_colour": [0, 3, 0, 2, 0, 0]}, [0, 0, 0, 0, 1, 1]),
        ("shell_game", {"lamp_colour": [0] * 6, "pea_place": [2, 2, 2, 0, 0, 0]}, [0, 0, 0, 1, 1, 1]),
        ("put_back", {"lamp_colour": [0] * 6}, [1] * 6),
        ("touch", {"lamp_colour": [0] * 6}, [0] * 6),
        ("recall_colour", {"lamp_colour": [0] * 6}, [0] * 6),
    ],
)
def test_the_answer_is_known_once_it_has_been_shown(task: str, categories: Any, expected: list[int]) -> None:
    found = FRAMES.known(task, {name: np.array(x) for name, x in categories.items()})
    assert found.astype(int).tolist() == expected


def test_frames_that_ask_for_nothing_need_no_labels() -> None:
    z = np.zeros((2, 1), np.float32)
    goal = np.array([[4, 4], [4, 4]])
    made = held_episode(z, np.array([0, 3]), goal, np.zeros((2, 6, 7)), query_mask(SUITE, "pick", goal, {}))
    assert made.asked.tolist() == [0] * 4


def test_frames_of_a_hidden_answer_are_refused_for_a_suite_without_labels_of_frames() -> None:
    goal = np.array([[0, 5], [0, 5]])
    with pytest.raises(FeaturesError, match="'libero_object' declares no labels of frames"):
        query_mask(load_suite("libero_object"), "side", goal, {})


@needs_libero
def test_frames_of_libero_are_encoded_and_nothing_is_asked(tmp_path: Path) -> None:
    what = FrameCollection(
        "test_sim_features:Eyes", (frames(tmp_path / "frames"),), dict.fromkeys(TASKS, 1), tmp_path / "out",
        suite="libero_object",
    )  # fmt: skip
    counted: list[int] = []
    for _ in range(2):  # the second call finds everything there
        encode_frames(what, lambda recorded, unsuccessful: counted.append(recorded))
    assert counted == [1, 2, 1, 2]
    found = Features(tmp_path / "out")
    assert found.meta.suite == "libero"
    assert [(e.task, e.episode, e.ticks) for e in found.episodes] == [(t, 0, 19) for t in TASKS]
    for episode in found.episodes:
        ticks = found.ticks(episode)
        assert not ticks.asked.any()
        assert (ticks.goal[:, 0] == ticks.goal[:, 1]).all()
        instructions = found.meta.goals[ticks.goal[0, 0]]
        assert set(instructions) == {episode.task.replace("_", " ")}
        assert (ticks.z[0] == ticks.z[2]).all()
        assert (ticks.z[2] != ticks.z[3]).any()


@needs_libero
def test_recordings_of_two_libero_suites_are_of_one_set_of_goals() -> None:
    first, second = (features_meta(Eyes(), None, "test", suite) for suite in ("libero_object", "libero_spatial"))
    assert first == second
    assert len(set(first.goals)) == len(first.goals) > 100


def test_frames_of_another_size_than_the_policy_reads_are_refused(tmp_path: Path) -> None:
    folder = frames(tmp_path / "frames", episodes=1, size=20)
    what = FrameCollection("test_sim_features:Eyes", (folder,), {TASKS[0]: 1}, tmp_path / "out")
    with pytest.raises(FeaturesError, match="20 pixels do not fit policy 'eyes', which reads 16"):
        encode_frames(what, lambda recorded, unsuccessful: None)


def test_playing_libero_for_features_is_refused_with_the_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--suite", "libero_object", "--features"]) == 2
    assert "--features --frames" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_an_unknown_actor_is_named() -> None:
    env = SUITE.make("touch", image_size=16)
    with pytest.raises(ValueError, match="choose one of expert, told, own"):
        record_features(env, "touch", SUITE.goals(), Eyes(), 0, "nobody")
    env.close()
