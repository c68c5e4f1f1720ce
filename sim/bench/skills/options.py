"""Options of `vlamem bench skills`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SkillsBench:
    """Options of `vlamem bench skills`."""

    policy: str
    """tiny (shipped) or a .safetensors file."""
    tasks: tuple[str, ...]
    """Tasks of the page: names, skills, memory, oracle, all."""
    episodes: int
    """Episodes per task and arm."""
    expert_episodes: int
    """Episodes per task of the scripted experts."""
    probe_episodes: int
    """Episodes per task for the probe."""
    out: Path
    """Run folders of the arms; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    workers: int
    """Processes."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""
    engine: str | None = None
    """What plays the episodes, as in 'vlamem rollout': processes, inline, or ray for a cluster."""
