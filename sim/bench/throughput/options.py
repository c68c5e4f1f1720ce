"""Options of `vlamem bench throughput`; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

Part = Literal["tabletop", "libero", "families"]
PARTS: tuple[Part, ...] = ("tabletop", "libero", "families")
Reset = Literal["hard", "soft"]


@dataclass(frozen=True)
class ThroughputBench:
    """Options of `vlamem bench throughput`."""

    preset: Literal["full", "smoke"]
    """smoke: one task, an episode or two, for checks alone; it replaces tasks, episodes, batches, resets and rounds."""
    parts: tuple[Part, ...]
    """tabletop, libero: beside lerobot-eval. families: a memory's tick beside a plan. When none is named: tabletop,
    libero where the benchmark is installed, families where any are named."""
    policy: str
    """tiny (shipped), a .safetensors file, or a checkpoint of lerobot with ?actions=osc_pose&hz=20 (tabletop)."""
    tasks: tuple[str, ...]
    """Tasks of the tabletop suite."""
    episodes: int
    """Episodes of each task (tabletop)."""
    batches: tuple[int, ...]
    """Environments side by side in lerobot-eval; the fastest setting is compared with (tabletop)."""
    profile_episodes: int
    """Episodes of each task for where the time goes (tabletop)."""
    libero_policy: str
    """tiny-libero (shipped), or a .safetensors file (libero)."""
    libero_suite: str
    """Suite of the benchmark (libero)."""
    libero_tasks: tuple[str, ...]
    """Tasks of it (libero)."""
    libero_episodes: int
    """Episodes of each task: stored initial states, from the first on (libero)."""
    libero_batches: tuple[int, ...]
    """Environments side by side in lerobot-eval; the fastest setting is compared with (libero)."""
    libero_resets: tuple[Reset, ...]
    """lerobot-eval builds each episode's scene anew (hard, its default) or keeps it (soft) (libero)."""
    libero_profile_episodes: int
    """Episodes of the first task for where the time goes (libero)."""
    families: tuple[str, ...]
    """Frozen policies whose tick and plan are timed: checkpoints, files or package.module:FACTORY (families)."""
    rounds: int
    """Ticks and plans of each of them that are timed, after a warm-up (families)."""
    workers: int
    """Processes of vlamem rollout."""
    batch: int
    """Episodes side by side in each process of vlamem rollout; one at a time is played as well."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    size: int
    """Height and width of camera images in pixels; must be the policies'."""
    out: Path
    """Run folders; emptied at the beginning, since a run that goes on says nothing of its speed."""
    results: Path
    """Folder of the page."""

    def sized(self) -> Self:
        """These options with the sizes of their preset."""
        if self.preset == "full":
            return self
        return replace(
            self, tasks=self.tasks[:1], episodes=2, batches=(1,), profile_episodes=1,
            libero_tasks=self.libero_tasks[:1], libero_episodes=1, libero_batches=(1,), libero_resets=("soft",),
            libero_profile_episodes=1, rounds=5, batch=2,
        )  # fmt: skip
