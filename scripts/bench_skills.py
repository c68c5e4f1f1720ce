"""What a frozen policy does alone on the tabletop suite; writes docs/results/skills.md and skills.json, resumable.

Example: vlamem bench skills --episodes 50 --workers 2
"""

import shlex

from tqdm import tqdm

from vlamem.scripts.config import complain, load_config
from vlamem.sim.bench.skills_options import SkillsBench


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    options = load_config(SkillsBench, "bench_skills", arguments, __doc__ or "")
    from vlamem.sim.bench.skills import BenchStoppedError, run
    from vlamem.sim.recording import EpisodeRecord

    command = shlex.join(["vlamem", "bench", "skills", *arguments])
    with tqdm(unit="episode") as bar:

        def begin(title: str, done: int, planned: int) -> None:
            bar.reset(planned)
            bar.set_description(title)
            bar.update(done)

        def progress(record: EpisodeRecord) -> None:
            bar.update()

        try:
            page, twin = run(options, command, begin, progress)
        except BenchStoppedError as error:
            complain("bench skills", f"{error}; the same command continues")
            return 1
    print(f"{page}\n{twin}")
    return 0
