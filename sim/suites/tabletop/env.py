"""A tabletop task as a gymnasium environment."""

from typing import Any, Literal

import gymnasium
import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import stream
from vlamem.core.spec import OSC_POSE, ActionSpec
from vlamem.sim.suites.parameters import reset_options
from vlamem.sim.suites.protocol import Cue
from vlamem.sim.suites.spaces import action_space, observation_space
from vlamem.sim.suites.tabletop.language import HELD_OUT, TEMPLATES
from vlamem.sim.suites.tabletop.render import CAMERAS, Profile
from vlamem.sim.suites.tabletop.scene import CONTROL_HZ
from vlamem.sim.suites.tabletop.stage import Stage, borrow, give_back
from vlamem.sim.suites.tabletop.task import Task

Split = Literal["test", "train", "novel"]
Wording = Literal["training", "held_out"]
_FIRST_EPISODE: dict[str, int] = {"test": 0, "train": 1_000_000, "novel": 2_000_000}
_MOST_EPISODES = 1_000_000


class TabletopEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One episode at a time of one task.

    Observation: `agentview` and `wrist`, uint8 [S, S, 3]; `proprioception`, float32 [8] (hand position [m],
    orientation w x y z, gripper opening [m]); `instruction`, a sentence. Action: [7] in [-1, 1], see OSC_POSE.

    `reset(options={"episode": i, "split": ..., "wording": ...})`: the initial state is a function of the task and
    the episode's number alone. Split "train" holds out one fifth of the (colour, place) combinations, "novel" has
    only those, "test" has all. Without `episode` one is drawn from `seed`.

    Args:
        task: an instance from vlamem.sim.suites.tabletop.tasks.
        oracle: the oracle variant, whose instruction contains the answer.
        image_size: S [pixels].
        render: "fast" (no shadows, reflections or multisampling, arm drawn by its collision meshes) or "faithful".
        guessing: replaces what the scripted expert knows of the answer by a random choice.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  # gymnasium declares it
    action_spec: ActionSpec = OSC_POSE
    control_hz: float = CONTROL_HZ
    cameras: tuple[str, ...] = tuple(CAMERAS)

    def __init__(
        self,
        task: Task,
        *,
        oracle: bool = False,
        image_size: int = 84,
        render: Profile = "fast",
        guessing: bool = False,
    ) -> None:
        if not 16 <= image_size <= 1024:
            raise ValueError(f"image_size {image_size} is outside 16 to 1024 pixels")
        if render not in ("fast", "faithful"):
            raise ValueError(f"render profile {render!r} is unknown: choose 'fast' or 'faithful'")
        self.task, self.oracle, self.image_size, self.profile = task, oracle, image_size, render
        self.guessing = guessing
        self.render_mode = "rgb_array"
        self.render_on_step = True
        self.episode = -1
        self._stage: Stage | None = borrow(render)
        self.scene = self._stage.scene
        self._paraphrase = 0
        self.observation_space, self.action_space = observation_space(CAMERAS, image_size), action_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; raises ValueError for an unknown option, split or wording."""
        super().reset(seed=seed)
        episode, split, wording = reset_options(options)
        if split not in _FIRST_EPISODE:
            raise ValueError(f"split {split!r} is unknown: choose one of {', '.join(_FIRST_EPISODE)}")
        if wording not in ("training", "held_out"):
            raise ValueError(f"wording {wording!r} is unknown: choose 'training' or 'held_out'")
        if episode is None:
            episode = int(self.np_random.integers(_MOST_EPISODES))
        if not 0 <= episode < _MOST_EPISODES:
            raise ValueError(f"episode {episode} is outside 0 to {_MOST_EPISODES - 1}")
        self.episode = _FIRST_EPISODE[split] + episode
        novel = {"test": None, "train": False, "novel": True}[split]
        self.task.reset(self.scene, stream(0, "layout", self.task.name, self.episode), novel)
        if self.guessing:
            self.task.guess(stream(0, "guess", self.task.name, self.episode))
        words = stream(0, "wording", self.task.name, self.episode)
        self._paraphrase = int(words.integers(1_000))
        if wording == "held_out":
            self._paraphrase = HELD_OUT
        return self._observation(), self._info()

    def step(self, action: Float[np.ndarray, "7"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of 50 ms. Raises ValueError for an action of another size or one that is not finite."""
        command = np.asarray(action, np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise ValueError(f"action {action!r} must be 7 finite numbers in [-1, 1] (translation, rotation, gripper)")
        self.scene.step(np.clip(command, -1.0, 1.0))
        self.task.tick(self.scene)
        success = self.task.status == "success"
        ended = self.task.status != "running"
        timed_out = ended and not success and self.task.now >= self.task.max_steps
        return self._observation(), float(success), ended and not timed_out, timed_out, self._info()

    @property
    def instruction(self) -> str:
        """The sentence of this moment."""
        goal = self.task.goal(self.oracle)
        if self._paraphrase == HELD_OUT:
            return goal.sentence(HELD_OUT)
        return goal.sentence(self._paraphrase % (len(TEMPLATES[goal.key]) - 1))

    def cue(self) -> Cue:
        """What the task hides at this moment; `answer` is None in a skill, whose sentence says all that is needed."""
        own, oracle = self.task.goal(False), self.task.goal(True)
        known = self.task.now >= self.task.cue_end
        answer = None if own == oracle else oracle.sentence(0)
        return Cue(known, self.task.cue_over, answer, int(self.task.go))

    def observe(self) -> dict[str, Any]:
        """The whole observation of this moment, images included."""
        return self._observation(images=True)

    def expert_action(self) -> Float[np.ndarray, "7"]:
        """What the scripted expert does now, with privileged state."""
        return self.task.act(self.scene).astype(np.float32)

    def render(self) -> Any:
        """The agentview image."""
        return self.picture("agentview")

    def close(self) -> None:
        """Gives the simulation and its renderer to the next environment of this process."""
        if self._stage is not None:
            give_back(self._stage)
            self._stage = None
        super().close()

    def picture(self, name: str) -> Any:
        """The image of one camera at this moment, uint8 [S, S, 3]. Raises RuntimeError once closed."""
        if self._stage is None:
            raise RuntimeError("this environment is closed: make another")
        return self._stage.cameras(self.image_size)(self.scene.data, name)

    def _observation(self, images: bool | None = None) -> dict[str, Any]:
        wanted = self.render_on_step if images is None else images
        return {
            **({name: self.picture(name) for name in CAMERAS} if wanted else {}),
            "proprioception": self.scene.proprioception(),
            "instruction": self.instruction,
        }

    def _info(self) -> dict[str, Any]:
        info = {"success": self.task.status == "success", "episode": self.episode, "steps": self.task.now}
        for name in ("queries", "correct", "presses"):
            if hasattr(self.task, name):
                info[name] = getattr(self.task, name)
        return info
