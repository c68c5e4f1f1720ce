"""What a rollout is to do: its configuration, its episodes, and the record in its folder that lets it go on."""

import json
import shlex
import uuid
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vlamem.core.files import write_atomically
from vlamem.core.json_files import read_json_map
from vlamem.memory.registry import MemoryName
from vlamem.policies.memories import parse_memories
from vlamem.policies.registry import EXPERTS
from vlamem.sim.rollout.ablations import OF_THE_STATE, Ablation
from vlamem.sim.rollout.oracles import ORACLES
from vlamem.sim.suites.parameters import task_parameters

PLAN_VERSION = 1
_MAY_DIFFER = ("out", "workers", "engine", "video", "trace", "watchdog_s", "retry_errors")


class PlanError(ValueError):
    """A rollout that cannot be done as asked; the message names the value, what was expected and the mend."""


@dataclass(frozen=True)
class RolloutConfig:
    """One run: a policy over tasks of a suite."""

    suite: str
    """Suite of tasks: tabletop, libero_object and its four sisters, or one of your own as package.module:ATTRIBUTE."""
    tasks: tuple[str, ...]
    """Tasks by name, or skills, memory, oracle, all."""
    policy: str
    """tiny or tiny-libero (shipped), a .safetensors file, a LeRobot checkpoint (folder or hub id; its options:
    docs/lerobot.md), expert, random-choice, or package.module:FACTORY."""
    memory: tuple[str, ...]
    """none, or memories as KIND[:FILE][?option=value]: aura (the shipped gate), aura:FILE?inject=chunk,
    aura?gate=always, success:FILE (stores each verified episode; ?commit=false only asks it), oracle,
    first-observation; several are fused to one proposal."""
    episodes: int
    """Episodes of each task, from initial state 0 on; see --order and --states."""
    seed: int
    """Seed of the policy's noise."""
    out: Path
    """Run folder; a stopped run in it is continued."""
    workers: int
    """Processes; the results do not depend on it. 0: in this process, without a watchdog, for checks. A memory that
    learns from episodes is played by one."""
    video: int
    """Record the first so many episodes of each task as mp4."""
    split: Literal["test", "train", "novel"]
    """Initial states: test, train, or novel combinations that training leaves out."""
    wording: Literal["training", "held_out"]
    """Paraphrases of the instruction: those of training, or the one held out of it."""
    size: int
    """Height and width of camera images in pixels; must be the policy's."""
    render: Literal["fast", "faithful"]
    """Render profile."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    parameters: tuple[str, ...]
    """Task parameters as name=value, for tasks that have them."""
    watchdog_s: float
    """Seconds without a control step after which a worker is taken to hang and is replaced."""
    retry_errors: bool
    """When continuing, run episodes again that ended as errors."""
    ablation: Ablation = "none"
    """Acts on the memory from the end of the cue on (freeze, noise, or swap for another episode's content), or on where
    its chunk enters (blend into the policy's output, proposal_only in its place)."""
    camera_noise: float = 0.0
    """Standard deviation of noise on the images that the policy sees, in grey levels."""
    batch: int = 1
    """Episodes of a task that each worker plays side by side, in environments of their own: policy and memory take all
    of them in one forward pass."""
    engine: str | None = None
    """What plays the episodes: processes, inline (this process), ray (the cluster at RAY_ADDRESS, else a Ray of this
    machine: docs/scale.md), or one of your own as package.module:ENGINE; when not given, inline without workers and
    processes with them."""
    order: int = 0
    """Order of initial states: 0 goes through them as they are numbered, each other number is a permutation of its
    own, with noise of its own."""
    states: int | None = None
    """Initial states of a task; episodes go through them again and again, in a new order each time. As many as episodes
    when not given."""
    later_parameters: tuple[str, ...] = ()
    """Task parameters in place of `parameters` from episode `change_at` on, e.g. for another shift half-way."""
    change_at: int | None = None
    """Episode of each task from which on `later_parameters` hold."""
    hooks: tuple[str, ...] = ()
    """What else is done beside each episode: package.module:CLASS of vlamem.sim.rollout.hooks."""
    trace: bool = True
    """Write what memory and policy did at each control step to traces/, a few kB an episode."""

    def __post_init__(self) -> None:
        least = {
            "episodes": 1, "seed": 0, "workers": 0, "video": 0, "execute": 1, "batch": 1, "order": 0, "states": 1,
            "change_at": 0,
        }  # fmt: skip
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise PlanError(f"{name} is {getattr(self, name)}: expected {lowest} or more")
        for name in ("tasks", "memory", "parameters", "later_parameters", "hooks"):
            if isinstance(getattr(self, name), str):  # a text would be read letter by letter
                raise PlanError(f"{name} is '{getattr(self, name)}': expected a tuple, ('{getattr(self, name)}',)")
        if self.watchdog_s <= 0:
            raise PlanError(f"watchdog_s is {self.watchdog_s}: expected more than 0 seconds")
        try:
            memories = self.memories()
        except ValueError as error:
            raise PlanError(str(error)) from error
        if memories and self.policy in EXPERTS:
            raise PlanError(
                f"policy '{self.policy}' is scripted and takes no memory {' '.join(self.memory)}: use --memory none"
            )
        if self.camera_noise < 0:
            raise PlanError(f"camera_noise is {self.camera_noise}: expected 0 or more grey levels")
        if self.ablation != "none" and not any(name.kind not in ORACLES for name in memories):
            raise PlanError(f"ablation '{self.ablation}' needs a memory with a state, not {' '.join(self.memory)}")
        if self.ablation in OF_THE_STATE and self.batch > 1:
            raise PlanError(
                f"ablation '{self.ablation}' works on one environment at a time and batch is {self.batch}: use --batch "
                "1"
            )
        if (self.change_at is None) != (not self.later_parameters):
            raise PlanError("later_parameters and change_at belong together: give both or neither")
        if self.engine in ("processes", "ray") and not self.workers:
            raise PlanError(f"engine '{self.engine}' has no workers: use --workers 1 or more, or --engine inline")
        self.task_parameters(0)
        self.task_parameters(self.episodes)
        if self.learns:
            self._check_learning()

    def _check_learning(self) -> None:
        """Raises PlanError for what would let an episode see others than those before it."""
        for name, most in (("workers", 1), ("batch", 1), ("retry_errors", False)):
            if getattr(self, name) > most:
                option = f"{name.replace('_', '-')} {getattr(self, name)}".replace(" True", "")
                raise PlanError(
                    f"a memory of {' '.join(self.memory)} stores episodes, so that each depends on those before it, "
                    f"and --{option} would play them out of order: leave it out, or only ask the memory, with "
                    "success:FILE?commit=false"
                )
        if self.engine == "ray":
            raise PlanError(
                f"a memory of {' '.join(self.memory)} stores episodes in a file of this machine, and engine 'ray' "
                "plays on others: use --engine processes, or only ask the memory, with success:FILE?commit=false"
            )

    @property
    def learns(self) -> bool:
        """Whether a memory stores episodes when they have ended: they are played in order then, one at a time."""
        return any(name.learns for name in self.memories())

    def memories(self) -> tuple[MemoryName, ...]:
        """The memories by name. Raises ValueError for one that is unknown or given twice."""
        return parse_memories(self.memory)

    def task_parameters(self, episode: int) -> dict[str, Any]:
        """What a task is made with in an episode, as keywords. Raises PlanError for one without name or value."""
        later = self.change_at is not None and episode >= self.change_at
        try:
            return task_parameters(self.later_parameters if later else self.parameters)
        except ValueError as error:
            raise PlanError(str(error)) from None

    @property
    def arm(self) -> str:
        """Which memories records are of: their kinds with options, "none" without any."""
        return "+".join(name.label for name in self.memories()) or "none"

    def command(self) -> str:
        """The command line that gives these results; options that do not change them are left out."""
        words = ["vlamem rollout"]
        for name, value in self.results_depend_on().items():
            option = name.replace("_", "-")
            if value is True:
                words.append(f"--{option}")
            elif value not in ([], "", None, False):
                words.append(f"--{option} {shlex.join(map(str, value if isinstance(value, list) else [value]))}")
        return " ".join(words)

    def results_depend_on(self) -> dict[str, Any]:
        """The part of the configuration that decides the results, as JSON values.

        Options of a memory are there where they differ from their defaults, so that runs without one stay as they were.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        if self.order:  # what an order says depends on how many states there are
            given["states"] = self.states or self.episodes
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
        return {k: v for k, v in values.items() if k not in _MAY_DIFFER}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each entry of two records that differs, nested entries by dotted name."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} was {a!r} and is now {b!r}")
    return found


def open_folder(config: RolloutConfig, fingerprint: dict[str, Any]) -> None:
    """Makes the run folder, or checks that the run in it is this one.

    A run may be continued with more episodes. Raises PlanError naming what differs: an option that results depend on,
    or a version, weights hash or renderer of the fingerprint; OSError when the folder cannot be written.
    """
    path = config.out / "run.json"
    marks = {key: value for key, value in fingerprint.items() if key != "command"}
    now = {"version": PLAN_VERSION, "configuration": config.results_depend_on(), "fingerprint": marks}
    if path.exists():
        before = _read_run(path)
        old = before["configuration"]
        expected = now | {"configuration": config.results_depend_on() | {"episodes": old["episodes"]}}
        run = before.pop("run", None)
        found = differences(before, json.loads(json.dumps(expected)))
        if old["episodes"] > config.episodes:
            found.append(f"episodes was {old['episodes']} and is now {config.episodes}")
        if found:
            raise PlanError(f"{config.out} holds another run: {'; '.join(found)}: choose another --out")
    elif (config.out / "episodes.jsonl").exists():
        raise PlanError(f"{config.out} has episodes but no run.json: choose another --out")
    else:  # the same memory may learn from several runs of one configuration
        run = uuid.uuid4().hex if config.learns else None
    if run is not None:
        now["run"] = run
    write_atomically(path, json.dumps(now, indent=2) + "\n")


def run_identity(config: RolloutConfig) -> str:
    """The name of a run under which a memory stores its episodes. Raises PlanError where there is no such run yet."""
    path = config.out / "run.json"
    if not path.exists():
        raise PlanError(f"{config.out} has no run.json: a memory learns in the episodes of a run that was begun")
    return str(_read_run(path)["run"])


def _read_run(path: Path) -> dict[str, Any]:
    try:
        body = read_json_map(path)
        int(body["configuration"]["episodes"])
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{path} is not the record of a run ({error}): choose another --out") from error
    return body
