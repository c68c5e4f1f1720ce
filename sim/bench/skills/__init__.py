"""What a frozen policy does alone on the tabletop suite."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.skills.options import SkillsBench

BENCH = Bench(
    name="skills",
    summary="what the frozen policy does alone on the tabletop suite",
    description="""\
What a frozen policy does alone on the tabletop suite; writes docs/results/skills.md and skills.json, resumable.

Example: vlamem bench skills --episodes 50 --workers 2""",
    options=SkillsBench,
    run="vlamem.sim.bench.skills.run:run",
)

__all__ = ["BENCH", "SkillsBench"]
