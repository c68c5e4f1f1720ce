"""What a frozen policy does alone on the tabletop suite; writes docs/results/skills.md and skills.json, resumable.

Example: vlamem bench skills --episodes 50 --workers 2
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vlamem.scripts.config import complain, load_config


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench skills`."""

    policy: str
    """tiny (shipped) or a .safetensors file."""
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


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    from vlamem.sim.bench.skills import BenchStoppedError, SkillsBench, run
    from vlamem.sim.recording import EpisodeRecord

    args = load_config(Args, "bench_skills", arguments, __doc__ or "")
    command = shlex.join(["vlamem", "bench", "skills", *arguments])
    with tqdm(unit="episode") as bar:

        def begin(title: str, done: int, planned: int) -> None:
            bar.reset(planned)
            bar.set_description(title)
            bar.update(done)

        def progress(record: EpisodeRecord) -> None:
            bar.update()

        try:
            page, twin = run(SkillsBench(**vars(args), command=command), begin, progress)
        except BenchStoppedError as error:
            complain("bench skills", f"{error}; the same command continues")
            return 1
    print(f"{page}\n{twin}")
    return 0
