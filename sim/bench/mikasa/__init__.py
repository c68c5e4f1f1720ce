"""MIKASA-Robo's verdict and the strict one, for scripted policies that know the answer, guess it, or need none."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.mikasa.options import MikasaBench

BENCH = Bench(
    name="mikasa",
    summary="MIKASA-Robo's verdict beside the strict one, for experts and for policies that remember nothing",
    description="""\
MIKASA-Robo's own verdict and the strict one for scripted policies: the expert, one that guesses, one that touches the
cue while it shows and one that touches everything in turn; writes docs/results/mikasa.md and mikasa.json. Needs
'make mikasa'. Resumable; nothing is rendered. The page has every run in --out, so that long ones can be added.

Example: vlamem bench mikasa --actors touch-cue --tasks RememberColor3-Long-VLA-v0 --episodes 50""",
    options=MikasaBench,
    run="vlamem.sim.bench.mikasa.run:run",
)

__all__ = ["BENCH", "MikasaBench"]
