"""`--policy.type=vlamem`: a frozen policy with memory, for lerobot-eval, lerobot-rollout and lerobot-record."""

from lerobot_policy_vlamem.configuration_vlamem import VlamemConfig
from lerobot_policy_vlamem.modeling_vlamem import VlamemPolicy
from lerobot_policy_vlamem.processor_vlamem import make_vlamem_pre_post_processors

__all__ = ["VlamemConfig", "VlamemPolicy", "make_vlamem_pre_post_processors"]
