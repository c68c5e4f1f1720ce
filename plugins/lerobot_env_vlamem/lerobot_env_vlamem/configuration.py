"""Options of `--env.type=vlamem_tabletop`."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig

from lerobot_env_vlamem.environment import TabletopForLeRobot
from vlamem.sim.suites.registry import select_tasks
from vlamem.sim.suites.tabletop import SUITE

CAMERAS = ("agentview", "wrist")


@EnvConfig.register_subclass("vlamem_tabletop")
@dataclass
class VlamemTabletopConfig(EnvConfig):
    """Tasks of the tabletop suite; episode i of lerobot-eval is the initial state `seed` + i."""

    task: str | None = "touch"
    """Tasks with commas between them: names, skills, memory, oracle or all."""
    fps: int = 20
    size: int = 84
    """Height and width of camera images in pixels."""
    render: str = "fast"
    """Render profile, fast or faithful."""
    split: str = "test"
    """Initial states: test, train or novel."""
    wording: str = "training"
    """Paraphrases of the instruction: training or held_out."""
    max_steps: int | None = None
    """Control steps of an episode; the task's own when not given."""
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.features:
            return
        self.features = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
        self.features_map = {"action": "action"}
        self.features["agent_pos"] = PolicyFeature(FeatureType.STATE, (8,))
        self.features_map["agent_pos"] = "observation.state"
        for camera in CAMERAS:
            self.features[f"pixels/{camera}"] = PolicyFeature(FeatureType.VISUAL, (self.size, self.size, 3))
            self.features_map[f"pixels/{camera}"] = f"observation.images.{camera}"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Options of one environment."""
        kept = ("size", "render", "split", "wording", "max_steps")
        return {name: getattr(self, name) for name in kept}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gymnasium.vector.VectorEnv]]:
        """One vectorised environment a task; raises SuiteError for an unknown task."""
        names = select_tasks(SUITE, [name.strip() for name in (self.task or "").split(",")])
        found: dict[int, gymnasium.vector.VectorEnv] = {}
        for number, name in enumerate(names):
            make = partial(TabletopForLeRobot, name, **self.gym_kwargs)
            mode = gymnasium.vector.AutoresetMode.SAME_STEP
            if use_async_envs and n_envs > 1:
                found[number] = gymnasium.vector.AsyncVectorEnv(
                    [make] * n_envs, context="forkserver", autoreset_mode=mode
                )
            else:
                found[number] = gymnasium.vector.SyncVectorEnv([make] * n_envs, autoreset_mode=mode)
        return {"tabletop": found}
