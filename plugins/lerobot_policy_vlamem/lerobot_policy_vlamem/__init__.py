"""`--policy.type=vlamem`: a frozen policy with memory, for lerobot-eval and lerobot-rollout."""

from lerobot_policy_vlamem.configuration_vlamem import VlamemConfig
from lerobot_policy_vlamem.modeling_vlamem import VlamemPolicy
from lerobot_policy_vlamem.processor_vlamem import make_vlamem_pre_post_processors

__all__ = ["VlamemConfig", "VlamemPolicy", "make_vlamem_pre_post_processors"]
