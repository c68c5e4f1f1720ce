"""The physical scene: robosuite's Panda with OSC_POSE at 20 Hz over the table, and setters for what stands on it."""

import logging
import warnings
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

from vlamem.sim.robosuite_import import importing_robosuite
from vlamem.sim.suites.tabletop.elements import (
    BLOCK_HALF,
    COLOURS,
    DARK,
    N_BLOCKS,
    PARKED,
    SHAPES,
    TABLE_HEIGHT,
    TABLE_RGB,
    elements,
    glow_materials,
)

logging.getLogger("robosuite").setLevel(logging.ERROR)
logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
with warnings.catch_warnings(), importing_robosuite():
    warnings.simplefilter("ignore")  # robosuite 1.4.0 has escape sequences that Python 3.12 warns of
    import robosuite.macros
    from robosuite.controllers import load_controller_config
    from robosuite.environments.manipulation.single_arm_env import SingleArmEnv
    from robosuite.models.arenas import TableArena
    from robosuite.models.tasks import ManipulationTask

CONTROL_HZ = 20
TIMESTEP = 0.005
SUBSTEPS = round(1 / (CONTROL_HZ * TIMESTEP))
_GRIPPER_RAMP = 0.03
"""Added to robosuite's 0.01 a physics step, so that the fingers close in 0.25 s at this time step."""
_TABLE = np.array([0.0, 0.0, TABLE_HEIGHT])


class _PandaTable(SingleArmEnv):  # type: ignore[misc]  # robosuite has no types
    """robosuite's part: robot, controller and arena. Nothing renders and nothing is observed through it."""

    def __init__(self) -> None:
        robosuite.macros.SIMULATION_TIMESTEP = TIMESTEP
        super().__init__(
            robots="Panda",
            env_configuration="default",
            controller_configs=load_controller_config(default_controller="OSC_POSE"),
            mount_types="default",
            gripper_types="default",
            initialization_noise=None,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            render_camera=None,
            render_collision_mesh=False,
            render_visual_mesh=True,
            render_gpu_device_id=-1,
            control_freq=CONTROL_HZ,
            horizon=10**9,
            ignore_done=True,
            hard_reset=False,
            camera_names="agentview",
            camera_heights=84,
            camera_widths=84,
            camera_depths=False,
            camera_segmentations=None,
            renderer="mujoco",
            renderer_config=None,
        )

    def _load_model(self) -> None:
        super()._load_model()
        robot = self.robots[0].robot_model
        robot.set_base_xpos(robot.base_xpos_offset["table"](0.8))
        arena = TableArena(table_full_size=(0.8, 0.8, 0.05), table_friction=(0.6, 5e-3, 1e-4), table_offset=_TABLE)
        arena.set_origin([0, 0, 0])
        for material in glow_materials():
            arena.asset.append(material)
        for body in elements():
            arena.worldbody.append(body)
        self.model = ManipulationTask(mujoco_arena=arena, mujoco_robots=[robot], mujoco_objects=[])

    def reward(self, action: Any = None) -> float:
        return 0.0

    def _setup_observables(self) -> dict[str, Any]:
        return {}


def _draw_collision_meshes(model: mujoco.MjModel) -> None:
    """Draws the arm by its collision meshes: a hundredth of the faces, which is most of a software renderer's time."""
    for i in range(model.ngeom):
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_GEOM, i) or ""
        if not name.startswith(("robot0", "gripper0", "mount0")):
            continue
        if model.geom_group[i] == 0 and "pad" not in name:
            model.geom_group[i] = 1
            dark = "finger" in name or "hand" in name or "mount0" in name
            model.geom_rgba[i] = (0.32, 0.33, 0.36, 1) if dark else (0.88, 0.88, 0.9, 1)
            model.geom_matid[i] = -1
        else:
            model.geom_group[i] = 2


class _Current:
    """robosuite's simulation without its `forward`: mj_step1 has just brought everything up to date."""

    def __init__(self, sim: Any) -> None:
        self.model, self.data = sim.model, sim.data

    def forward(self) -> None:
        """Nothing to do."""


