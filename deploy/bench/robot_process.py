"""The robot's side of the bench in a process of its own: a MuJoCo arm, the controller, and an audit of what it did."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlamem.deploy.bench.audit import audit, received_elsewhere, seams
from vlamem.deploy.robot import (
    Controller,
    ControlOptions,
    EventLog,
    Link,
    LinkOptions,
    Mode,
    MujocoRobot,
    Round,
    drain,
    join,
    load_robot_file,
    percentiles,
    prepare_process,
    restore_process,
)

_WARM_UP_ROUNDS = 100


@dataclass(frozen=True)
class RobotRun:
    """What the robot is to do.

    Attributes:
        server: address.
        robot_file: name or path.
        suite, size: of the simulated arm.
        tasks: one an episode, in turn.
        seconds: of the whole run; it goes on beyond them until a file `end` lies in `folder` when `until_end_file` is
            set, and then to the end of its episode, unless its arm outlives it.
        until_end_file: see seconds.
        episode_s: of an episode, at most.
        execute, blend: as in ControlOptions.
        folder: for logs and the report.
        session, state: name of the session, and the folder of its token; both outlive the process.
        arm: where an arm listens that outlives the process; "" for one of its own.
    """

    server: str
    robot_file: str
    suite: str
    size: int
    tasks: list[str]
    seconds: float
    episode_s: float
    execute: int
    blend: int
    folder: str
    session: str
    state: str
    until_end_file: bool = False
    arm: str = ""


def drive(plan: RobotRun) -> dict[str, Any]:
    """Runs episodes and reports timing, audit, seams, labels and events.

    Where another process has left the session and the arm in the middle of an episode, it begins by going on with it.
    """
    folder = Path(plan.folder)
    folder.mkdir(parents=True, exist_ok=True)
    robot_file = load_robot_file(plan.robot_file)
    events = EventLog(folder / "events.jsonl")
    link = Link(LinkOptions(plan.server, plan.session, Path(plan.state)), events)
    own = None if plan.arm else folder / "arm.jsonl"
    robot = MujocoRobot(plan.tasks[0], plan.suite, plan.size, own, 300, Path(plan.arm) if plan.arm else None)
    rounds: list[Round] = []
    began: dict[int, float] = {}
    labels: list[str] = []
    verdicts: list[bool] = []
    joined = join(link, robot_file, 120)
    robot.connect()
    controller = Controller(robot, robot_file, link, ControlOptions(plan.execute, plan.blend), events, rounds.append)
    try:
        left = robot.find() if plan.arm and joined.restored and not joined.ended else None
        left = left if left is not None and left.episode == joined.episode and not left.ended else None
        if left is None:
            robot.begin(joined.episode + 1, 0, plan.tasks[0])  # builds the simulation before the clock runs
        scheduling = prepare_process()
        print("running", flush=True)
        end, episode = time.monotonic() + plan.seconds, joined.episode
        while time.monotonic() < end or (plan.until_end_file and not (folder / "end").exists()):
            step = -1
            if left is not None:
                instruction, left, step = left.instruction, None, joined.step
            else:
                episode += 1
                instruction = robot.begin(episode, episode, plan.tasks[episode % len(plan.tasks)]).instruction
            now = time.monotonic()
            began[episode] = now - (step + 1) / robot_file.policy_hz
            controller.begin(instruction, episode, step, now)
            until = now + plan.episode_s if plan.until_end_file else min(end, now + plan.episode_s)

            def over(t: float, until: float = until) -> bool:
                return t > until or robot.status.ended or (bool(plan.arm) and (folder / "end").exists())

            controller.run(over)
            controller.rest()
            link.end(episode)
            verdicts.append(robot.status.success)
            labels.append(link.label(episode, "success" if robot.status.success else "failure", "bench"))
        drain(link, 20)
    finally:
        restore_process()
        robot.close()
        link.close()
        events.close()
    judged, joins = audit(rounds, began, robot_file), seams(rounds, robot_file)
    timing = controller.timing
    modes = {mode.value: sum(r.mode is mode for r in rounds) for mode in Mode}
    return {
        "rounds": len(rounds),
        "episodes": len(began),
        "successes": sum(verdicts),
        "jitter_ms": percentiles(timing.late[_WARM_UP_ROUNDS:] or timing.late),
        "deadline_misses": timing.misses,
        "decision_ms": percentiles(timing.decisions[3:] or timing.decisions),
        "decisions": len(timing.decisions),
        "modes": modes,
        "clips": dict(controller.limits.counts),
        "events": dict(events.counts),
        "audit": asdict(judged),
        "received_elsewhere": None if own is None else received_elsewhere(own, rounds),
        "seams": None if joins is None else asdict(joins),
        "labels": labels,
        "acknowledged": list(link.acknowledged),
        "scheduling": asdict(scheduling),
    }


def main(path: str) -> None:
    """Runs the plan in a JSON file; the report lies beside it as report.json."""
    plan = RobotRun(**json.loads(Path(path).read_text(encoding="utf-8")))
    report = drive(plan)
    Path(plan.folder, "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
