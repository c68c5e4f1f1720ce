"""A scene of the benchmark: its own environment, stepped and drawn on demand, with its privileged state in numpy."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vlamem.sim.suites.mikasa.catalogue import MikasaTask
from vlamem.sim.suites.mikasa.conventions import CAMERAS, CONTROL_MODE, benchmark_action, proprioception
from vlamem.sim.suites.mikasa.meshes import simplify_camera
from vlamem.sim.suites.mikasa.package import import_environments, quiet
from vlamem.sim.suites.mikasa.verdicts import Phase
from vlamem.sim.suites.mikasa.vulkan import settle
from vlamem.sim.suites.protocol import RenderProfile

CONTROL_HZ = 20.0
BASE = np.array([-0.615, 0.0, 0.0])
"""The robot's base from the centre of the table's surface [m]."""
_STILL = 0.2
"""Joint speed below which the benchmark takes the robot to be at rest [rad/s]."""


class Simulation:
    """One task's scene.

    Physics, initial states and verdict are the benchmark's. It is made without observations: nothing is drawn until
    `images` asks. Where the benchmark's wrapper holds the robot still until the choice, the same wrapper does so here.
    """

    def __init__(self, task: MikasaTask, image_size: int, profile: RenderProfile) -> None:
        """Raises MikasaMissingError without the benchmark or a Vulkan driver that draws."""
        self.task = task
        self.vulkan = settle()
        gymnasium = import_environments()
        with quiet():
            env = gymnasium.make(
                task.name,
                num_envs=1,
                obs_mode="none",
                control_mode=CONTROL_MODE,
                render_mode="all",
                reward_mode="normalized_dense",
                sim_backend="physx_cpu",
                render_backend="cpu" if self.vulkan.software else "gpu",
                sensor_configs={"width": image_size, "height": image_size},
            )
            if task.frozen:
                from mikasa_robo_suite.vla.utils.wrappers import CurriculumPhaseNoopActionWrapper

                env = CurriculumPhaseNoopActionWrapper(env)
        self._env: Any = env
        self.scene: Any = env.unwrapped
        self.info: dict[str, Any] = {}
        self._profile: RenderProfile = profile
        self._drawn = False
        self._fine = True

    def reset(self, seed: int) -> None:
        """The benchmark's initial state of a seed."""
        with quiet():
            _, self.info = self._env.reset(seed=seed)
        self._drawn = False

    def step(self, action: Float[np.ndarray, "7"]) -> None:
        """One control step with an action of this project in [-1, 1]."""
        with quiet():
            *_, self.info = self._env.step(benchmark_action(action))
        self._drawn = False

    @property
    def success(self) -> bool:
        """The benchmark's success of this moment."""
        return bool(self.info["success"][0])

    @property
    def sentence(self) -> str:
        """The benchmark's instruction."""
        said = self.info["language_instruction"]
        return str(said if isinstance(said, str) else said[0])

    @property
    def elapsed(self) -> int:
        """Control steps since the reset."""
        return int(self.scene.elapsed_steps[0])

    @property
    def cue_ends(self) -> int:
        """The control step at which the cue is gone; 0 where the task has none."""
        return int(self.scene.cue_steps_per_env[0]) if hasattr(self.scene, "cue_steps_per_env") else 0

    @property
    def choice_begins(self) -> int:
        """The control step at which everything can be chosen from; 0 where the task has no cue."""
        gap = int(self.scene.empty_steps_per_env[0]) if hasattr(self.scene, "empty_steps_per_env") else 0
        return self.cue_ends + gap

    @property
    def phase(self) -> Phase:
        """What the task shows now."""
        if self.elapsed >= self.choice_begins:
            return "choice"
        return "gap" if self.elapsed >= self.cue_ends else "cue"

    @property
    def hand(self) -> Float[np.ndarray, "3"]:
        """Position between the finger tips from the centre of the table's surface [m]."""
        return _vector(self.scene.agent.tcp.pose.p)

    @property
    def hand_quaternion(self) -> Float[np.ndarray, "4"]:
        """Orientation of the hand, w x y z."""
        return _vector(self.scene.agent.tcp.pose.q)

    @property
    def still(self) -> bool:
        """Whether the benchmark takes the robot to be at rest."""
        return bool(self.scene.agent.is_static(_STILL)[0])

    @property
    def reach(self) -> float:
        """Distance from hand to object within which the benchmark counts a touch [m]."""
        return float(self.scene.GOAL_THRESH)

    def objects(self) -> dict[int, Float[np.ndarray, "3"]]:
        """Where what can be touched is now; what is hidden lies far above."""
        actors = self.scene.cubes if hasattr(self.scene, "cubes") else self.scene.shape_actors
        return {key: _vector(actor.pose.p) for key, actor in actors.items()}

    def places(self) -> dict[int, Float[np.ndarray, "3"]]:
        """Where each object will be when it can be touched."""
        scene = self.scene
        found = scene._manip_raw_poses if hasattr(scene, "_manip_raw_poses") else scene.initial_poses
        return {key: _vector(pose)[:3] for key, pose in found.items()}

    def answer(self) -> tuple[int, ...]:
        """The objects to touch, in the order in which they were shown."""
        for name in ("imposter_key", "true_color_indices", "true_shape_indices"):
            if hasattr(self.scene, name):
                return tuple(int(key) for key in np.atleast_1d(_vector(getattr(self.scene, name))))
        raise TypeError(f"task '{self.task.name}' has no object to touch")

    def proprioception(self) -> Float[np.ndarray, "8"]:
        """See conventions."""
        fingers = _vector(self.scene.agent.robot.get_qpos())[-2:]
        return proprioception(_vector(self.scene.agent.tcp.pose.raw_pose), fingers)

    def images(self) -> dict[str, UInt8[np.ndarray, "S S 3"]]:
        """What both cameras see now."""
        if self._fine and self._profile == "fast":
            simplify_camera(self.scene)
            self._fine = False
        if not self._drawn:
            for hidden in self.scene._hidden_objects:  # such as the place that TakeItBack asks to remember
                hidden.hide_visual()
            self.scene.scene.update_render(update_sensors=True, update_human_render_cameras=False)
            self._drawn = True
        found = {}
        for name in CAMERAS:
            sensor = self.scene.scene.sensors[name]
            sensor.capture()
            seen = sensor.get_obs(rgb=True, depth=False, segmentation=False, position=False)["rgb"]
            found[name] = np.ascontiguousarray(seen[0].cpu().numpy())
        return found

    def close(self) -> None:
        """Frees the scene."""
        with quiet():
            self._env.close()


def _vector(tensor: Any) -> Float[np.ndarray, "N"]:
    """The only row of a batched tensor."""
    array = np.asarray(tensor.cpu().numpy() if hasattr(tensor, "cpu") else tensor, np.float64)
    return array[0] if array.ndim > 1 or array.size == 1 else array
