"""What a frozen policy does alone on the tabletop suite; writes docs/results/skills.md and skills.json, resumable.

Example: vlamem bench skills --episodes 50 --workers 2
"""

import shlex

from vlamem.scripts.bars import play_with_bar
from vlamem.scripts.config import load_config
from vlamem.sim.bench.skills.options import SkillsBench


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    options = load_config(SkillsBench, "bench skills", arguments, __doc__ or "")
    from vlamem.sim.bench.skills.run import run

    command = shlex.join(["vlamem", "bench", "skills", *arguments])
    return play_with_bar("bench skills", lambda begin, progress: run(options, command, begin, progress))
