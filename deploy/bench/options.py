"""Options of `vlamem bench deploy`, and the sizes of its presets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DeployBench:
    """How long and how badly.

    Attributes:
        policy: to serve.
        memory: as in `vlamem serve --memory`, or "untrained": a gate with drawn weights that writes and never proposes.
        robot_file, suite, size, tasks: of the simulated arm.
        quiet_s, faults_s: of the two runs; under faults the time in which the server starts again comes on top.
        episode_s: of an episode, at most.
        kills: of the server.
        stalls: of the network, 0.1 to 5 s each.
        bad: chance of a frame to be duplicated, and to be reordered; a tenth of it to be truncated.
        malformed: messages.
        clients: at once.
        client_steps: frames of each.
        controller_kills: of the controller, each in an episode of one of `memory_tasks` that has written.
        memory_tasks: tasks in which the gate writes.
        execute, blend: of the controller.
        seed: of every draw.
        folder: for state, logs and reports.
    """

    policy: str
    memory: tuple[str, ...]
    robot_file: str
    suite: str
    size: int
    tasks: tuple[str, ...]
    quiet_s: float
    faults_s: float
    episode_s: float
    kills: int
    stalls: int
    bad: float
    malformed: int
    clients: int
    client_steps: int
    controller_kills: int
    memory_tasks: tuple[str, ...]
    execute: int
    blend: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Sizes:
    """How long and how badly, by preset; the fields are those of DeployBench."""

    quiet_s: float
    faults_s: float
    kills: int
    stalls: int
    malformed: int
    clients: int
    client_steps: int
    controller_kills: int


SIZES = {
    "ci": Sizes(15.0, 20.0, 2, 2, 300, 6, 5, 1),
    "quick": Sizes(120.0, 120.0, 6, 6, 2_000, 50, 10, 5),
    "full": Sizes(600.0, 600.0, 20, 20, 10_000, 50, 20, 10),
}


@dataclass(frozen=True)
class DeployOptions:
    """Options of `vlamem bench deploy`."""

    preset: Literal["ci", "quick", "full"]
    """How long."""
    policy: str
    """To serve."""
    memory: tuple[str, ...]
    """As in vlamem serve, or untrained: a gate with drawn weights that writes and never proposes."""
    robot_file: str
    """Limits and rates of the simulated arm."""
    suite: str
    """Suite of MuJoCo tasks, module:ATTRIBUTE."""
    size: int
    """Pixels of an image."""
    tasks: tuple[str, ...]
    """One an episode, in turn."""
    memory_tasks: tuple[str, ...]
    """Likewise, of the episodes in which controllers are killed: tasks in which the gate writes."""
    controller_kills: int | None
    """Kills of the controller in the middle of an episode; the preset's when not given: ci 1, quick 5, full 10."""
    episode_s: float
    """Longest episode."""
    execute: int
    """Steps of a chunk before the next is asked for."""
    blend: int
    """Steps over which chunks are blended."""
    bad: float
    """Chance of a message to be duplicated, and to be reordered, under faults; a tenth of it to be truncated."""
    seed: int
    """Of every draw."""
    folder: Path
    """For state, logs and reports."""
    page: str
    """Name of the page, for a policy beside the shipped one."""
    results: Path
    """Folder of the page; 'ci' writes it into --folder instead."""

    def __post_init__(self) -> None:
        if self.controller_kills is not None and self.controller_kills < 1:
            raise ValueError(f"controller_kills is {self.controller_kills}: expected 1 or more")

    @property
    def page_folder(self) -> Path:
        """Of the page: a run of two minutes is no result."""
        return self.folder if self.preset == "ci" else self.results

    def sized(self) -> DeployBench:
        """The bench in the sizes of the preset."""
        sizes = SIZES[self.preset]
        kills = sizes.controller_kills if self.controller_kills is None else self.controller_kills
        return DeployBench(
            policy=self.policy,
            memory=self.memory,
            robot_file=self.robot_file,
            suite=self.suite,
            size=self.size,
            tasks=self.tasks,
            quiet_s=sizes.quiet_s,
            faults_s=sizes.faults_s,
            episode_s=self.episode_s,
            kills=sizes.kills,
            stalls=sizes.stalls,
            bad=self.bad,
            malformed=sizes.malformed,
            clients=sizes.clients,
            client_steps=sizes.client_steps,
            controller_kills=kills,
            memory_tasks=self.memory_tasks,
            execute=self.execute,
            blend=self.blend,
            seed=self.seed,
            folder=self.folder,
        )
