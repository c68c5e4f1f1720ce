"""sim/suites/mikasa without the benchmark: names, refusals, verdicts, conventions, drivers."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlamem.core.seeding import stream
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.summary import summarise
from vlamem.sim.suites.mikasa import MIKASA, catalogue, package, vulkan
from vlamem.sim.suites.mikasa.catalogue import CANONICAL, NOT_CANONICAL
from vlamem.sim.suites.mikasa.conventions import (
    DELTA_POSE,
    benchmark_action,
    benchmark_proprioception,
    project_action,
    proprioception,
)
from vlamem.sim.suites.mikasa.env import FIRST_SEED, seed_of
from vlamem.sim.suites.mikasa.experts import check_actor
from vlamem.sim.suites.mikasa.language import BUTTON, oracle_instruction, oracle_instructions
from vlamem.sim.suites.mikasa.meshes import merged_faces
from vlamem.sim.suites.mikasa.package import MikasaMissingError
from vlamem.sim.suites.mikasa.verdicts import TouchJudge, nearest_touched
from vlamem.sim.suites.protocol import SuiteError
from vlamem.sim.suites.registry import examine, load_suite, select_tasks

BULB = "TraceShapeEasy-VLA-v0"
CUPS = "ShellGameTouch-VLA-v0"


@pytest.fixture
def package_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for the installed benchmark."""
    sources = tmp_path / "package/vla/memory_envs"
    sources.mkdir(parents=True)
    for task in CANONICAL.values():
        (sources / f"{task.module}.py").write_text("class Base:\n    LANGUAGE_INSTRUCTION = ('Touch ' 'it.')\n")
    monkeypatch.setattr(catalogue, "find_package", lambda: tmp_path / "package")
    catalogue.sentence_of.cache_clear()
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path / "assets"))
    yield tmp_path
    catalogue.sentence_of.cache_clear()


def test_of_90_canonical_tasks_56_need_nothing_beyond_the_package() -> None:
    needs = [task.needs for task in CANONICAL.values()]
    assert (len(needs), needs.count(""), needs.count("bulb"), needs.count("ycb")) == (90, 56, 27, 7)
    assert not set(NOT_CANONICAL) & set(CANONICAL)


def test_tasks_that_need_files_are_refused_by_name_and_play_once_the_files_are_there(package_folder: Path) -> None:
    assert len(MIKASA.tasks) == 56
    assert MIKASA.tasks["RememberColor3-VLA-v0"].instructions == ("Touch it.",)
    with pytest.raises(SuiteError, match=rf"'{BULB}'.*wheel lacks the mesh of a light bulb: expected .*\.glb"):
        select_tasks(MIKASA, [BULB])
    with pytest.raises(SuiteError, match=rf"'{CUPS}'.*YCB set.*MS_ASSET_DIR"):
        MIKASA.make(CUPS)
    bulb = package_folder / "package/vla/utils/objects/low_poly_light_bulb.glb"
    cups = package_folder / "assets/data/assets/mani_skill2_ycb/info_pick_v0.json"
    for file in (bulb, cups):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    assert len(MIKASA.tasks) == 90
    assert select_tasks(MIKASA, [CUPS, BULB]) == (BULB, CUPS)


def test_names_that_are_no_canonical_task_are_refused() -> None:
    with pytest.raises(SuiteError, match="not one of the 90 canonical"):
        select_tasks(MIKASA, ["ShellGamePick-VLA-v0"])
    with pytest.raises(SuiteError, match=r"unknown task 'RememberColor3-v0'.*did you mean 'RememberColor3-VLA-v0'"):
        select_tasks(MIKASA, ["RememberColor3-v0"])
    with pytest.raises(SuiteError, match="unknown task 'RememberColor3-v0'"):
        MIKASA.make("RememberColor3-v0")


def test_parameters_that_do_not_fit_are_refused_before_anything_is_imported() -> None:
    with pytest.raises(SuiteError, match="'pd_joint_pos' is not the benchmark's canonical one: use pd_ee_delta_pose"):
        MIKASA.make("RememberColor3-VLA-v0", control_mode="pd_joint_pos")
    with pytest.raises(SuiteError, match="does not take the parameter 'delay'"):
        MIKASA.make("RememberColor3-VLA-v0", delay=4)
    with pytest.raises(SuiteError, match="actor 'oracle' is unknown: choose one of expert"):
        MIKASA.make("RememberColor3-VLA-v0", actor="oracle")
    with pytest.raises(SuiteError, match="touching one object, and 'TakeItBack-VLA-v0' is not"):
        check_actor(CANONICAL["TakeItBack-VLA-v0"], "touch-all")
    with pytest.raises(SuiteError, match="nothing to choose from"):
        MIKASA.make("InterceptSlow-VLA-v0", guessing=True)


