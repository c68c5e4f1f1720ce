"""What `vlamem bench throughput` may be told; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self


@dataclass(frozen=True)
class ThroughputBench:
    """Options of `vlamem bench throughput`."""

    preset: Literal["full", "smoke"]
    """smoke: one task, two episodes, for checks alone; it replaces tasks, episodes and batches."""
    policy: str
    """tiny (shipped), a .safetensors file, or a checkpoint of lerobot with ?actions=osc_pose&hz=20."""
    tasks: tuple[str, ...]
    """Tasks of the tabletop suite."""
    episodes: int
    """Episodes of each task."""
    batches: tuple[int, ...]
    """Environments side by side in lerobot-eval; the fastest setting is compared with."""
    workers: int
    """Processes of vlamem rollout."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    profile_episodes: int
    """Episodes of each task for where the time goes."""
    size: int
    """Height and width of camera images in pixels; must be the policy's."""
    out: Path
    """Run folders; emptied at the beginning, since a run that goes on says nothing of its speed."""
    results: Path
    """Folder of the page."""

    def sized(self) -> Self:
        """These options with the sizes of their preset."""
        if self.preset == "full":
            return self
        return replace(self, tasks=self.tasks[:1], episodes=2, batches=(1,), profile_episodes=1)
