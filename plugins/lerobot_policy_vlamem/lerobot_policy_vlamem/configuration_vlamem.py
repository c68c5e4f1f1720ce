"""Options of `--policy.type=vlamem`."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

OBSERVATIONS = ("as_given", "libero")
"""Ways of reading an environment's observation."""
_RENAMED = {"aura": "aura:FILE", "success": "success:FILE", "way": "'aura?inject=context'"}
"""Options of version 0.1, and what is written now."""


@PreTrainedConfig.register_subclass("vlamem")
@dataclass
class VlamemConfig(PreTrainedConfig):
    """A frozen policy and what remembers for it."""

    inner: str = ""
    """The frozen policy: a folder or hub id of lerobot with options after a question mark, or tiny."""
    memory: str = "none"
    """none, or memories as KIND[:FILE][?option=value], separated by spaces: aura (the gate that comes with tiny),
    aura:FILE?inject=chunk, success:FILE."""
    aura: str | None = None
    """Of version 0.1; refused: see memory."""
    success: str | None = None
    """Of version 0.1; refused: see memory."""
    way: str | None = None
    """Of version 0.1; refused: see memory."""
    n_action_steps: int | None = None
    """Actions carried out of each chunk; the frozen policy's own number when not given."""
    observation: str = "as_given"
    """How the environment's observation is read: as_given; or libero, which gives what lerobot's LIBERO environment
    shows to a policy with this project's conventions (upright images of its size, proprioception in its own frame)."""
    rtc_config: RTCConfig | None = None
    """Real-time chunking of the frozen policy; set by lerobot-rollout."""
    n_obs_steps: int = 1
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=dict)

    @property
    def observation_delta_indices(self) -> None:
        """Nothing is trained here."""
        return None

    @property
    def action_delta_indices(self) -> None:
        """Nothing is trained here."""
        return None

    @property
    def reward_delta_indices(self) -> None:
        """Nothing is trained here."""
        return None

    def get_optimizer_preset(self) -> None:  # type: ignore[override]  # nothing is trained
        """Raises: the policy is frozen."""
        raise NotImplementedError("a vlamem policy is frozen; its memory is trained by 'vlamem train-gate'")

    def get_scheduler_preset(self) -> None:
        """No schedule: the policy is frozen."""
        return None

    def validate_features(self) -> None:
        """Raises ValueError without an inner policy, for an unknown reading of observations, and for options of 0.1."""
        for old, new in _RENAMED.items():
            if getattr(self, old) is not None:
                raise ValueError(f"option {old} is of version 0.1: write --policy.memory={new}")
        if self.observation not in OBSERVATIONS:
            raise ValueError(f"observation is {self.observation!r}: choose one of {', '.join(OBSERVATIONS)}")
        if not self.inner:
            raise ValueError("no frozen policy is given: add --policy.inner=FOLDER (a lerobot checkpoint), or tiny")