def test_without_the_benchmark_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MikasaMissingError, match=r"mikasa-robo-suite.*not installed: install it with 'make mikasa'"):
        package.find_package()
    assert len(MIKASA.tasks) == 56  # listed all the same
    absent = next(check for check in examine() if check.name == "MIKASA-Robo")
    assert (absent.status, absent.mend) == ("absent", "make mikasa")


def test_chance_is_that_of_a_blind_choice() -> None:
    assert CANONICAL["RememberShape5-VLA-v0"].chance == 1 / 5
    assert CANONICAL["FindImposterShapeAndColor5x3-VLA-v0"].chance == 1 / 15
    assert CANONICAL["BunchOfColors3-VLA-v0"].chance == pytest.approx(1 / 84)
    assert CANONICAL["ChainOfColors3-VLA-v0"].chance == pytest.approx(1 / 504)


def test_test_episodes_have_the_benchmarks_seeds_and_training_episodes_never_do() -> None:
    assert [seed_of("any", "test", i) for i in (0, 49)] == [4242424242, 4242424291]
    assert all(seed_of("any", "train", i) < FIRST_SEED for i in range(200))
    assert seed_of("a", "train", 0) != seed_of("b", "train", 0)


@pytest.mark.parametrize(
    ("seen", "strict"),
    [
        ([("cue", None), ("gap", None), ("choice", None), ("choice", 2)], True),
        ([("cue", 2), ("gap", None), ("choice", 2)], False),  # touched what the cue shows
        ([("choice", 1), ("choice", 2)], False),  # a wrong touch is final
        ([("choice", 2), ("choice", 1)], True),  # as is the right one
        ([("cue", None), ("choice", None)], None),
    ],
)
def test_the_first_object_touched_after_the_gap_decides(seen: list, strict: bool | None) -> None:
    judge = TouchJudge(2)
    for phase, touched in seen:
        judge.see(phase, touched)
    assert judge.verdict is strict
    assert bool(judge.reason) == (strict is False)


def test_a_touch_is_the_nearest_object_within_reach_of_a_hand_at_rest() -> None:
    assert nearest_touched({0: 0.049, 1: 0.03}, 0.05, still=True) == 1
    assert nearest_touched({0: 0.05}, 0.05, still=True) == 0
    assert nearest_touched({0: 0.051}, 0.05, still=True) is None
    assert nearest_touched({0: 0.01}, 0.05, still=False) is None
    assert nearest_touched({}, 0.05, still=True) is None


def test_signs_order_and_units_of_actions() -> None:
    only_x = benchmark_action(np.array([1, 0, 0, 0, 0, 0, 0], np.float32))
    np.testing.assert_allclose(only_x, [1, 0, 0, 0, 0, 0, 0])  # translations are the benchmark's
    for axis in range(3):
        turned = benchmark_action(np.eye(7, dtype=np.float32)[3 + axis])
        np.testing.assert_allclose(turned, -np.eye(7)[3 + axis], atol=1e-6)  # rotations turn round
    assert benchmark_action(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))[6] == 1  # -1 opens here, +1 there
    assert [c.unit for c in DELTA_POSE.components] == ["0.1 m", "0.1 rad", "-1 open, +1 closed"]


def test_what_the_benchmark_does_with_an_action_is_the_rotation_that_was_asked_for() -> None:
    for i in range(20):
        action = stream(0, "mikasa-actions", i).uniform(-0.5, 0.5, 7).astype(np.float32)
        theirs = benchmark_action(action)
        done = Rotation.from_euler("XYZ", -0.1 * theirs[3:6])  # its controller: times the lower bound, Euler XYZ
        np.testing.assert_allclose(done.as_rotvec(), 0.1 * action[3:6], atol=1e-6)
        np.testing.assert_allclose(project_action(theirs), action, atol=1e-4)


def test_a_rotation_beyond_the_controllers_range_keeps_its_axis() -> None:
    far = np.array([0, 0, 0, 1, 1, 0, 0], np.float32)
    done = Rotation.from_euler("XYZ", -0.1 * benchmark_action(far)[3:6]).as_rotvec()
    np.testing.assert_allclose(done, 0.1 / np.sqrt(2) * np.array([1, 1, 0]), atol=1e-6)


def test_proprioception_is_a_pose_and_turns_into_the_benchmarks() -> None:
    turned = Rotation.from_euler("xyz", [3.0, 0.1, -0.2])
    x, y, z, w = turned.as_quat()
    for sign in (1, -1):  # one orientation, whichever of its two quaternions the simulator gives
        pose = proprioception(np.array([0.1, 0.2, 0.3, *(sign * np.array([w, x, y, z]))]), np.array([0.03, 0.04]))
        assert pose.dtype == np.float32
        assert pose[3:7][np.argmax(np.abs(pose[3:7]))] > 0
        np.testing.assert_allclose(pose[[0, 1, 2, 7]], [0.1, 0.2, 0.3, 0.07], atol=1e-6)
        np.testing.assert_allclose(benchmark_proprioception(pose), [0.1, 0.2, 0.3, 3.0, 0.1, -0.2, 0.07], atol=1e-5)