class Scene:
    """One simulated table. Positions go in and come out in the table frame [m]."""

    def __init__(self, detailed: bool = False) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._env = _PandaTable()
        self.model: mujoco.MjModel = self._env.sim.model._model
        self.data: mujoco.MjData = self._env.sim.data._data
        self.robot = self._env.robots[0]
        self._current = _Current(self._env.sim)
        if not detailed:
            _draw_collision_meshes(self.model)
        table = self.id("geom", "table_visual")
        self.model.geom_matid[table] = -1
        self.model.geom_rgba[table] = (*TABLE_RGB, 1.0)
        self._blank_body_pos = self.model.body_pos.copy()
        self._blank_rgba = self.model.geom_rgba.copy()
        self._blank_mat_rgba = self.model.mat_rgba.copy()
        self._geom_body = self.model.geom_bodyid
        self._gripper_geoms = {
            i for i in range(self.model.ngeom) if (self._name(mujoco.mjtObj.mjOBJ_GEOM, i)).startswith("gripper0")
        }
        self._site = self.id("site", "gripper0_grip_site")
        self._block_geoms = [[self.id("geom", f"block{i}_{s}") for s in SHAPES] for i in range(N_BLOCKS)]
        self._block_qpos = [self.model.jnt_qposadr[self.id("joint", f"block{i}_joint")] for i in range(N_BLOCKS)]
        self._block_qvel = [self.model.jnt_dofadr[self.id("joint", f"block{i}_joint")] for i in range(N_BLOCKS)]
        self._button_qpos = self.model.jnt_qposadr[self.id("joint", "button_slide")]
        self._finger_qpos = [self.model.jnt_qposadr[self.id("joint", f"gripper0_finger_joint{i}")] for i in (1, 2)]
        self._on_table = [False] * N_BLOCKS

    def _name(self, kind: int, index: int) -> str:
        return mujoco.mj_id2name(self.model, kind, index) or ""

    def id(self, kind: str, name: str) -> int:
        """MuJoCo id of a named body, geom, joint, site or camera."""
        index = mujoco.mj_name2id(self.model, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name)
        if index < 0:
            raise KeyError(f"the tabletop model has no {kind} named {name!r}")
        return int(index)

    def reset(self, rng: np.random.Generator) -> None:
        """Empty table, arm at home but for joint noise (0.02 rad) from `rng`; nothing of the last episode stays."""
        self.model.body_pos[:] = self._blank_body_pos
        self.model.geom_rgba[:] = self._blank_rgba
        self.model.mat_rgba[:] = self._blank_mat_rgba
        self._on_table = [False] * N_BLOCKS
        mujoco.mj_resetData(self.model, self.data)
        self._env._reset_internal()
        self._start = self.robot.init_qpos + rng.uniform(-0.02, 0.02, 7)
        self.park()
        self.robot.gripper.current_action = np.zeros(2)
        for i in range(N_BLOCKS):
            self._switch_block(i, None, None)
        self.set_light("lamp", None)
        self.set_light("go", None)

    def park(self) -> None:
        """Sets the arm to the joint positions that the episode began with, at rest; the fingers stay as they are."""
        self.robot.set_robot_joint_positions(self._start)
        self.data.qvel[self.robot._ref_joint_vel_indexes] = 0
        mujoco.mj_forward(self.model, self.data)
        controller = self.robot.controller
        controller.update(force=True)
        controller.update_initial_joints(self._start)
        controller.reset_goal()

    def _switch_block(self, i: int, colour: str | None, shape: str | None) -> None:
        for name, geom in zip(SHAPES, self._block_geoms[i], strict=True):
            on = name == shape
            self.model.geom_contype[geom] = self.model.geom_conaffinity[geom] = int(on)
            self.model.geom_rgba[geom] = (*COLOURS[colour], 1.0) if on and colour else (0, 0, 0, 0)

    def place_block(self, i: int, colour: str, shape: str, xy: Float[np.ndarray, "2"], yaw: float = 0.0) -> None:
        """Puts block `i` on the table."""
        self._switch_block(i, colour, shape)
        self._on_table[i] = True
        at = self._block_qpos[i]
        self.data.qpos[at : at + 3] = _TABLE + np.array([*xy, BLOCK_HALF + 0.0005])
        self.data.qpos[at + 3 : at + 7] = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        self.data.qvel[self._block_qvel[i] : self._block_qvel[i] + 6] = 0

    def remove_block(self, i: int) -> None:
        """Takes block `i` off the table, out of sight."""
        self._switch_block(i, None, None)
        self._on_table[i] = False

    def tint_block(self, i: int, rgb: tuple[float, float, float]) -> None:
        """Changes the drawn colour of block `i`."""
        for geom in self._block_geoms[i]:
            if self.model.geom_contype[geom]:
                self.model.geom_rgba[geom] = (*rgb, 1.0)

    def block(self, i: int) -> Float[np.ndarray, "3"]:
        """Position of block `i`."""
        at = self._block_qpos[i]
        return np.asarray(self.data.qpos[at : at + 3] - _TABLE)

    def move_body(self, name: str, position: Float[np.ndarray, "3"]) -> None:
        """Puts a pad, zone, bowl or button (fixed bodies), a cup or the pea (moved by script) somewhere."""
        body = self.id("body", name)
        mocap = self.model.body_mocapid[body]
        if mocap >= 0:
            self.data.mocap_pos[mocap] = _TABLE + position
        else:
            self.model.body_pos[body] = _TABLE + position

    def hide_body(self, name: str) -> None:
        """Takes a body out of sight."""
        self.move_body(name, PARKED - _TABLE)

    def tint(self, geom: str, rgb: tuple[float, float, float]) -> None:
        """Changes the drawn colour of a geom."""
        self.model.geom_rgba[self.id("geom", geom)] = (*rgb, 1.0)

    def set_light(self, name: str, rgb: tuple[float, float, float] | None) -> None:
        """Lights the lamp or the go signal; None is dark."""
        material = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_MATERIAL, f"{name}_glow")
        self.model.mat_rgba[material] = (*(rgb or DARK), 1.0)
        self.model.geom_rgba[self.id("geom", f"{name}_bulb")] = (*(rgb or DARK), 1.0)

    def step(self, action: Float[np.ndarray, "7"]) -> None:
        """One control step of 50 ms; `action` in [-1, 1] as OSC_POSE takes it."""
        for i in range(N_BLOCKS):
            if not self._on_table[i]:
                at = self._block_qpos[i]
                self.data.qpos[at : at + 3] = PARKED + np.array([0, 0.1 * i, 0])
                self.data.qvel[self._block_qvel[i] : self._block_qvel[i] + 6] = 0
        ramp = _GRIPPER_RAMP * np.sign(action[6]) * np.array([-1.0, 1.0])
        gripper = self.robot.gripper
        self.robot.controller.sim = self._current
        for substep in range(SUBSTEPS):
            mujoco.mj_step1(self.model, self.data)
            gripper.current_action = np.clip(gripper.current_action + ramp, -1.0, 1.0)
            self.robot.control(action, policy_step=substep == 0)
            mujoco.mj_step2(self.model, self.data)
        self.robot.controller.sim = self._env.sim

    def settle(self) -> None:
        """Brings derived quantities up to date after positions were set."""
        mujoco.mj_forward(self.model, self.data)

    @property
    def hand(self) -> Float[np.ndarray, "3"]:
        """Position between the finger tips."""
        return np.asarray(self.data.site_xpos[self._site] - _TABLE)

    @property
    def opening(self) -> float:
        """Distance between the fingers [m], 0 to 0.08."""
        first, second = self._finger_qpos
        return float(self.data.qpos[first] - self.data.qpos[second])

    @property
    def button_depth(self) -> float:
        """How far the button is pressed [m], 0 to 0.01."""
        return float(-self.data.qpos[self._button_qpos])

    def proprioception(self) -> Float[np.ndarray, "8"]:
        """Hand position [m], hand orientation (unit quaternion w, x, y, z, w >= 0), gripper opening [m]."""
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, self.data.site_xmat[self._site])
        leading = quat[np.argmax(np.abs(quat))]
        return np.array([*self.hand, *(quat * np.sign(leading)), self.opening], np.float32)

    def touched(self) -> set[str]:
        """Names of the bodies that the gripper is in contact with."""
        names = set()
        for i in range(self.data.ncon):
            a, b = self.data.contact.geom[i]
            if (a in self._gripper_geoms) != (b in self._gripper_geoms):
                other = b if a in self._gripper_geoms else a
                names.add(self._name(mujoco.mjtObj.mjOBJ_BODY, int(self._geom_body[other])))
        return names

    def close(self) -> None:
        """Frees the simulation."""
        self._env.close()
