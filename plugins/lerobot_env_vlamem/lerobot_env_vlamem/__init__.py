"""`--env.type=vlamem_tabletop`: the tabletop suite for lerobot-eval."""

from lerobot_env_vlamem.configuration import VlamemTabletopConfig
from lerobot_env_vlamem.environment import TabletopForLeRobot

__all__ = ["TabletopForLeRobot", "VlamemTabletopConfig"]
