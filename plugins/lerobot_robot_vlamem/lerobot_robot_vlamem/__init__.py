"""`--robot.type=vlamem_panda`: a Panda in MuJoCo that runs in real time, for lerobot-rollout and lerobot-record."""

from lerobot_robot_vlamem.configuration import VlamemPandaConfig
from lerobot_robot_vlamem.robot import VlamemPanda

__all__ = ["VlamemPanda", "VlamemPandaConfig"]
