"""What the deploy bench is told."""

from dataclasses import dataclass
from pathlib import Path


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
