"""The control loop at the robot: commands at a fixed rate, whatever the server and the network do.

Each round: observe the robot, pass a frame to the link when a policy step has begun, take the replies that have come,
find the command of this moment, apply the limits, send it. Nothing in a round waits for anything but the robot. How old
a command is, is looked at when it is sent: a process that stood still repeats nothing.

    WAIT    no chunk of this episode yet: at rest
    RUN     the command comes from a chunk
    HOLD    no fresh action: the last command is repeated, for `hold_s` at most, while no round was missed
    STOP    at rest, until a fresh chunk arrives; at once while the proprioception is not finite
    HALT    the operator pressed stop: at rest, until the operator presses go
    TELEOP  a person has the arm: the command comes from a teleoperator, and nothing is planned
"""

import math
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.bounds import longest_gap
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.limits import Limits, readable
from vlamem.deploy.robot.messages import Frame, LinkProtocol, Reply
from vlamem.deploy.robot.protocol import ExpiringRobot, Robot, RobotError, RobotObservation
from vlamem.deploy.robot.robot_file import RobotFile
from vlamem.deploy.robot.rounds import ControlOptions, Mode, Round, Timing
from vlamem.deploy.robot.takeover import Hands, TakeOver
from vlamem.deploy.robot.timeline import Planned, Timeline
from vlamem.deploy.robot.watchdog import Reason, Watchdog

Command = NDArray[np.float64]
_SEND_S = 5.0
"""A robot that takes a command for longer has failed."""


