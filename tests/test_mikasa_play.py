"""sim/suites/mikasa with the benchmark installed (make mikasa): what it registers, draws, moves and judges."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlamem.sim.suites.mikasa import MIKASA
from vlamem.sim.suites.mikasa.catalogue import CANONICAL, NOT_CANONICAL, sentences_of
from vlamem.sim.suites.mikasa.env import MikasaEnv
from vlamem.sim.suites.mikasa.package import MikasaMissingError, find_package
from vlamem.sim.suites.mikasa.vulkan import choose
from vlamem.testing import check_suite

TASK = "RememberColor3-VLA-v0"


def installed() -> bool:
    """Whether the benchmark, its simulator and a Vulkan driver are."""
    try:
        find_package()
        choose()
    except MikasaMissingError:
        return False
    return importlib.util.find_spec("sapien") is not None


pytestmark = [
    pytest.mark.skipif(not installed(), reason="MIKASA-Robo or a Vulkan driver is not installed: make mikasa"),
    pytest.mark.filterwarnings("default"),  # of the simulator's imports, which are not this project's
]


def made(task: str = TASK, **arguments: Any) -> MikasaEnv:
    env = MIKASA.make(task, **({"image_size": 128} | arguments))
    env.render_on_step = False
    return env


def start(env: MikasaEnv, episode: int = 0) -> None:
    env.reset(options={"episode": episode, "split": "test", "wording": "training"})


def play(env: MikasaEnv, episode: int) -> dict[str, Any]:
    start(env, episode)
    ended, info = False, {}
    while not ended:
        _, _, success, truncated, info = env.step(env.expert_action())
        ended = success or truncated
    return info


@pytest.fixture(scope="module")
def env() -> Iterator[MikasaEnv]:
    env = made()
    yield env
    env.close()


def test_the_catalogue_is_what_the_package_registers(env: MikasaEnv) -> None:
    from mani_skill.utils.registration import REGISTERED_ENVS

    registered = {name: spec.max_episode_steps for name, spec in REGISTERED_ENVS.items() if name.endswith("-VLA-v0")}
    assert registered.keys() == {*CANONICAL, *NOT_CANONICAL}
    assert {name: task.max_steps for name, task in CANONICAL.items()} == {n: registered[n] for n in CANONICAL}
    for task in CANONICAL.values():
        module = REGISTERED_ENVS[task.name].cls.__module__.rpartition(".")[2]
        assert module == task.module, task.name


def test_the_wrapper_that_holds_still_is_used_where_the_benchmark_uses_it() -> None:
    source = (find_package() / "vla/utils/apply_wrappers.py").read_text()
    frozen = {
        name
        for name in CANONICAL
        if "CurriculumPhaseNoopActionWrapper" in source.split(f'"{name}": VLAWrapperConfig(', 1)[1].split('"', 1)[0]
    }
    assert frozen == {name for name, task in CANONICAL.items() if task.frozen}


def test_sentences_are_the_environments(env: MikasaEnv) -> None:
    start(env)
    assert env.instruction in sentences_of(CANONICAL[TASK].module)


def test_initial_states_are_the_benchmarks(env: MikasaEnv) -> None:
    start(env, 1)
    here = env.simulation.proprioception(), env.simulation.places(), env.simulation.answer()
    env.simulation._env.reset(seed=4242424243)
    there = env.simulation.proprioception(), env.simulation.places(), env.simulation.answer()
    np.testing.assert_array_equal(here[0], there[0])
    assert here[2] == there[2]
    assert all(np.array_equal(here[1][key], there[1][key]) for key in here[1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_action_moves_and_turns_the_hand_the_way_it_says(env: MikasaEnv, axis: int) -> None:
    start(env)
    for _ in range(env.simulation.choice_begins):  # the benchmark holds the robot still until then
        env.simulation.step(np.zeros(7))
    before = env.simulation.hand, Rotation.from_quat(env.simulation.hand_quaternion[[1, 2, 3, 0]])
    env.simulation.step(0.5 * np.eye(7)[axis])
    env.simulation.step(np.zeros(7))
    moved = env.simulation.hand - before[0]
    assert moved[axis] == moved.max()
    assert 0.01 < moved[axis] < 0.05
    before = env.simulation.hand, Rotation.from_quat(env.simulation.hand_quaternion[[1, 2, 3, 0]])
    for _ in range(3):
        env.simulation.step(np.eye(7)[3 + axis])
    turned = (Rotation.from_quat(env.simulation.hand_quaternion[[1, 2, 3, 0]]) * before[1].inv()).as_rotvec()
    assert turned[axis] == turned.max()
    assert turned[axis] > 0.05


def test_the_gripper_opens_at_minus_one(env: MikasaEnv) -> None:
    start(env)
    openings = []
    for gripper in (1.0, -1.0):
        for _ in range(12):
            env.simulation.step(np.array([0, 0, 0, 0, 0, 0, gripper]))
        openings.append(float(env.simulation.proprioception()[7]))
    assert openings[0] < 0.01 < 0.07 < openings[1]


def test_images_are_the_benchmarks_and_the_coarse_housing_hardly_shows(env: MikasaEnv) -> None:
    start(env)
    coarse = env.simulation.images()
    assert list(coarse) == ["base_camera", "hand_camera"]
    exact_env = made(render="faithful")
    import gymnasium

    theirs_env = gymnasium.make(
        TASK,
        num_envs=1,
        obs_mode="rgb",
        control_mode="pd_ee_delta_pose",
        sim_backend="physx_cpu",
        render_backend="cpu" if env.simulation.vulkan.software else "gpu",
    )
    try:
        start(exact_env)
        exact = exact_env.simulation.images()
        theirs = theirs_env.reset(seed=4242424242)[0]["sensor_data"]
        assert list(theirs) == list(exact)
        for name, image in exact.items():
            assert (image.shape, image.dtype) == ((128, 128, 3), np.uint8)
            np.testing.assert_array_equal(image, theirs[name]["rgb"][0].numpy())
            far = np.abs(image.astype(int) - coarse[name]).max(axis=-1) > 8
            assert far.mean() < 0.005, name
    finally:
        exact_env.close()
        theirs_env.close()


def test_the_expert_passes_both_verdicts_and_touching_the_cue_only_the_benchmarks() -> None:
    env = made("RememberColor3-Long-VLA-v0", actor="touch-cue")
    try:
        touched = play(env, 0)
        assert (touched["success"], touched["strict"]) == (True, False)
    finally:
        env.close()
    env = made()
    try:
        played = play(env, 0)
        assert (played["success"], played["strict"]) == (True, True)
    finally:
        env.close()


def test_the_suite_keeps_its_contract() -> None:
    check_suite(MIKASA, TASK, episodes=2, image_size=32)


def test_doctor_finds_a_driver_that_draws() -> None:
    found = {check.name: check for check in MIKASA.examine()}
    assert found["Vulkan"].status == "ok", found["Vulkan"]


def test_nothing_is_imported_by_listing_tasks() -> None:
    code = (
        "import sys; from vlamem.sim.suites.mikasa import MIKASA; MIKASA.tasks; MIKASA.goals(); "
        "print(sorted({'torch', 'sapien', 'mani_skill', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
