"""A task of MIKASA-Robo as the rollout uses it."""

from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import integer_seed
from vlamem.core.spec import ActionSpec
from vlamem.sim.suites.mikasa.catalogue import MikasaTask
from vlamem.sim.suites.mikasa.conventions import CAMERAS, DELTA_POSE
from vlamem.sim.suites.mikasa.experts import Actor, actor_for
from vlamem.sim.suites.mikasa.language import BUTTON, oracle_instruction
from vlamem.sim.suites.mikasa.simulation import CONTROL_HZ, Simulation
from vlamem.sim.suites.mikasa.verdicts import TouchJudge, nearest_touched
from vlamem.sim.suites.parameters import reset_options
from vlamem.sim.suites.protocol import Cue, RenderProfile

FIRST_SEED = 4_242_424_242
"""Seed of the benchmark's first episode; the next have the seeds that follow."""
SPLITS = ("test", "train")
_TRAIN_SEEDS = 2**31


def seed_of(task: str, split: str, episode: int) -> int:
    """The seed of an initial state: the benchmark's own for "test"; for "train" below 2**31, where none of those is."""
    if split == "test":
        return FIRST_SEED + episode
    return integer_seed(0, "mikasa", task, split, episode) % _TRAIN_SEEDS


class MikasaEnv:
    """One episode at a time of one task.

    Observation: `base_camera` and `hand_camera`, uint8 [S, S, 3], upright; `proprioception`, float32 [8], see
    conventions; `instruction`, the benchmark's. Action: [7] in [-1, 1], see DELTA_POSE.

    Success is the benchmark's `success_once`: an episode ends when its success holds for the first time, or after the
    task's horizon. `strict` in the info of a step is the strict verdict, None where a task has none (see verdicts).

    Args:
        task: which.
        image_size: S [pixels]; the benchmark's policies see 128.
        render: "fast" (the wrist camera's housing drawn coarsely) or "faithful".
        actor: who acts for `expert_action`, see experts.
    """

    action_spec: ActionSpec = DELTA_POSE
    control_hz: float = CONTROL_HZ
    cameras: tuple[str, ...] = CAMERAS

    def __init__(
        self, task: MikasaTask, *, image_size: int = 84, render: RenderProfile = "fast", actor: str = "expert"
    ) -> None:
        """Builds the scene. Raises ValueError for a size or profile that does not exist, MikasaMissingError."""
        if not 16 <= image_size <= 512:
            raise ValueError(f"image_size {image_size} is outside 16 to 512 pixels")
        if render not in ("fast", "faithful"):
            raise ValueError(f"render profile {render!r} is unknown: choose 'fast' or 'faithful'")
        self.task, self.actor = task, actor
        self.render_on_step = True
        self.simulation = Simulation(task, image_size, render)
        self._started = ("test", 0)
        self._acting: Actor | None = None
        self._judge: TouchJudge | None = None
        self._succeeded = False
        self._steps = 0

    @property
    def instruction(self) -> str:
        """The benchmark's sentence."""
        return self.simulation.sentence

    def reset(self, *, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode. Raises ValueError for an unknown option, split or wording."""
        episode, split, wording = reset_options(options)
        if episode is None:
            raise ValueError("no episode: expected options={'episode': 0} or another number")
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: MIKASA-Robo has 'test' (its own seeds) and 'train'")
        if wording != "training":
            raise ValueError(f"wording {wording!r}: MIKASA-Robo has one sentence a task, use 'training'")
        if episode < 0:
            raise ValueError(f"episode {episode} is below 0")
        self.simulation.reset(seed_of(self.task.name, split, episode))
        self._started, self._acting, self._steps, self._succeeded = (split, episode), None, 0, False
        self._judge = TouchJudge(self.simulation.answer()[0]) if self.task.judging == "touch" else None
        return self._observation(self.render_on_step), self._info()

    def step(self, action: Float[np.ndarray, "7"]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of 50 ms. Raises ValueError for an action of another size or one that is not finite."""
        command = np.asarray(action, np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise ValueError(f"action {action!r} must be 7 finite numbers in [-1, 1] (translation, rotation, gripper)")
        self.simulation.step(np.clip(command, -1.0, 1.0))
        self._steps += 1
        self._succeeded = self._succeeded or self.simulation.success
        if self._judge is not None:
            self._judge.see(self.simulation.phase, self._touched())
        truncated = not self._succeeded and self._steps >= self.task.max_steps
        return self._observation(self.render_on_step), float(self._succeeded), self._succeeded, truncated, self._info()

    def observe(self) -> dict[str, Any]:
        """The whole observation of this moment, images included."""
        return self._observation(True)

    def expert_action(self) -> Float[np.ndarray, "7"]:
        """What the actor does now, with privileged state. Raises NoExpertError where there is none."""
        if self._acting is None:
            self._acting = actor_for(self.simulation, self.actor, *self._started)
        return self._acting.act()

    def cue(self) -> Cue | None:
        """What the task hides: the object to touch next. None for tasks that have nothing to touch by name."""
        simulation, family = self.simulation, self.task.family
        if not self.task.judging:
            return None
        order = simulation.answer()
        now, ends = simulation.elapsed, simulation.cue_ends
        known = True
        if self.task.judging == "sequence":
            touched = simulation.scene.touched_cubes[0].tolist()
            left = [key for key in order if not touched[key]]
            answer = oracle_instruction(family, left[0]) if left else BUTTON
            if hasattr(simulation.scene, "cue_step_duration_per_env"):  # one after the other
                known = now >= ends - int(simulation.scene.cue_step_duration_per_env[0])
        else:
            answer = oracle_instruction(family, order[0])
        return Cue(known, now >= ends, answer, int(simulation.phase == "choice"))

    def close(self) -> None:
        """Frees the scene."""
        self.simulation.close()

    def _touched(self) -> int | None:
        hand = self.simulation.hand
        distances = {key: float(np.linalg.norm(p - hand)) for key, p in self.simulation.objects().items()}
        return nearest_touched(distances, self.simulation.reach, self.simulation.still)

    def _info(self) -> dict[str, Any]:
        strict: bool | None = None
        if self._judge is not None:
            strict = self._judge.verdict is True
        elif self.task.judging == "sequence":  # a wrong touch is final in the benchmark's own verdict
            strict = self._succeeded
        return {"success": self._succeeded, "strict": strict, "steps": self._steps, "episode": self._started[1]}

    def _observation(self, images: bool) -> dict[str, Any]:
        return {
            **(self.simulation.images() if images else {}),
            "proprioception": self.simulation.proprioception(),
            "instruction": self.instruction,
        }