class Controller:
    """Drives one robot. `run` is the loop; `stop`, `go` may be called from any thread.

    Args:
        robot: connected.
        robot_file: its limits and rates.
        link: to the server.
        options: how chunks are used.
        events: gets every clip and every change of mode.
        record: called with every round.
        takeover: of a person with a teleoperator; None without one.
        clock, sleep: of the loop.
    """

    def __init__(
        self,
        robot: Robot,
        robot_file: RobotFile,
        link: LinkProtocol,
        options: ControlOptions | None = None,
        events: EventLog | None = None,
        record: Callable[[Round], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        takeover: TakeOver | None = None,
    ) -> None:
        self.robot, self.file, self.link = robot, robot_file, link
        self.options, self.events = options or ControlOptions(), events or EventLog()
        self.limits, self.timing = Limits(robot_file), Timing()
        self.mode = Mode.WAIT
        self.episode = 0
        self._record, self._clock, self._sleep = record, clock, sleep
        self._timeline = Timeline(self.limits.blended(), self.limits.moving(), self.options.blend)
        self._moving = self.limits.moving()
        self._hands = Hands(takeover, self.limits.blended())
        self._halt, self._operator = threading.Event(), threading.Lock()
        self._instruction = ""
        self._began = 0.0
        self._step = -1
        self._plan_requests: dict[int, float] = {}
        self._observed_at: dict[int, float] = {}
        self._stamp: float | None = None
        self._stamp_changed_at = -math.inf
        self._frozen = False
        self._last: Command | None = None
        self._executed: Command | None = None
        self._held_since: float | None = None
        self._stopping_from: tuple[float, Command] | None = None
        self._rounded_at: float | None = None
        self._stop_at = math.inf
        self._seen: RobotObservation | None = None
        self._guarded = False
        self._sending = threading.Lock()  # a robot gets one command at a time
        period = 1 / robot_file.control_hz
        deadline_s = max(2 * period, self.options.watchdog_s)
        self.watchdog = Watchdog(self._rest_instead, deadline_s, 2 * period, period, clock)

    def begin(self, instruction: str, episode: int, step: int = -1, now: float | None = None) -> None:
        """An episode begins (or goes on after `step`, when this process is new and the session is not).

        Nothing of the episode before is left: no action, no last command, no reply on its way.
        """
        now = self._clock() if now is None else now
        self.episode, self._instruction = episode, instruction
        self._began = now - (step + 1) / self.file.policy_hz
        self._step = step
        self._plan_requests.clear()
        self._observed_at.clear()
        self._last = self._executed = self._seen = None
        self._held_since = self._stopping_from = self._rounded_at = None
        self._timeline.clear(episode)
        self.timing.report(self.mode)  # what was before is no step of this episode
        self.link.begin(episode)
        self._enter(Mode.HALT if self._halt.is_set() else Mode.WAIT)
        self.events.note("episode", episode=episode, step=step)

    def stop(self) -> None:
        """The operator's stop: at rest within `stop_s` of this call, until `go`."""
        with self._operator:  # a go of another thread comes before it or after it, here and at the watchdog
            if not self._halt.is_set():
                self._stop_at = self._clock()
            self._halt.set()
            self.watchdog.stop()

    def go(self) -> None:
        """Ends the operator's stop; motion goes on with the next fresh chunk."""
        with self._operator:
            self._halt.clear()
            self.watchdog.go()

    def run(self, until: Callable[[float], bool]) -> None:
        """The loop with its watchdog, until `until(now)` says so. Raises what the robot raises, and RobotError for one
        that does not report a force that its file limits, after an attempt to bring it to rest."""
        try:
            with self.watchdog.watching():
                self._loop(until)
        except BaseException:
            self.rest()
            raise

    def _loop(self, until: Callable[[float], bool]) -> None:
        period = 1.0 / self.file.control_hz
        due = self._clock()
        while True:
            wait = due - self._clock()
            if wait > 0:
                self._sleep(wait)
            now = self._clock()
            if until(now):
                return
            self.timing.rounded(now - due)
            self.round(now)
            due += period
            if (behind := self._clock() - due) > 0:
                missed = 1 + int(behind / period)
                self.timing.misses += missed
                self.events.note("deadline_missed", rounds=missed)
                due += missed * period  # no burst of commands to catch up

    def rest(self) -> None:
        """Commands rest, once and within the limits, and records it as a round; what the robot raises is noted, since
        this is done when something else has failed. A robot that cannot be observed is sent rest all the same."""
        try:
            obs = self.robot.observe()
        except Exception as error:
            self.events.note("rest_unseen", why=f"{type(error).__name__}: {error}")
            obs = RobotObservation({}, np.full(self.file.proprioception, np.nan), self._clock())
        try:
            command, _ = self._send(self.limits.rest(self._last, obs), obs)
            if command is not None:
                self._done(self._clock(), command, None, obs)
        except Exception as error:
            self.events.note("rest_failed", why=f"{type(error).__name__}: {error}")

    def round(self, now: float) -> Round:
        """One round of the loop, which begins `now`."""
        obs = self._observe(now)
        now = max(now, self._clock())  # a robot may have taken its time
        if self._hands.changed():  # what was planned before is not executed after it
            self._timeline.clear(self.episode, self._step)
            self._plan_requests.clear()
            self.events.note("taken_over" if self._hands.taken else "given_back", step=self._step)
        for reply in self.link.poll():
            self._take_reply(reply, now)
        at = self._at(now)
        step = math.floor(at)
        if step > self._step:
            self._send_frame(obs, step, now)
        planned = self._fresh(now, at) if readable(obs) and not self._halt.is_set() else None
        command, planned = self._send(self._choose(planned, now, obs), obs, planned, now)
        self._rounded_at, self._guarded = now, False
        self.watchdog.rounded(self.mode is Mode.HALT, now)
        return self._done(now, command, planned, obs)

    def _rest_instead(self, reason: Reason) -> None:
        """The watchdog's rest, where the loop makes no round; what the robot raises is noted."""
        obs = self._seen
        if obs is None:
            return  # nothing was commanded yet
        if not self._guarded:
            self.events.note("watchdog", why=reason)
        self._guarded = True
        try:
            command, _ = self._send(self.limits.rest(self._last, obs), obs, patience_s=1 / self.file.control_hz)
        except Exception as error:
            self.events.note("watchdog_failed", why=f"{type(error).__name__}: {error}")
            return
        if command is not None and self._record is not None:
            mode = Mode.HALT if reason == "stop" else Mode.STOP
            seen = obs.proprioception, obs.gripper_force, obs.stamp
            self._record(Round(self._clock(), self.episode, mode, command, None, *seen))

    def _observe(self, now: float) -> RobotObservation:
        """Observes the robot, and notes since when its frame is the same: one that does not change grows stale.

        Raises RobotError for a robot that does not report the force that its file limits.
        """
        obs = self.robot.observe()
        if self.file.gripper_force is not None and obs.gripper_force is None:
            raise RobotError(
                f"robot file '{self.file.name}' limits gripper_force to {self.file.gripper_force:g} N and the robot "
                "reports none: fill its observation's gripper_force (nan for a failed reading), or take the limit out"
            )
        self._seen = obs
        if obs.stamp != self._stamp and math.isfinite(obs.stamp):  # no time is not another time
            self._stamp, self._stamp_changed_at = obs.stamp, now
        frozen = now - self._stamp_changed_at > self.file.stale_s
        if frozen and not self._frozen:
            self.events.note("observation_frozen", stamp=obs.stamp)
        self._frozen = frozen
        return obs

    def _send(
        self,
        requested: Command | None,
        obs: RobotObservation,
        planned: Planned | None = None,
        chosen_at: float = math.inf,
        patience_s: float = _SEND_S,
    ) -> tuple[Command | None, Planned | None]:
        """Sends what the limits leave of the requested command, or of rest when the loop stood still since that was
        chosen, so that it is too old; gives what was sent, None when it was nothing, and where it came from.

        Raises RobotError when the robot has another command in hand for longer than `patience_s`.
        """
        if requested is None:
            return None, None
        if not self._sending.acquire(timeout=patience_s):
            raise RobotError(f"the robot took no other command within {patience_s:g} s: its driver hangs in send")
        try:
            now = self._clock()
            if (planned is not None and self._too_old(planned, now)) or now - chosen_at > 2 / self.file.control_hz:
                requested, planned = self.limits.rest(self._last, obs), None
                self._enter(Mode.HALT if self._halt.is_set() else Mode.STOP)
                if requested is None:
                    return None, None
            command, clips = self.limits.apply(requested, self._last, obs)
            for clip in clips:
                self.events.note("clip", kind=clip.kind, part=clip.part, asked=clip.requested, sent=clip.sent)
            self.timing.clipped(clips)
            if command is not None:
                if isinstance(self.robot, ExpiringRobot):
                    self.robot.send_until(command, self._expires(planned))
                else:
                    self.robot.send(command)
                self._last = command
                self._executed = command if self.options.moves else None
            return command, planned if command is not None else None
        finally:
            self._sending.release()

    def _done(self, now: float, command: Command | None, planned: Planned | None, obs: RobotObservation) -> Round:
        """Records what this round did."""
        done = Round(now, self.episode, self.mode, command, planned, obs.proprioception, obs.gripper_force, obs.stamp)
        if self._record is not None:
            self._record(done)
        return done

    def _at(self, now: float) -> float:
        """The moment in policy steps; a clock's last digit does not put it into the step before."""
        return (now - self._began) * self.file.policy_hz + 1e-9

    def _take_reply(self, reply: Reply, now: float) -> None:
        if reply.episode != self.episode:
            self.events.note("stale_reply", episode=reply.episode)
            return
        requested_at = self._plan_requests.pop(reply.step, None)
        if reply.kind == "refused":
            self._timeline.clear(self.episode, self._timeline.after)
            self.events.note("observation_refused", step=reply.step, why=reply.detail)
            return
        if reply.chunk is None or self._hands.taken:
            return
        shape = reply.chunk.shape  # looked at first: a huge chunk costs the loop nothing
        fits = len(shape) == 2 and shape[1] == self.file.size and shape[0] <= longest_gap(self.file.policy_hz)
        chunk = np.asarray(reply.chunk if fits else [], np.float64)
        if not fits or not np.isfinite(chunk).all():
            self.limits.counts["nan"] += 1
            self.events.note("chunk_refused", shape=list(shape), step=reply.step)
            return
        if requested_at is not None:
            self.timing.decided(reply.arrived - requested_at)
        if not self._timeline.take(chunk, reply.episode, reply.step, self._at(now)):
            self.events.note("chunk_too_late", step=reply.step)

    def _send_frame(self, obs: RobotObservation, step: int, now: float) -> None:
        """Sends the frame of a policy step to memory; some request a plan."""
        if step > self._step + 1:
            self.events.note("steps_skipped", count=step - self._step - 1)
        pending = [at for s, at in self._plan_requests.items() if now - at <= self.options.plan_timeout_s]
        used = step - self._timeline.newest
        plan = not self._hands.taken and not pending and (self._timeline.newest < 0 or used >= self.options.execute)
        if plan:
            self._plan_requests.clear()
            self._plan_requests[step] = now
            oldest = step - self.file.stale_s * self.file.policy_hz
            self._observed_at = {s: t for s, t in self._observed_at.items() if s >= oldest}
            self._observed_at[step] = self._stamp_changed_at
        report = self.timing.report(self.mode)
        self.link.send(Frame(self.episode, step, obs, self._instruction, plan, self._executed, report))
        self._step = step

    def _fresh(self, now: float, at: float) -> Planned | None:
        """The planned command of this moment, unless what it was planned from is too old: by its step, or because the
        robot had been showing the same for a while by then."""
        planned = self._timeline.at(at)
        usable = planned is not None and planned.episode == self.episode and not self._too_old(planned, now)
        return planned if usable else None

    def _too_old(self, planned: Planned, now: float) -> bool:
        old = now > self._expires(planned)
        if old:
            self.events.note("stale_command", step=planned.step)
        return old

    def _expires(self, planned: Planned | None) -> float:
        """When what a command was planned from is too old; never for one that came from no plan."""
        if planned is None:
            return math.inf
        due = self._began + planned.step / self.file.policy_hz
        return min(due, self._observed_at.get(planned.step, due)) + self.file.stale_s

    def _alone_since(self, now: float) -> float:
        """The moment from which the arm was left to its last command: `now`, or the last round when the loop stood
        still for more than two periods after it."""
        last = self._rounded_at
        return now if last is None or now - last <= 2 / self.file.control_hz else last

    def _choose(self, planned: Planned | None, now: float, obs: RobotObservation) -> Command | None:
        if self._halt.is_set():
            self._hands.interrupted()
            self._enter(Mode.HALT)
            return self._towards_rest(min(self._stop_at, self._alone_since(now)), now, obs)
        wanted = planned.command if planned is not None else self._hands.command(now) if readable(obs) else None
        if wanted is not None:
            self._enter(Mode.RUN if planned is not None else Mode.TELEOP)
            self._held_since = self._stopping_from = None
            return self._hands.eased(wanted, now, self.limits.rest(self._last, obs))
        if self._last is None:
            self._enter(Mode.WAIT)
            return self.limits.rest(None, obs)
        since = self._alone_since(now)
        if self._held_since is None:
            self._held_since = since
        holding = self.mode in (Mode.RUN, Mode.HOLD) and readable(obs) and since == now
        if holding and now - self._held_since <= self.file.hold_s:
            self._enter(Mode.HOLD)
            return self._last
        self._enter(Mode.STOP)
        return self._towards_rest(since, now, obs)

    def _towards_rest(self, since: float, now: float, obs: RobotObservation) -> Command | None:
        """Moving entries go to rest within `stop_s` of `since`, the others stay where they were commanded last."""
        rest = self.limits.rest(self._last, obs)
        if rest is None or self._last is None:
            return rest
        if self._stopping_from is None:
            self._stopping_from = (since, self._last)
        since, from_ = self._stopping_from
        left = max(0.0, 1 - (now - since) / self.file.stop_s)
        return np.where(self._moving, rest + left * (from_ - rest), rest)

    def _enter(self, mode: Mode) -> None:
        if mode is not self.mode:
            self.events.note("mode", was=self.mode.value, now=mode.value)
            self.mode = mode
