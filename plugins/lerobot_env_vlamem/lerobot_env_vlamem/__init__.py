"""`--env.type=vlamem_tabletop`: the tabletop suite for lerobot-eval. lerobot's own `--env.type=libero` made ready."""

from lerobot_env_vlamem.configuration import VlamemTabletopConfig
from lerobot_env_vlamem.environment import TabletopForLeRobot
from lerobot_env_vlamem.libero import prepare_libero

__all__ = ["TabletopForLeRobot", "VlamemTabletopConfig", "prepare_libero"]

prepare_libero()
