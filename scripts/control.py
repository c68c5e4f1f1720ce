"""Drives a robot by a served policy: fixed-rate loop, safety limits, operator's stop, labels.

ROBOT is mujoco:TASK (a simulated arm in real time, e.g. mujoco:touch), lerobot:TYPE (an arm of LeRobot; its settings
come with --robot-config), or module:FACTORY (your own, with the four methods of vlamem.deploy.robot.protocol.Robot).
Its limits come from --robot-file: a .toml file, or the name of one that ships with vlamem.

With --teleop a person may take the arm over (lerobot:TYPE, e.g. lerobot:so101_leader with --teleop-config, or
module:FACTORY with the three methods of vlamem.deploy.robot.takeover.Teleoperator).

Keys: space stop, g go, s success, f failure, q quit, with --teleop t take over, b give back. The same by HTTP on
--panel-port. SIGTERM and SIGHUP (a terminal that is closed; not under nohup) end it as q does, with the robot at rest
and closed.

Example: vlamem control --robot mujoco:touch --robot-file tabletop --server ws://127.0.0.1:8000 --episodes 3

Exit status: 0 done, 1 the robot or the server failed, 2 not possible as asked.
"""

# argparse and TOML: a robot has numpy, msgpack and websockets, and neither tyro nor yaml.
import argparse
import math
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vlamem.scripts.checks import within


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").strip()
    parser = argparse.ArgumentParser(
        "vlamem control", None, about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--robot", required=True, help="mujoco:TASK, lerobot:TYPE or module:FACTORY")
    add("--robot-file", default="tabletop", help="limits and rates: a .toml file or a shipped name (tabletop)")
    add("--robot-config", type=Path, help="JSON settings of a LeRobot arm")
    add("--teleop", help="device with which a person takes the arm over: lerobot:TYPE or module:FACTORY (none)")
    add("--teleop-config", type=Path, help="JSON settings of a LeRobot teleoperator")
    add("--server", default="ws://127.0.0.1:8000", help="ws:// or wss:// address (ws://127.0.0.1:8000)")
    add("--session", default="robot", help="name of this robot at the server (robot)")
    add("--state", type=Path, help="folder for the session's token: an episode that a crash cut short goes on")
    add("--instruction", help="what to do; a simulated task has its own")
    add("--episodes", type=int, default=1, help="how many, one after the other (1)")
    add("--seconds", type=float, default=60.0, help="longest episode (60)")
    add("--execute", type=int, default=4, help="steps of a chunk before the next is requested (4)")
    add("--blend", type=int, default=3, help="steps over which chunks are blended (3)")
    add("--api-key-file", type=Path, help="file whose first line is the server's key")
    add("--tls-ca", type=Path, help="PEM file of the authority that signed the server's certificate")
    add("--panel-port", type=int, default=-1, help="HTTP panel on 127.0.0.1; 0 takes a free port (off)")
    add("--log", type=Path, help="file for events: clips, modes, losses, labels")
    add("--record", type=Path, help="LeRobotDataset that every episode is added to; made when it is missing")
    add("--label-by-task", action="store_true", help="a simulated task's own verdict labels its episodes")
    add("--dry-run", action="store_true", help="print commands and send none")
    add(
        "--watchdog",
        choices=["process", "thread"],
        default="process",
        help="process: another process drives the arm, brings it to rest when this one does not, and answers the "
        "operator; thread: a thread of this one does, for an arm that can only be made here (process)",
    )
    add("--realtime-priority", type=int, default=20, help="of the loop, 1 to 99, where permitted; 0 for none (20)")
    return parser


def main(arguments: list[str]) -> int:
    """`vlamem control`."""
    from vlamem.deploy.robot import LinkError, RobotError

    args = _parser().parse_args(arguments)
    try:
        return _control(args)
    except (LinkError, RobotError) as error:
        print(f"vlamem control: {error}", file=sys.stderr)
        return 1


def _check(args: argparse.Namespace) -> None:
    within("--episodes", args.episodes, 1)
    within("--execute", args.execute, 1)
    within("--blend", args.blend, 0)
    within("--panel-port", args.panel_port, -1, 65535)
    within("--realtime-priority", args.realtime_priority, 0, 99)
    if not 0 < args.seconds < math.inf:
        raise ValueError(f"--seconds {args.seconds:g}: expected a number above 0")
    if args.label_by_task and not args.robot.startswith("mujoco:"):
        raise ValueError("--label-by-task is the verdict of a simulated task (--robot mujoco:TASK): leave it out")
    if args.teleop_config is not None and not args.teleop:
        raise ValueError("--teleop-config is of --teleop: name a teleoperator, or leave it out")
    if args.dry_run and args.label_by_task:
        raise ValueError("--label-by-task labels what the robot did, and with --dry-run it does nothing: leave one out")
    if args.dry_run and args.record:
        raise ValueError("--record records what the robot did, and with --dry-run it does nothing: leave one out")


def _where(joined: Any) -> str:
    if joined.unfinished:
        return f"episode {joined.episode} goes on after step {joined.step}"
    return f"episode {joined.episode + 1} is next"


def _control(args: argparse.Namespace) -> int:
    """Drives the robot, with its recording around the run."""
    from vlamem.deploy.robot import EventLog, load_robot_file

    _check(args)
    robot_file = load_robot_file(args.robot_file)
    events = EventLog(args.log)
    try:
        if args.record is None:
            return _drive(args, robot_file, events, None)
        from vlamem.deploy.robot.record import Recorder

        with Recorder(args.record, args.robot_file, events, lambda line: print(line, file=sys.stderr)) as recorder:
            status = _drive(args, robot_file, events, recorder)
        lost = f", {recorder.lost} not recorded" if recorder.lost else ""
        print(f"{recorder.stored} episodes added to {args.record}{lost}; it has {recorder.total}", flush=True)
        return status
    finally:
        events.close()


def _drive(args: argparse.Namespace, robot_file: Any, events: Any, recorder: Any) -> int:
    """Plays the episodes; `recorder` is None where nothing is recorded."""
    from vlamem.deploy.robot import (
        KEYS,
        TAKE_KEYS,
        Controller,
        ControlOptions,
        DryRun,
        EpisodeLabels,
        GuardedRobot,
        Link,
        LinkError,
        LinkOptions,
        OperatorActions,
        Panel,
        TakeOver,
        drain,
        join,
        make_robot,
        make_teleoperator,
        percentiles,
        prepare_process,
        restore_process,
        run_episode,
        status_of,
    )
    from vlamem.scripts.keys import read_key
    from vlamem.scripts.signals import on_termination

    guarded = None
    if args.watchdog == "process" and not args.dry_run:  # a dry run sends nothing
        guarded = GuardedRobot(args.robot, args.robot_file, args.robot_config)
    arm: Any = guarded or make_robot(args.robot, args.robot_config, robot_file)
    simulated = arm if args.robot.startswith("mujoco:") else None
    if simulated is None and not args.instruction:
        raise ValueError("a robot needs an instruction: give --instruction")
    takeover = None
    if args.teleop:
        teleoperator = make_teleoperator(args.teleop, args.teleop_config, robot_file)
        takeover = TakeOver(teleoperator, robot_file, events, lambda line: print(line, file=sys.stderr))
    # a dry run moves nothing, so it must not touch the session and labels of the robot's real episodes
    session, state = (f"{args.session}-dry-run", None) if args.dry_run else (args.session, args.state)
    link = Link(LinkOptions(args.server, session, state, read_key(args.api_key_file), args.tls_ca), events)
    joined = join(link, robot_file)
    print(f"connected to {args.server}: {_where(joined)}", flush=True)
    robot = DryRun(arm, print) if args.dry_run else arm
    quitting = threading.Event()
    options = ControlOptions(args.execute, args.blend, moves=not args.dry_run)
    recorded = (link, None) if recorder is None else (recorder.link(link), recorder.sent)
    controller = Controller(robot, robot_file, recorded[0], options, events, recorded[1], takeover=takeover)

    labels = EpisodeLabels(link, lambda: controller.episode, recorder)
    actions = OperatorActions(
        controller.stop,
        controller.go,
        labels.by_operator,
        lambda: status_of(controller, link, events),
        quitting.set,
        None if takeover is None else takeover.take,
    )
    robot.connect()
    ending = ExitStack()
    ending.enter_context(on_termination(lambda number: quitting.set()))
    try:
        if takeover is not None:
            ending.callback(takeover.close)
            takeover.start()
        if guarded is not None:
            port, token = guarded.open_panel(actions, args.panel_port, args.realtime_priority)
        else:
            panel = Panel(actions.stop, actions.go, actions.label, actions.status, actions.quit, take=actions.take)
            ending.callback(panel.close)
            port = panel.serve(args.panel_port) if args.panel_port >= 0 else -1
            token = panel.token
            panel.listen()
        if port >= 0:
            print(f"panel: http://127.0.0.1:{port}, token {token}", flush=True)
        if sys.stdin.isatty():
            print(KEYS if takeover is None else f"{KEYS}   {TAKE_KEYS}")
        if args.realtime_priority:
            scheduling = prepare_process(args.realtime_priority)
            if not scheduling.realtime:
                print(f"no real-time scheduling: {scheduling.reason}", file=sys.stderr)
        first = joined.episode if joined.unfinished else joined.episode + 1
        for episode in range(first, first + args.episodes):
            step = joined.step if episode == joined.episode else -1
            task_instruction = simulated.begin(episode, episode).instruction if simulated is not None else ""
            end = time.monotonic() + args.seconds

            def over(now: float, end: float = end) -> bool:
                stopped = quitting.is_set() or link.failure is not None
                return now > end or stopped or (simulated is not None and simulated.status.ended)

            if recorder is not None:
                recorder.begin(episode, step)
            run_episode(controller, link, args.instruction or task_instruction, episode, over, step)
            if link.failure is not None:
                raise LinkError(link.failure)
            if recorder is not None:
                recorder.end()
            success = simulated is not None and simulated.status.success
            if simulated is not None:
                print(f"episode {episode}: {task_instruction}: {'success' if success else 'no success'}", flush=True)
                if args.label_by_task:
                    labels.by_task(episode, "success" if success else "failure")
            if quitting.is_set():
                break
        drain(link, 10)
        late = percentiles(controller.timing.late)
        print(
            f"loop late by p50 {late['p50']:.2f}, p99 {late['p99']:.2f}, max {late['max']:.2f} ms; "
            f"{controller.timing.misses} rounds missed; clips {dict(controller.limits.counts) or 'none'}"
        ) if late else None
        if link.unacknowledged:
            kept = "are kept in --state" if state else "are lost with this process: give --state"
            print(f"{link.unacknowledged} labels wait for the server and {kept}", file=sys.stderr)
        if lost := events.counts["label_lost"]:
            print(f"{lost} labels are lost: the server has lost the session that they were for", file=sys.stderr)
        if link.trouble:
            print(link.trouble, file=sys.stderr)
        return 1 if link.unacknowledged else 0
    finally:
        if args.realtime_priority:
            restore_process()
        robot.close()
        if guarded is not None and guarded.replaced:
            events.note("commands_replaced", **guarded.replaced)
        link.close()
        ending.close()
