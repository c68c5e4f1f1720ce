"""One LIBERO task's simulation: the benchmark's own model, controller, initial states and verdict; no rendering here.

Two things are done otherwise than in the benchmark's wrapper, for speed and for independence of history. A control step
computes the state once a physics step, not three times, and updates no observables. And the placement of fixtures,
which the benchmark draws anew at every reset from NumPy's global stream (the stored initial states do not hold it),
comes from a stream named after the task and the episode.
"""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import stream
from vlamem.sim.suites.libero.assets import import_libero, quiet

CONTROL_HZ = 20
SETTLE_STEPS = 10
"""Control steps with an open gripper and no motion after a reset, as the field's evaluations have them."""
_JOINT_NOISE = 0.02
"""Standard deviation of the arm's joints in initial states for training [rad], as in robosuite."""
_TRIES = 100


class InitialStateError(ValueError):
    """An initial state that the benchmark does not have, or cannot place; the message says which there are."""


@contextmanager
def _global_stream(rng: np.random.Generator) -> Iterator[None]:
    """The benchmark's samplers draw from NumPy's global stream: seeds it, and restores it afterwards."""
    before = np.random.get_state()
    np.random.seed(int(rng.integers(2**32)))
    try:
        yield
    finally:
        np.random.set_state(before)