def test_oracle_instructions_name_what_the_benchmark_numbers() -> None:
    assert oracle_instruction("ChainOfColors", 6) == "Touch the maroon cube."
    assert oracle_instruction("FindImposterShape", 7) == "Touch the T."
    assert oracle_instruction("RememberShapeAndColor", 7) == "Touch the lime T."
    every = oracle_instructions()
    assert len(set(every)) == len(every)
    assert BUTTON in every


def driver(folder: Path, code: str) -> str:
    """A python that stands for one whose driver behaves like `code`."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-c', code])}\n")  # its path may hold a space
    script.chmod(0o755)
    return str(script)


SAYS = "import json; print(json.dumps({'renderer': '%s', 'drawn': %s}))"


@pytest.mark.parametrize(
    ("code", "works", "software", "problem"),
    [
        (SAYS % ("llvmpipe", "True"), True, True, ""),
        (SAYS % ("Some GPU", "True"), True, False, ""),
        (SAYS % ("llvmpipe", "False"), False, True, "without the box"),
        ("import os; os.kill(os.getpid(), 11)", False, True, "died of signal 11"),
        ("raise RuntimeError('no device')", False, True, "ended with status 1: RuntimeError: no device"),
    ],
)
def test_a_driver_is_tried_in_a_process_of_its_own(
    code: str, works: bool, software: bool, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vulkan.sys, "executable", driver(tmp_path, code))
    found = vulkan.probe.__wrapped__("of the system", "")
    assert (found.works, found.software) == (works, software)
    assert problem in found.problem


def test_a_driver_that_a_user_names_is_used_or_refused_and_never_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "share/vlamem/vulkan/lvp_icd.json"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps({}))
    monkeypatch.setattr(vulkan.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(vulkan, "_SYSTEM", ())
    for name in vulkan.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert vulkan._candidates() == [("of this environment", str(own))]
    monkeypatch.setenv("VK_ICD_FILENAMES", "/mine.json")
    assert vulkan._candidates() == [("named by VK_ICD_FILENAMES", "/mine.json")]
    broken = vulkan.Vulkan("named by VK_ICD_FILENAMES", False, "/mine.json", problem="died of signal 11")
    monkeypatch.setattr(vulkan, "probe", lambda name, files: broken)
    with pytest.raises(MikasaMissingError, match=r"named by VK_ICD_FILENAMES died of signal 11.*unset VK_DRIVER_FILES"):
        vulkan.settle()
    monkeypatch.delenv("VK_ICD_FILENAMES")
    own.unlink()
    with pytest.raises(MikasaMissingError, match=r"no Vulkan driver is installed.*'make mikasa'"):
        vulkan.settle()


def test_both_verdicts_are_counted_with_their_intervals() -> None:
    outcomes = [("success", False), ("success", True), ("failure", False), ("error", None)]
    records = [
        EpisodeRecord("none", "touch", "test", i, 0, outcome, f"test/{i}", strict=strict)  # type: ignore[arg-type]
        for i, (outcome, strict) in enumerate(outcomes)
    ]
    counts = summarise(records, ["touch"])[0]["none"]["tasks"]["touch"]
    assert (counts["n"], counts["successes"]) == (3, 2)
    assert (counts["strict"]["n"], counts["strict"]["successes"]) == (3, 1)
    assert counts["strict"]["wilson95"][0] < 1 / 3 < counts["strict"]["wilson95"][1]
    assert (
        "strict"
        not in summarise([EpisodeRecord("none", "touch", "test", 0, 0, "success", "test/0")], ["touch"])[0]["none"][
            "total"
        ]
    )


def test_a_mesh_of_separate_triangles_is_joined_before_it_is_made_coarse() -> None:
    side = np.linspace(0, 1, 41)
    x, y = (a.reshape(-1) for a in np.meshgrid(side[:-1], side[:-1], indexing="ij"))
    step = side[1]
    corners = np.stack([np.stack([x + dx, y + dy, 0 * x], 1) for dx, dy in ((0, 0), (step, 0), (0, step))], 1)
    vertices, faces = corners.reshape(-1, 3), np.arange(3 * len(x)).reshape(-1, 3)
    merged = merged_faces(vertices, faces)
    assert 0 < len(merged) < len(faces) / 2
    kept = vertices[merged]
    normals = np.cross(kept[:, 1] - kept[:, 0], kept[:, 2] - kept[:, 0])
    assert (normals[:, 2] > 0).all()  # none was turned over
    assert np.ptp(kept.reshape(-1, 3), axis=0)[:2].min() > 0.9  # the outline stays


def test_the_suite_is_one_line_in_the_registry() -> None:
    assert load_suite("mikasa") is MIKASA
