"""A LIBERO task as a gymnasium environment, with the conventions of the other suites."""

from typing import Any, Literal

import gymnasium
import numpy as np
from jaxtyping import Float

from vlamem.core.spec import OSC_POSE, ActionSpec
from vlamem.sim.suites.libero.experts import Expert, expert_for
from vlamem.sim.suites.libero.render import CAMERAS, Cameras
from vlamem.sim.suites.libero.simulation import CONTROL_HZ, Simulation
from vlamem.sim.suites.parameters import reset_options
from vlamem.sim.suites.protocol import RenderProfile, TaskInfo
from vlamem.sim.suites.spaces import action_space, observation_space

Split = Literal["test", "train"]
_MOST_EPISODES = 1_000_000


class LiberoEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One episode at a time of one task.

    Observation: `agentview` and `wrist`, uint8 [S, S, 3], upright; `proprioception`, float32 [8] (hand position from
    the centre of the table's or floor's surface [m], orientation w x y z, gripper opening [m]); `instruction`, the
    benchmark's sentence. Action: [7] in [-1, 1], see OSC_POSE.

    `reset(options={"episode": i, "split": ...})`: "test" begins in the benchmark's stored state i modulo their number
    (50), "train" in a state drawn as the benchmark draws its own. Either is a function of the task, the split and the
    episode alone. Ten control steps without motion let things settle; they are not counted. Success is the
    benchmark's own `_check_success`, after every step.

    Args:
        suite: e.g. "libero_object".
        info: the task.
        image_size: S [pixels].
        render: "fast" (no shadows, reflections or multisampling, fine meshes drawn coarsely) or "faithful".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  # gymnasium declares it
    action_spec: ActionSpec = OSC_POSE
    control_hz: float = CONTROL_HZ
    cameras: tuple[str, ...] = tuple(CAMERAS)

    def __init__(self, suite: str, info: TaskInfo, *, image_size: int = 84, render: RenderProfile = "fast") -> None:
        """Builds the scene. Raises ValueError for a size or profile that does not exist, LiberoMissingError without
        the benchmark or its meshes.
        """
        if not 16 <= image_size <= 480:
            raise ValueError(f"image_size {image_size} is outside 16 to 480 pixels")
        if render not in ("fast", "faithful"):
            raise ValueError(f"render profile {render!r} is unknown: choose 'fast' or 'faithful'")
        self.suite, self.info, self.image_size, self.profile = suite, info, image_size, render
        self.instruction = info.instructions[0]
        self.render_mode = "rgb_array"
        self.render_on_step = True
        self.episode, self.now = -1, 0
        self.status: Literal["running", "success", "failure"] = "running"
        self.simulation: Simulation = Simulation(suite, info.name)
        self._cameras: Cameras | None = None
        self._expert: Expert | None = None
        self._closed = False
        self.observation_space, self.action_space = observation_space(CAMERAS, image_size), action_space()

    def cue(self) -> None:
        """Nothing is hidden in LIBERO."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; raises ValueError for an unknown option, split or wording."""
        super().reset(seed=seed)
        episode, split, wording = reset_options(options)
        if split not in ("test", "train"):
            raise ValueError(f"split {split!r}: LIBERO has 'test' (its stored initial states) and 'train'")
        if wording != "training":
            raise ValueError(f"wording {wording!r}: LIBERO has one sentence a task, use 'training'")
        if episode is None:
            episode = int(self.np_random.integers(_MOST_EPISODES))
        if not 0 <= episode < _MOST_EPISODES:
            raise ValueError(f"episode {episode} is outside 0 to {_MOST_EPISODES - 1}")
        self._open().reset(episode, split == "train")
        self.episode, self.now, self.status, self._expert = episode, 0, "running", None
        return self._observation(self.render_on_step), self._info()

    def step(self, action: Float[np.ndarray, "7"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of 50 ms. Raises ValueError for an action of another size or one that is not finite."""
        command = np.asarray(action, np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise ValueError(f"action {action!r} must be 7 finite numbers in [-1, 1] (translation, rotation, gripper)")
        simulation = self._open()
        simulation.step(np.clip(command, -1.0, 1.0))
        self.now += 1
        timed_out = False
        if self.status == "running" and simulation.success():
            self.status = "success"
        elif self.status == "running" and self.now >= self.info.max_steps:
            self.status, timed_out = "failure", True
        success = self.status == "success"
        return self._observation(self.render_on_step), float(success), success, timed_out, self._info()

    def observe(self) -> dict[str, Any]:
        """The whole observation of this moment, images included."""
        return self._observation(True)

    @property
    def expert(self) -> Expert:
        """The scripted expert of this episode. Raises NoExpertError for a task that it cannot do."""
        if self._expert is None:
            self._expert = expert_for(self._open())
        return self._expert

    def expert_action(self) -> Float[np.ndarray, "7"]:
        """What the scripted expert does now, with privileged state. Raises NoExpertError where there is none."""
        return self.expert.act().astype(np.float32)

    def render(self) -> Any:
        """The agentview image."""
        return self._camera("agentview")

    def close(self) -> None:
        """Frees the simulation and its renderer."""
        if not self._closed:
            self._closed = True
            if self._cameras is not None:
                self._cameras.close()
            self.simulation.close()
        super().close()

    def _open(self) -> Simulation:
        if self._closed:
            raise RuntimeError("this environment is closed: make another")
        return self.simulation

    def _camera(self, name: str) -> Any:
        simulation = self._open()
        if self._cameras is None:
            self._cameras = Cameras(simulation.model, self.image_size, self.profile)
        return self._cameras(simulation.data, name)

    def _observation(self, images: bool) -> dict[str, Any]:
        return {
            **({name: self._camera(name) for name in CAMERAS} if images else {}),
            "proprioception": self._open().proprioception(),
            "instruction": self.instruction,
        }

    def _info(self) -> dict[str, Any]:
        return {"success": self.status == "success", "episode": self.episode, "steps": self.now}
