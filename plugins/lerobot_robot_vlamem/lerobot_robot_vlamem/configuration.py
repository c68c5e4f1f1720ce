"""Options of `--robot.type=vlamem_panda`."""

from dataclasses import dataclass

from lerobot.robots import RobotConfig


@RobotConfig.register_subclass("vlamem_panda")
@dataclass(kw_only=True)
class VlamemPandaConfig(RobotConfig):
    """A Panda on the tabletop of one task."""

    task: str = "touch"
    """Task of the tabletop suite that stands on the table."""
    episode: int = 0
    """First initial state."""
    episodes: int = 1
    """Initial states that are laid out one after another; then everything stands still. lerobot does not tell its
    policy where one ends: leave it at 1 for a policy that remembers, which would take its memory and its queued actions
    into the next."""
    size: int = 84
    """Height and width of camera images in pixels."""
    render: str = "fast"
    """Render profile, fast or faithful."""
    connect_s: float = 300.0
    """Seconds in which the first image must come; a busy machine takes long to build a scene."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 16 <= self.size <= 1024:
            raise ValueError(f"size {self.size} is outside 16 to 1024 pixels")
        if self.episode < 0:
            raise ValueError(f"episode {self.episode} is negative: initial states are counted from 0")
        if self.episodes < 1:
            raise ValueError(f"episodes is {self.episodes}: expected 1 or more")
