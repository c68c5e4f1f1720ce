"""The LIBERO suites: what they say without the benchmark, and one short episode each with it."""

import queue
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from libero_cases import TASKS, needs_libero

from vlamem.policies.tiny.frames import FramesMeta, Goal
from vlamem.scripts import collect
from vlamem.scripts.config import preset
from vlamem.sim.record.collect import Collection
from vlamem.sim.suites.coarse_faces import coarse_faces
from vlamem.sim.suites.libero import SUITES, assets, demonstrations
from vlamem.sim.suites.libero.assets import MESH_PACKAGES, LiberoMissingError, find_paths, find_root
from vlamem.sim.suites.libero.catalogue import MAX_STEPS, sentence
from vlamem.sim.suites.libero.geometry import fill_box, highest_near
from vlamem.sim.suites.libero.grasp import plan_grasps
from vlamem.sim.suites.protocol import NoExpertError, SuiteError
from vlamem.sim.suites.registry import load_suite, select_tasks


@pytest.fixture
def no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_package", lambda name: None)


@pytest.fixture
def benchmark_without_meshes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    root = tmp_path / "libero" / "libero"
    (root / "bddl_files").mkdir(parents=True)
    monkeypatch.delenv("LIBERO_CONFIG_PATH", raising=False)
    monkeypatch.setattr(assets, "_package", lambda name: tmp_path / "libero" if name == "libero" else None)
    return root


def test_without_the_benchmark_the_error_names_the_package_and_the_mend(no_benchmark: None) -> None:
    with pytest.raises(LiberoMissingError, match=r"hf-libero.*make libero"):
        find_root()


def test_missing_meshes_are_named_one_by_one(benchmark_without_meshes: Path) -> None:
    with pytest.raises(LiberoMissingError, match=r"make libero") as caught:
        find_paths()
    assert all(name in str(caught.value) for name in MESH_PACKAGES)


