"""What the deployment bench compares: local shifts, and ways of using a memory."""

from dataclasses import dataclass
from typing import Literal

from vlamem.memory.success.lifecycle import EVICTIONS
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.suites.tabletop.shift import Shift

Mode = Literal["none", "steer", "blend", "replay"]
Verification = Literal["critic", "predicate", "none"]


@dataclass(frozen=True)
class Condition:
    """A job, in the tabletop suite under a fixed local shift.

    Attributes:
        task: of the suite.
        shift: that holds from the first trial on; none in other suites than the tabletop's.
        suite: of the task.
    """

    task: str
    shift: Shift
    suite: str = "tabletop"

    @property
    def name(self) -> str:
        """As it was written, e.g. "place_bowl:camera=0.08"."""
        if self.suite != "tabletop":
            return f"{self.suite}/{self.task}"
        return f"{self.task}:{self.shift.kind}={self.shift.strength:g}"

    @property
    def folder(self) -> str:
        """Of its files, inside the run folder."""
        if self.suite != "tabletop":
            return f"{self.suite}-{self.task}"
        return f"{self.task}-{self.shift.kind}-{self.shift.strength:g}"

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """From TASK:SHIFT=STRENGTH, or SUITE/TASK for one without a shift. Raises ValueError for anything else."""
        suite, slash, rest = text.partition("/")
        if slash and suite and rest and ":" not in rest:
            return cls(rest, Shift(), suite)
        task, colon, shift = text.partition(":")
        if not (task and colon and "=" in shift):
            raise ValueError(f"condition {text!r} is not TASK:SHIFT=STRENGTH, e.g. place_bowl:camera=0.08")
        return cls(task, Shift.parse(shift))


def conditions_of(bench: DeploymentBench) -> tuple[Condition, ...]:
    """The bench's conditions, as they were written. Raises ValueError for one that is none."""
    return tuple(Condition.parse(text) for text in bench.conditions)


@dataclass(frozen=True)
class Arm:
    """One way of deploying the policy.

    Attributes:
        name: of its files.
        title: in tables.
        mode: "none" (the policy alone), "steer" its sampler, "blend" at its output, or "replay" the prior in its place.
        verification: who decides what is stored.
        neighbours: K, or None for the default.
        consistency: whether candidates must agree as trajectories.
        failures: whether failures are stored and looked at.
        most_segments: capacity.
        eviction: what goes when it is full.
        changes: whether the shift is exchanged for the next condition's half-way.
        prior: of the memory: elite chunks, or a residual of every command.
        explore: trials that a residual prior is learned in, or None for the default.
    """

    name: str
    title: str
    mode: Mode = "steer"
    verification: Verification = "critic"
    neighbours: int | None = None
    consistency: bool = True
    failures: bool = True
    most_segments: int | None = None
    eviction: str = "utility"
    changes: bool = False
    prior: Literal["elite", "residual"] = "elite"
    explore: int | None = None


MAIN = (
    Arm("policy", "policy alone", mode="none"),
    Arm("full", "success memory, steering"),
    Arm("replay", "direct replay of the prior", mode="replay"),
)


def ablations(capacities: tuple[int, ...]) -> tuple[Arm, ...]:
    """Arms that differ from `full` in one thing; played on one condition beside the main ones.

    At the smallest capacity above 0, which is the likeliest to be full, each way of evicting is played.
    """
    smallest = min((n for n in capacities if n), default=None)
    others = () if smallest is None else tuple(e for e in EVICTIONS if e != "utility")
    return (
        Arm("blend", "blending at the output", mode="blend"),
        Arm("top1", "nearest state alone", neighbours=1),
        Arm("soft", "soft top-K without consistency", consistency=False),
        Arm("unverified", "unverified writing", verification="none", failures=False),
        Arm("oracle", "verified by the simulator", verification="predicate"),
        Arm("no_failures", "no failure memory", failures=False),
        *(Arm(f"capacity_{n}", f"capacity {n}", most_segments=n) for n in capacities),
        *(
            Arm(f"{e}_{smallest}", f"capacity {smallest}, evicting by {e}", most_segments=smallest, eviction=e)
            for e in others
        ),
    )


CHANGING = (
    Arm("policy_change", "policy alone, shift changes half-way", mode="none", changes=True),
    Arm("full_change", "success memory, shift changes half-way", changes=True),
)