def load_initial_states(path: Path) -> Float[np.ndarray, "n state"]:
    """The benchmark's stored initial states (time, positions, velocities), read without running what a pickle says.

    Raises InitialStateError when the file holds anything but an array, ModuleNotFoundError without torch.
    """
    import pickle  # only for the name of the error; torch reads the file and builds nothing but an array

    import torch
    from numpy._core.multiarray import _reconstruct

    allowed: list[Any] = [
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        codecs.encode,
        type(np.dtype(np.float64)),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            states = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InitialStateError(
            f"{path.name} cannot be read ({error}): reinstall the benchmark, 'make libero'"
        ) from error
    return np.asarray(states, np.float64)


class _Current:
    """robosuite's simulation without its `forward`: mj_step1 has just brought everything up to date."""

    def __init__(self, sim: Any) -> None:
        self.model, self.data = sim.model, sim.data

    def forward(self) -> None:
        """Nothing to do."""


class Simulation:
    """A task of the benchmark. Positions are in the world frame [m]; see `origin` for the workspace's.

    Attributes:
        suite, task: its name.
        problem: the benchmark's own environment, with its objects, goal and predicates.
        model, data: MuJoCo's.
        base: position of the arm's base.
        origin: centre of the table's (or floor's) surface.
    """

    def __init__(self, suite: str, task: str) -> None:
        """Builds the scene, 2 to 3 s. Raises LiberoMissingError without the benchmark or its meshes."""
        paths, envs = import_libero()
        import mujoco

        self._mujoco = mujoco
        self.suite, self.task = suite, task
        self._initial_states_file = paths.initial_states(suite, task)
        self._initial_states: np.ndarray | None = None
        with quiet():
            self._control = envs.env_wrapper.ControlEnv(
                bddl_file_name=str(paths.task_file(suite, task)),
                use_camera_obs=False,
                has_offscreen_renderer=False,
                hard_reset=False,
                control_freq=CONTROL_HZ,
                ignore_done=True,
            )
        self.problem: Any = self._control.env
        self.model = self.problem.sim.model._model
        self.data = self.problem.sim.data._data
        self.robot = self.problem.robots[0]
        self._current = _Current(self.problem.sim)
        self._as_built = {f.root_body: self._pose_in_file(f.root_body) for f in self.problem.fixtures_dict.values()}
        self._substeps = round(1 / (CONTROL_HZ * self.model.opt.timestep))
        self._site = self.model.site("gripper0_grip_site").id
        self._fingers = [self.model.joint(f"gripper0_finger_joint{i}").qposadr[0] for i in (1, 2)]
        self.base = np.array(self.data.body("robot0_base").xpos)
        x, y, z = self.problem.workspace_offset
        self.origin = np.array([x, y, 0.0 if self.problem.workspace_name == "floor" else z])

    def reset(self, episode: int, training: bool) -> None:
        """Starts an episode; its state is a function of the task, `episode` and `training` alone.

        Otherwise than for training, it begins in one of the benchmark's stored states, number `episode` modulo their
        number. Raises InitialStateError when nothing can be placed.
        """
        split = "train" if training else "test"
        rng = stream(0, "libero", self.suite, self.task, split, episode)
        with _global_stream(rng), quiet():
            self._reset_problem()
        self.robot.gripper.current_action = np.zeros(2)
        if training:
            joints = self.robot.init_qpos + rng.normal(0.0, _JOINT_NOISE, 7)
            self.data.qpos[self.robot._ref_joint_pos_indexes] = joints
            self._mujoco.mj_forward(self.model, self.data)
            self.robot.controller.update(force=True)
            self.robot.controller.reset_goal()
        else:  # the controller keeps its goal of before, as in the benchmark's own set_init_state
            states = self.initial_states
            self._control.set_state(states[episode % len(states)])
            self._mujoco.mj_forward(self.model, self.data)
        self.problem._post_process()
        for _ in range(SETTLE_STEPS):
            self.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]))

    def _pose_in_file(self, body: str) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "4"]]:
        """Position and quaternion of a body in the scene's file, before anything is placed."""
        element = self.problem.model.root.find(f".//body[@name='{body}']")
        pos, quat = element.get("pos", "0 0 0"), element.get("quat", "1 0 0 0")
        return np.array(pos.split(), float), np.array(quat.split(), float)

    def _reset_problem(self) -> None:
        """Puts fixtures where the file has them, and lets the benchmark place everything.

        Its samplers take where a drawer or burner is for its place within the fixture, which is right only before the
        fixture has been placed; a soft reset leaves it where it was.
        """
        from robosuite.utils.errors import RandomizationError

        for _ in range(_TRIES):
            for name, (pos, quat) in self._as_built.items():
                body = self.model.body(name).id
                self.model.body_pos[body], self.model.body_quat[body] = pos, quat
            try:
                self.problem.reset()
                return
            except RandomizationError:  # the samplers found no place: they go on from their stream
                continue
        raise InitialStateError(f"the benchmark's samplers found no placement for '{self.task}' in {_TRIES} tries")

    @property
    def initial_states(self) -> Float[np.ndarray, "n state"]:
        """The benchmark's stored states of this task."""
        if self._initial_states is None:
            self._initial_states = load_initial_states(self._initial_states_file)
        return self._initial_states

    def step(self, action: Float[np.ndarray, "7"]) -> None:
        """One control step of 50 ms; `action` in [-1, 1] as OSC_POSE takes it."""
        controller = self.robot.controller
        controller.sim = self._current
        for substep in range(self._substeps):
            self._mujoco.mj_step1(self.model, self.data)
            self.robot.control(action, policy_step=substep == 0)
            self._mujoco.mj_step2(self.model, self.data)
        controller.sim = self.problem.sim
        self._mujoco.mj_kinematics(self.model, self.data)
        self.problem._post_process()

    def success(self) -> bool:
        """The benchmark's verdict of this moment."""
        return bool(self.problem._check_success())

    @property
    def goal(self) -> list[list[str]]:
        """The predicates that have to hold, e.g. [["in", "milk_1", "basket_1_contain_region"]]."""
        goal: list[list[str]] = self.problem.parsed_problem["goal_state"]
        return goal

    @property
    def hand(self) -> Float[np.ndarray, "3"]:
        """Position between the finger tips."""
        return np.array(self.data.site_xpos[self._site])

    @property
    def hand_rotation(self) -> Float[np.ndarray, "3 3"]:
        """Orientation of the hand: the fingers close along its x axis, z points out of the hand."""
        return np.array(self.data.site_xmat[self._site]).reshape(3, 3)

    @property
    def opening(self) -> float:
        """Distance between the fingers [m], 0 to 0.08."""
        first, second = self._fingers
        return float(self.data.qpos[first] - self.data.qpos[second])

    @property
    def things(self) -> list[str]:
        """Names of the movable objects and fixtures that have a body."""
        return list(self.problem.obj_body_id)

    def thing(self, name: str) -> Float[np.ndarray, "3"]:
        """Position of an object or fixture."""
        return np.array(self.data.xpos[self.problem.obj_body_id[name]])

    def proprioception(self) -> Float[np.ndarray, "8"]:
        """Hand position from the workspace's origin [m], orientation (w, x, y, z; the largest > 0), opening [m]."""
        quat = np.empty(4)
        self._mujoco.mju_mat2Quat(quat, self.data.site_xmat[self._site])
        leading = quat[np.argmax(np.abs(quat))]
        return np.array([*(self.hand - self.origin), *(quat * np.sign(leading)), self.opening], np.float32)

    def close(self) -> None:
        """Frees the simulation."""
        self._control.close()