def test_a_part_of_the_meshes_is_not_taken_for_all(
    benchmark_without_meshes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for i in (1, 2, 4, 5):
        (meshes / f"part_{i}.py").touch()
    monkeypatch.setattr(assets, "_package", lambda name: tmp_path / "libero" if name == "libero" else meshes)
    with pytest.raises(LiberoMissingError, match=MESH_PACKAGES[2]) as caught:
        find_paths()
    assert MESH_PACKAGES[0] not in str(caught.value)


def test_the_benchmarks_own_meshes_are_used_when_it_has_them(benchmark_without_meshes: Path) -> None:
    (benchmark_without_meshes / "assets" / "scenes").mkdir(parents=True)
    assert find_paths().assets == benchmark_without_meshes / "assets"


def test_a_configuration_with_meshes_that_are_not_there_is_refused_and_named(
    benchmark_without_meshes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("assets: /not/there\n")
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    with pytest.raises(LiberoMissingError, match=r"/not/there.*unset LIBERO_CONFIG_PATH"):
        find_paths()


def test_sentences_are_the_names_without_the_scene() -> None:
    assert sentence("KITCHEN_SCENE10_close_the_top_drawer") == "close the top drawer"
    assert sentence("put_the_bowl_on_the_stove") == "put the bowl on the stove"


def test_a_filled_box_reaches_its_corners_and_has_no_hole() -> None:
    points = fill_box(np.array([0.03, 0.01, 0.002]))
    assert points.max(0) == pytest.approx([0.03, 0.01, 0.002])
    assert np.diff(np.unique(points[:, 0])).max() <= 0.0061


def test_obstacles_beside_the_way_do_not_count() -> None:
    points = np.array([[0.5, 0.02, 0.3], [0.5, 0.5, 0.9]])
    assert highest_near(points, np.zeros(2), np.array([1.0, 0.0]), 0.05) == 0.3
    assert highest_near(points[:0], np.zeros(2), np.array([1.0, 0.0]), 0.05) == -1.0


def _block(half: list[float], at: list[float]) -> np.ndarray:
    return fill_box(np.array(half)) + np.array(at)


def _grasps(thing: np.ndarray, others: np.ndarray | None = None) -> list[Any]:
    empty = np.zeros((0, 3)) if others is None else others
    return plan_grasps(thing, empty, np.zeros(3), np.eye(3), np.array([0.0, 1.0, 0.0]), 0.0, lambda at: 0.0)


def test_a_bar_is_grasped_across_its_narrow_side() -> None:
    bar = _block([0.10, 0.02, 0.02], [0.0, 0.0, 0.02])
    best = _grasps(bar)[0]
    assert abs(best.closing[1]) > 0.95
    assert best.width == pytest.approx(0.04, abs=0.01)
    assert best.score < 1.0


def test_a_ring_too_wide_for_the_hand_is_grasped_by_its_wall() -> None:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    heights = np.arange(0.0, 0.05, 0.005)
    ring = np.array([[0.055 * np.cos(a), 0.055 * np.sin(a), z] for a in angles for z in heights])
    best = _grasps(ring)[0]
    assert np.linalg.norm(best.point[:2]) == pytest.approx(0.055, abs=0.006)
    assert best.width < 0.02


def test_a_block_too_wide_for_the_hand_has_no_grasp() -> None:
    assert _grasps(_block([0.06, 0.06, 0.02], [0.0, 0.0, 0.02])) == []


def test_a_column_is_not_grasped_by_a_corner() -> None:
    turn = np.array([[np.cos(0.7), -np.sin(0.7), 0.0], [np.sin(0.7), np.cos(0.7), 0.0], [0.0, 0.0, 1.0]])
    column = _block([0.015, 0.015, 0.05], [0.0, 0.0, 0.05]) @ turn.T
    for grasp in _grasps(column):
        assert grasp.width > 0.02


def test_a_wall_beside_a_thing_turns_the_grasp_away() -> None:
    post = _block([0.015, 0.015, 0.03], [0.0, 0.0, 0.03])
    wall = _block([0.10, 0.004, 0.05], [0.0, 0.045, 0.05])
    assert abs(_grasps(post)[0].closing[1]) > 0.95
    assert abs(_grasps(post, wall)[0].closing[1]) < 0.3


def test_coarse_faces_keep_the_outline_and_both_sides_of_a_thin_wall() -> None:
    side = np.linspace(-1.0, 1.0, 41)
    x, y = (a.reshape(-1) for a in np.meshgrid(side, side, indexing="ij"))
    corner = (np.arange(40)[:, None] * 41 + np.arange(40)).reshape(-1)
    up = np.concatenate(
        [np.column_stack([corner, corner + 41, corner + 42]), np.column_stack([corner, corner + 42, corner + 1])]
    )
    vertices = np.concatenate([np.column_stack([x, y, np.full(x.size, z)]) for z in (0.001, 0.0)])
    faces = np.concatenate([up, up[:, ::-1] + x.size])
    merged, kept = coarse_faces(vertices, faces, cells=10)
    assert 50 < len(merged) < len(faces) / 10
    a, b, c = (vertices[merged[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)[:, 2]
    for is_upper, area in ((kept < len(up), across), (kept >= len(up), -across)):
        assert (area[is_upper] > 0).all()
        assert area[is_upper].sum() / 2 > 3.2
    assert (vertices[merged].max((0, 1)) - vertices[merged].min((0, 1)))[:2].min() > 1.7


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Tasks and episodes that were played; the second task has no expert, and no scene is built."""
    played: list[tuple[str, int]] = []
    meta = FramesMeta(TASKS, tuple(Goal(task, (task,)) for task in TASKS), image_size=16, horizon=4)

    def play(env: SimpleNamespace, meta: FramesMeta, episode: int, *, stride: int) -> None:
        played.append((env.info.name, episode))
        if env.info.name == TASKS[1]:
            raise NoExpertError(f"no scripted expert reaches 'in mug microwave' of task '{TASKS[1]}'")

    def make(name: str, image_size: int) -> SimpleNamespace:
        return SimpleNamespace(info=SimpleNamespace(name=name), close=lambda: None)

    monkeypatch.setattr(demonstrations, "frames_meta", lambda *given: meta)
    monkeypatch.setattr(demonstrations, "record", play)
    monkeypatch.setattr(demonstrations, "SUITES", {"libero_10": SimpleNamespace(make=make)})
    return played


def test_a_task_without_an_expert_is_left_out_with_a_line_and_the_recording_ends(
    recorded: list[tuple[str, int]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    messages: queue.Queue[object] = queue.Queue()
    what = Collection(dict.fromkeys(reversed(TASKS), 3), tmp_path, workers=1, suite="libero_10")
    demonstrations.work(what, 0, messages)
    assert recorded == [(TASKS[0], 0), (TASKS[0], 1), (TASKS[0], 2), (TASKS[1], 0)]
    assert [messages.get_nowait() for _ in range(6)] == [False] * 6
    assert capfd.readouterr().err.count("left out: no scripted expert reaches 'in mug microwave'") == 1


def test_a_second_recording_begins_where_it_is_told_to(recorded: list[tuple[str, int]], tmp_path: Path) -> None:
    what = Collection({TASKS[0]: 2}, tmp_path, workers=1, first=50, suite="libero_10")
    demonstrations.work(what, 0, queue.Queue())
    assert recorded == [(TASKS[0], 50), (TASKS[0], 51)]


def test_a_visiting_policy_is_refused_where_none_can_visit() -> None:
    with pytest.raises(ValueError, match="no policy visits episodes of suite 'libero_10': leave out --visit tiny"):
        collect._check(replace(preset(collect.Args, "collect"), suite="libero_10", visit="tiny"), SUITES["libero_10"])


@needs_libero
@pytest.mark.parametrize("name", list(SUITES))
def test_suites_list_the_benchmarks_tasks(name: str) -> None:
    suite = load_suite(name)
    assert len(suite.tasks) == (90 if name == "libero_90" else 10)
    assert all(info.max_steps == MAX_STEPS[name] and info.instructions for info in suite.tasks.values())
    first = next(iter(suite.tasks))
    assert select_tasks(suite, [first]) == (first,)


@needs_libero
def test_an_unknown_task_or_parameter_is_refused() -> None:
    suite = SUITES["libero_object"]
    with pytest.raises(SuiteError, match="unknown task 'juggle'"):
        suite.make("juggle")
    with pytest.raises(SuiteError, match="delay"):
        suite.make(next(iter(suite.tasks)), delay=3)
    with pytest.raises(SuiteError, match="nothing to guess"):
        suite.make(next(iter(suite.tasks)), guessing=True)


@needs_libero
@pytest.mark.parametrize("name", list(SUITES))
def test_a_short_rendered_episode(name: str) -> None:
    suite = SUITES[name]
    env = suite.make(next(iter(suite.tasks)), image_size=64)
    try:
        with pytest.raises(ValueError, match="'test'"):
            env.reset(options={"episode": 0, "split": "novel"})
        observation, info = env.reset(options={"episode": 1})
        assert observation["agentview"].shape == observation["wrist"].shape == (64, 64, 3)
        assert observation["agentview"].std() > 20
        assert observation["proprioception"].shape == (8,)
        assert observation["instruction"] == next(iter(suite.tasks.values())).instructions[0]
        assert not info["success"]
        before = observation["proprioception"]
        env.render_on_step = False
        for _ in range(4):
            seen, reward, terminated, truncated, _ = env.step(np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]))
        assert not terminated
        assert not truncated
        assert reward == 0.0
        assert "agentview" not in seen
        assert seen["proprioception"][2] - before[2] > 0.01
        again, _ = env.reset(options={"episode": 1})
        np.testing.assert_array_equal(again["proprioception"], before)
        with pytest.raises(ValueError, match="7 finite numbers"):
            env.step(np.zeros(6))
    finally:
        env.close()


@needs_libero
def test_states_do_not_depend_on_what_was_before_nor_on_rendering() -> None:
    suite = SUITES["libero_goal"]
    task = "put_the_bowl_on_the_plate"
    action = np.array([0.3, 0.1, -0.4, 0.0, 0.1, 0.2, 1.0])
    states = []
    for image_size, history in ((32, (7, 3)), (None, ())):
        env = suite.make(task, image_size=image_size or 64)
        env.render_on_step = image_size is not None
        for episode in history:
            env.reset(options={"episode": episode, "split": "train"})
            env.step(action)
        np.random.seed(len(history))
        env.reset(options={"episode": 2, "split": "train"})
        for _ in range(5):
            env.step(action)
        states.append((env.simulation.data.qpos.copy(), env.simulation.model.body_pos.copy()))
        env.close()
    np.testing.assert_array_equal(states[0][0], states[1][0])
    np.testing.assert_array_equal(states[0][1], states[1][1])


@needs_libero
@pytest.mark.parametrize(
    ("task", "site"),
    [
        ("pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate", "flat_stove_1_cook_region"),
        (
            "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate",
            "wooden_cabinet_1_top_region",
        ),
    ],
)
def test_drawn_states_have_things_where_the_task_says(task: str, site: str) -> None:
    env = SUITES["libero_spatial"].make(task)
    env.render_on_step = False
    for episode in range(3):
        env.reset(options={"episode": episode, "split": "train"})
        there = np.array(env.simulation.data.site(site).xpos)
        assert np.linalg.norm(env.simulation.thing("akita_black_bowl_1")[:2] - there[:2]) < 0.05
    env.close()


@needs_libero
def test_the_expert_solves_an_episode_without_rendering() -> None:
    suite = SUITES["libero_object"]
    env = suite.make("pick_up_the_cream_cheese_and_place_it_in_the_basket")
    env.render_on_step = False
    env.reset(options={"episode": 0})
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(env.expert_action())
        done = terminated or truncated
    env.close()
    assert info["success"]


@needs_libero
def test_importing_the_benchmark_asks_nothing_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("the benchmark asked a question")

    monkeypatch.setattr("builtins.input", ask)
    assets.import_libero()
    assert "libero.libero.envs" in sys.modules
