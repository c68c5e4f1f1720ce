"""Arms of the memory panel: which memory, how it is injected, what is done to it, and on which tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlamem.sim.suites.registry import load_suite

TRAINED = ("always", "random", "periodic", "gru", "kv_window", "kv_growing")
"""Controls that are trained on the gate's features before they are played."""


@dataclass(frozen=True)
class PanelArm:
    """One run of the panel.

    Attributes:
        name: of its folder.
        title: in tables.
        memory: of `--memory`; "GATE" stands for the gate, aura:FILE, "CONTROL" for the trained control of this name.
        more: other options of the rollout.
        skills: whether the skills are played too.
        main: whether it is played with the larger n.
        axis: "" for the panel itself, else which axis it is a point of.
        value: on that axis.
    """

    name: str
    title: str
    memory: str
    more: Mapping[str, Any] = field(default_factory=dict)
    skills: bool = False
    main: bool = False
    axis: str = ""
    value: float = 0.0

    @property
    def base(self) -> str:
        """The arm of the panel that this one is a point of an axis of: its own name without one."""
        return self.name.partition("-")[0]


PANEL = (
    PanelArm("alone", "policy alone", "none", skills=True, main=True),
    PanelArm("aura", "AURA-Mem", "GATE", skills=True, main=True),
    PanelArm("oracle", "oracle instruction", "oracle", main=True),
    PanelArm("always", "always-write", "CONTROL", main=True),
    PanelArm("random", "random writes at AURA's budget", "CONTROL"),
    PanelArm("periodic", "periodic writes at AURA's budget", "CONTROL"),
    PanelArm("gru", "GRU", "CONTROL"),
    PanelArm("kv_window", "KV window of the same bytes", "CONTROL"),
    PanelArm("kv_growing", "growing KV cache", "CONTROL"),
    PanelArm("first", "first-observation oracle", "first-observation"),
    PanelArm("freeze", "frozen after the cue", "GATE", {"ablation": "freeze"}),
    PanelArm("noise", "memory replaced by noise", "GATE", {"ablation": "noise"}),
    PanelArm("other", "memory of another episode", "GATE", {"ablation": "swap"}),
    PanelArm("chunk", "chunk only", "GATE?inject=chunk"),
    PanelArm("both", "chunk and context", "GATE?inject=both"),
    PanelArm("proposal", "the proposal alone", "GATE?inject=chunk", {"ablation": "proposal_only"}),
    PanelArm("blend", "output blending", "GATE?inject=chunk", {"ablation": "blend"}),
    PanelArm("replan", "re-plan on a write", "GATE?replan_on_write=true"),
)
"""AURA-Mem injects its context; "context only" is the arm `aura`."""

DELAYS = (1, 2, 5, 20)
CHUNKS = (1, 4, 8, 16)
NOISES = (0.0, 8.0, 16.0)
STARTS = {"delay": "1 x delay", "chunk": "{} of a chunk", "noise": "no camera noise"}
"""The point of each axis that the panel has itself; a chunk's is the number that is executed."""
TRAINED_DELAY = 20
UNDELAYED = ("patrol",)
"""Tasks whose delay is not a wait before one query, left out of the axis of delays."""


def axes(baselines: Iterable[str], execute: int) -> tuple[PanelArm, ...]:
    """The arms of the extra axes, for AURA and `baselines`; the points that the panel has itself are left out."""
    made = []
    for name in ("aura", *baselines):
        arm = next(a for a in PANEL if a.name == name)

        def point(axis: str, value: float, says: str, of: PanelArm = arm, **more: Any) -> PanelArm:
            name = f"{of.name}-{axis}{value:g}"
            return PanelArm(name, f"{of.title}, {says}", of.memory, more, axis=axis, value=value)

        made += [
            point("delay", times, f"{times} x delay", parameters=(f"delay={TRAINED_DELAY * times}",))
            for times in DELAYS[1:]
        ]
        made += [
            point("chunk", length, f"{length} of a chunk", execute=length) for length in CHUNKS if length != execute
        ]
        made += [point("noise", noise, f"camera noise {noise:g}", camera_noise=noise) for noise in NOISES[1:]]
    return tuple(made)


def tasks_of(arm: PanelArm, chosen: Sequence[str]) -> tuple[str, ...]:
    """The tasks of `chosen` that an arm is played on."""
    kinds = {name: info.kind for name, info in load_suite("tabletop").tasks.items()}
    return tuple(
        t
        for t in chosen
        if (kinds[t] == "memory" or (arm.skills and kinds[t] == "skill"))
        and not (arm.axis == "delay" and t in UNDELAYED)
    )
