"""How much of the synthetic benchmark is run."""

from dataclasses import dataclass

from vlamem.sim.bench.synthetic.arms import ARMS, FAMILIES


@dataclass(frozen=True)
class Preset:
    """How much is run.

    Attributes:
        seeds: training runs an arm.
        updates: of each run.
        rows: streams a batch and a seed.
        ticks: of a training stream.
        scored_rows: streams a setting and a seed.
        families: of FAMILIES.
        arms: names of ARMS.
        sweep: learning rates tried for each arm on each family, one run of `sweep_updates` each, side by side; the
            lowest error is kept. As many as there are seeds share the compiled update with the runs proper.
        sweep_updates: updates of a run of the sweep.
    """

    seeds: int
    updates: int
    rows: int = 8
    ticks: int = 256
    scored_rows: int = 16
    families: tuple[str, ...] = FAMILIES
    arms: tuple[str, ...] = tuple(arm.name for arm in ARMS)
    sweep: tuple[float, ...] = ()
    sweep_updates: int = 100


MAIN = ("learned", "oracle", "always", "linear", "lru", "fifo", "kv_window", "gru", "random", "periodic")
RATES = (0.002, 0.005, 0.01, 0.02, 0.05)
PRESETS = {
    "full": Preset(seeds=5, updates=1000, rows=4, sweep=RATES),
    "quick": Preset(seeds=2, updates=1000, rows=4, families=("events",), arms=MAIN),
    "smoke": Preset(
        seeds=2, updates=8, rows=4, ticks=32, scored_rows=4, families=("events",), arms=("learned", "fifo", "random")
    ),
}
