"""Options of `vlamem bench libero`; a smoke test is cut down here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

Part = Literal["skills", "harm", "success"]
STORED_STATES = 50
"""Initial states that the benchmark stores for a task."""


@dataclass(frozen=True)
class LiberoBench:
    """Options of `vlamem bench libero`. Single tasks are written as SUITE/TASK."""

    preset: Literal["full", "smoke"]
    """smoke: a minute or two, one task and an episode or two of each arm, for checks alone; it replaces sizes below."""
    policy: str
    """tiny-libero (shipped) or a .safetensors file."""
    parts: tuple[Part, ...]
    """skills: the policy alone. harm: AURA-Mem and always-write beside it. success: a success memory over trials."""
    suites: tuple[str, ...]
    """LIBERO suites whose tasks are all played (skills)."""
    tasks: tuple[str, ...]
    """Tasks of the suites to play instead of all of them (skills); all when none is given."""
    states: int
    """Stored initial states of each task, from the first on (skills)."""
    experts: Path
    """Twin of the page of 'vlamem bench libero-experts', where the covered tasks are read (skills)."""
    harm_tasks: tuple[str, ...]
    """Tasks that are played with a recurrent memory (harm)."""
    harm_states: int
    """Stored initial states of each of them, from the first on (harm)."""
    gate: Path | None
    """Weights file of 'vlamem train-gate' for AURA-Mem; trained on the features when not given (harm)."""
    features: tuple[Path, ...]
    """Features of the policy on LIBERO, to train gate and always-write on; without them, always-write has the gate's
    memory (harm)."""
    updates: int
    """Training updates of each of the two (harm)."""
    success_tasks: tuple[str, ...]
    """Jobs of the success memory, best where the policy alone succeeds in 30 to 80 % (success)."""
    trials: int
    """Consecutive trials of each arm (success)."""
    success_states: int
    """Stored initial states of a job; trials go through them again and again in drawn orders (success)."""
    prepare_episodes: int
    """Episodes of the policy alone, from the training split, for threshold and critic of each job (success)."""
    verify: Literal["predicate", "critic"]
    """Who decides what is stored: the benchmark's verdict, or the learned critic (success)."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""
    workers: int
    """Processes."""
    out: Path
    """Run folder; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    engine: str | None = None
    """What plays the episodes, as in 'vlamem rollout': processes, inline, or ray for a cluster."""

    def sized(self) -> Self:
        """These options with the sizes of their preset; a smoke test has a folder of its own below `out`.

        It trains nothing: without a gate it leaves part harm out.
        """
        if self.preset == "full":
            return self
        folder = self.out / "smoke"
        task = "pick_up_the_milk_and_place_it_in_the_basket"
        one = f"libero_object/{task}"
        return replace(
            self,
            parts=tuple(p for p in self.parts if p != "harm" or self.gate is not None),
            suites=("libero_object",),
            tasks=(one,),
            states=2,
            harm_tasks=(one,),
            harm_states=1,
            features=(),
            success_tasks=(one,),
            trials=2,
            success_states=2,
            prepare_episodes=1,
            workers=1,
            out=folder,
            results=folder if self.results == Path("docs/results") else self.results,  # a smoke test is no result
        )
