"""Messages of a robot to its server, kept until the server has confirmed them, and the replies.

Frames are sent in order and kept until they are confirmed; after a lost connection they are sent again, and the server
ignores those that it knows. When it has every frame of an episode the rest is sent: that the episode has ended, its
labels, and the start of the next episode, whose frames follow when the server has begun it. Labels are kept on disk,
with the session's name and token, until the server has them on its own disk. The control thread and the link's thread
share the outbox: only `label` and `save` wait for a disk, and neither thread waits for those two.

What the server refuses does not cost the connection: a frame is dropped; a label is sent again on the next connection;
the start of an episode is sent again, unless that episode is over at the server: then its frames are dropped.
"""

import json
import math
import secrets
import threading
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlamem.core.checksums import sealed, unsealed
from vlamem.core.files import write_atomically
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.messages import Frame, Reply, control_message, frame_message

_LABELS = 8
"""Labels that may be under way or refused on one connection: a server counts what it refuses, and disconnects."""
_SAVED: dict[str, type] = {"session": str, "token": str, "ended": int, "labels": dict, "asked": dict, "epoch": int}
"""What is kept on disk."""
_RETRY_S = 2.0
"""After it the start of an episode that the server could not store is sent again."""


class LinkError(RuntimeError):
    """A server or a session that cannot be used, whatever is tried; the message says why and the mend."""


class Outbox:
    """The messages that the server has not confirmed; see the module.

    Args:
        session: its name; without `state` a random suffix is added, since no one can resume it.
        state: folder for the session's token and for labels; None keeps nothing over a restart.
        backlog: frames that are kept; beyond it the oldest are lost, and counted.
        window: frames that may be under way at once.
        events: gets lost frames and labels.
        clock: monotonic [s].

    Raises LinkError when what was kept in `state` is damaged.
    """

    def __init__(
        self,
        session: str,
        state: Path | None,
        backlog: int,
        window: int,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._session, self._path = session, None if state is None else state / "link.json"
        self._backlog, self._window, self._events, self._clock = backlog, window, events, clock
        self._lock, self._disk = threading.Lock(), threading.Lock()
        self._frames: deque[Frame] = deque()
        self._sent = 0
        self._oldest_sent_at = 0.0
        self._replies: deque[Reply] = deque()
        self._episode = self._begun = 0  # at the robot, at the server
        self._starting = self._end_sent = self._end_confirmed = self._rejected_episode = 0
        self._start_after, self._start_refused = -math.inf, ""
        self._saved = self._load()
        known = str(self._saved.get("session", session))
        if known != session and not known.startswith(f"{session}-"):
            raise LinkError(f"{self._path} is of session '{known}', not '{session}': give that, or another --state")
        self._saved.setdefault("session", session if state is not None else _named(session))
        self._labels: dict[str, dict[str, Any]] = self._saved.setdefault("labels", {})
        for body in self._labels.values():
            body.setdefault("session", self._saved["session"])
        self._labels_sent, self._unsaved_labels = set[str](), set[str]()
        self._refused_labels: dict[str, str] = {}
        self.acknowledged: list[str] = []
        self._saved["epoch"] = int(self._saved.get("epoch", 0)) + 1
        self._writer = secrets.token_hex(8)
        self.unsaved = True  # that this process has begun

    # The control thread -----------------------------------------------------------------------------------------------

    def begin(self, episode: int) -> None:
        """A new episode: replies to the one before are dropped; what was not sent of it is still sent."""
        with self._lock:
            self._episode, self._rejected_episode = episode, 0
            self._start_after, self._start_refused = -math.inf, ""
            self._replies.clear()

    def end(self, episode: int) -> None:
        """An episode has ended: once that is saved, no later process resumes it."""
        with self._lock:
            self._saved["ended"] = max(self.ended, episode)
            self.unsaved = True

    def add(self, frame: Frame) -> None:
        """Adds a frame behind the others."""
        with self._lock:
            if frame.episode == self._rejected_episode:
                return
            if len(self._frames) >= self._backlog:
                self._frames.popleft()
                self._sent = max(0, self._sent - 1)
                self._events.note("frame_lost", step=frame.step)
            self._frames.append(frame)

    def label(self, episode: int, outcome: Literal["success", "failure"], source: str) -> str:
        """Labels an episode, on disk when this returns; the label's id. Raises OSError when it cannot be kept.

        Earlier labels of the episode that the server has not acknowledged are removed: sent later they would count.
        """
        name = uuid.uuid4().hex
        with self._lock:
            self._unsaved_labels.add(name)  # the server must not have one that is taken back when the disk is full
            which = {"session": self._saved["session"], "episode": episode}
            earlier = {n: body for n, body in self._labels.items() if which.items() <= body.items()}
            for old in earlier:
                del self._labels[old]
                self._refused_labels.pop(old, None)
            self._labels[name] = which | {"label": name, "outcome": outcome, "source": source}
        try:
            self.save()
        except OSError:
            with self._lock:
                self._labels.pop(name, None)
                self._labels |= earlier
            raise
        finally:
            with self._lock:
                self._unsaved_labels.discard(name)
        self._events.note("label", label=name, outcome=outcome, episode=episode)
        return name

    def poll(self) -> list[Reply]:
        """The replies since the last call."""
        with self._lock:
            found = list(self._replies)
            self._replies.clear()
        return found

    @property
    def unacknowledged(self) -> int:
        """Labels that the server has not confirmed."""
        return len(self._labels)

    @property
    def waiting(self) -> int:
        """Frames that the server has not confirmed."""
        return len(self._frames)

    @property
    def drained(self) -> bool:
        """Whether the server has confirmed every frame and end, and confirmed or refused every label."""
        with self._lock:
            end_known = self.ended <= max(self._end_confirmed, self._begun - 1) or self.ended == self._rejected_episode
            return not self._frames and not (self._labels.keys() - self._refused_labels) and end_known

    @property
    def trouble(self) -> str | None:
        """What the server refused and is still to be sent, in a line; None when there is nothing."""
        with self._lock:
            if self._start_refused:
                return f"episode {self._episode} does not begin: {self._start_refused}"
            if self._refused_labels:
                return (
                    f"{len(self._refused_labels)} labels were refused: {next(reversed(self._refused_labels.values()))}"
                )
            return None

    # The link's thread ------------------------------------------------------------------------------------------------

    @property
    def token(self) -> str | None:
        """The token that resumes the session; None before there is one."""
        token: str | None = self._saved.get("token")
        return token

    @property
    def fence(self) -> dict[str, Any]:
        """Which controller this is: how often one was started with this state, and a name of its own."""
        return {"epoch": self._saved["epoch"], "writer": self._writer}

    @property
    def ended(self) -> int:
        """The last episode of the session that has ended; 0 before there is one."""
        return int(self._saved.get("ended", 0))

    def hello(self, fresh: bool = False) -> dict[str, Any]:
        """The message that joins the session that was kept, or with `fresh` a new one; to be saved before it is sent.

        A new session is asked for with a nonce, the same until the server has answered: where an answer came too late
        the session that it made is joined, and no second one made.
        """
        with self._lock:
            if self.token and not fresh:
                return {"type": "hello", "session": self._saved["session"], "token": self.token}
            asked = self._saved.get("asked")
            if asked is None:
                name = _named(self._session) if fresh else self._saved["session"]
                asked = self._saved["asked"] = {"session": name, "nonce": secrets.token_urlsafe(24)}
                self.unsaved = True
            return {"type": "hello"} | asked

    def joined(self, answer: dict[str, Any], first: bool) -> None:
        """The server has accepted a hello: session and token are kept, and nothing counts as sent any more.

        Labels of another session are lost: its episodes had the same numbers and were others. On the `first` connection
        the server's episode is taken over; later the robot's own counts.
        """
        with self._lock:
            self._saved["session"] = answer["session"]
            self._saved.pop("asked", None)
            for name in [n for n, body in self._labels.items() if body["session"] != answer["session"]]:
                self._refused_labels.pop(name, None)
                self._events.note("label_lost", **self._labels.pop(name))
            if "token" in answer:
                self._saved |= {"token": answer["token"], "ended": 0}
            self._end_sent = self._end_confirmed = answer["episode"] if answer.get("ended") else 0
            self._saved["ended"] = max(self.ended, self._end_sent)
            self.unsaved = True
            if first:
                self._episode = answer["episode"]
            self._begun, self._starting, self._sent = answer["episode"], 0, 0
            self._labels_sent.clear()
            least = self._episode if "token" in answer else self._begun  # frames before it belong to no episode there
            self._frames = deque(frame for frame in self._frames if frame.episode >= least)
            for frame in list(self._frames)[:-1]:
                frame.plan = False  # a chunk of that moment would come too late

    def next(self) -> bytes | None:
        """The next message to send; None when all are under way, or wait for those that are."""
        with self._lock:
            if self._starting:
                return None
            oldest = self._frames[0].episode if self._frames else self._episode
            if not self._frames or oldest != self._begun:
                return self._next_control(oldest)
            if self._sent >= min(len(self._frames), self._window):
                return None
            frame = self._frames[self._sent]
            if frame.episode != self._begun:
                return None
            if self._sent == 0:
                self._oldest_sent_at = self._clock()
            self._sent += 1
        return frame_message(frame)

    def _next_control(self, episode: int) -> bytes | None:
        """The next message once the server has all frames of its episode: its end, labels, the next one's start."""
        if self.ended >= self._begun > self._end_sent:
            self._end_sent = self._begun
            return control_message("episode_end", f"end {self._begun}", episode=self._begun)
        under_way = sum(name in self._labels_sent for name in self._labels)
        for name in sorted(self._labels, key=self._refused_labels.__contains__) if under_way < _LABELS else ():
            if name in self._labels_sent or name in self._unsaved_labels:
                continue
            if self._labels[name]["episode"] <= self._begun:
                self._labels_sent.add(name)
                body = {key: value for key, value in self._labels[name].items() if key != "session"}
                return control_message("label", f"label {name}", **body)
        if episode in (0, self._begun, self._rejected_episode) or self._clock() < self._start_after:
            return None
        self._starting, self._oldest_sent_at = episode, self._clock()
        return control_message("episode_start", f"start {episode}", episode=episode)

    def overdue(self, reply_s: float) -> bool:
        """Whether the oldest frame or start under way has had no reply for longer than `reply_s`."""
        return (self._sent > 0 or self._starting > 0) and self._clock() - self._oldest_sent_at > reply_s

    def started(self, episode: int) -> None:
        """The server has begun this episode: its frames may be sent."""
        with self._lock:
            if episode == self._starting:
                self._begun, self._starting, self._start_refused = episode, 0, ""

    def confirm(self, head: dict[str, Any], chunk: Any) -> None:
        """The server has a frame, and those before it; its reply is for `poll`."""
        now = self._clock()
        gate = float(head["gate"]) if "gate" in head else None
        trusted = float(head.get("confidence", 0.0)), float(head.get("weight", 0.0))
        with self._lock:
            self._forget_until(head["episode"], head["step"], now)
            if head["episode"] != self._episode:
                return  # of an episode that is over
            actions = None if chunk is None else np.asarray(chunk, np.float32)
            kind: Literal["chunk", "tick"] = "tick" if actions is None else "chunk"
            wrote = bool(head.get("wrote"))
            self._replies.append(Reply(kind, head["episode"], head["step"], actions, "", now, wrote, gate, *trusted))

    def refuse(self, seq: int | str, code: str, why: str) -> None:
        """The server does not take the frame, label or start of this number. Raises ValueError for one that is none."""
        if isinstance(seq, int):
            return self._refuse_frame(seq, why)
        kind, _, which = seq.partition(" ")
        if kind == "label":
            self._events.note("label_refused", label=which, code=code, why=why)
            with self._lock:
                if which in self._labels:
                    self._refused_labels[which] = why
        elif kind == "start":
            self._refuse_start(int(which), code, why)
        elif kind != "end":
            raise ValueError(f"an error about {seq[:40]!r}, which was not sent")

    def _refuse_start(self, episode: int, code: str, why: str) -> None:
        self._events.note("episode_refused", episode=episode, code=code, why=why)
        with self._lock:
            if episode != self._starting:
                return
            self._starting, self._start_refused = 0, why
            if code != "order":
                self._start_after = self._clock() + _RETRY_S
                return
            self._rejected_episode = episode
            last = self._frames[-1].step if self._frames else -1
            self._frames = deque(frame for frame in self._frames if frame.episode != episode)
            if episode == self._episode:
                self._replies.append(Reply("refused", episode, last, None, why, self._clock()))

    def _refuse_frame(self, seq: int, why: str) -> None:
        step, now = seq & 0xFFFFFFFF, self._clock()
        with self._lock:
            self._forget_until(seq >> 32, step, now)
            if seq >> 32 == self._episode:
                self._replies.append(Reply("refused", self._episode, step, None, why, now))

    def confirm_end(self, episode: int) -> None:
        """The server knows that this episode has ended."""
        with self._lock:
            self._end_confirmed = max(self._end_confirmed, episode)

    def acknowledge(self, label: str) -> None:
        """The server has this label on disk."""
        with self._lock:
            if self._labels.pop(label, None) is not None:
                self.acknowledged.append(label)
                self._refused_labels.pop(label, None)
                self.unsaved = True
        self._events.note("label_acknowledged", label=label)

    def _forget_until(self, episode: int, step: int, now: float) -> None:
        while self._sent and (self._frames[0].episode, self._frames[0].step) <= (episode, step):
            self._frames.popleft()
            self._sent -= 1
        self._oldest_sent_at = now

    # What outlives the process ----------------------------------------------------------------------------------------

    def _load(self) -> dict[str, Any]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            saved = unsealed(json.loads(self._path.read_text(encoding="utf-8")))
            for name, value in saved.items():
                if not isinstance(value, _SAVED[name]):
                    raise TypeError(f"'{name}' is a {type(value).__name__}")
            if not all(isinstance(body, dict) and "episode" in body for body in saved.get("labels", {}).values()):
                raise TypeError("a label is none")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LinkError(f"{self._path} is damaged ({error}): remove it to begin a new session") from error
        return saved

    def save(self) -> None:
        """Puts session, end and labels on disk, without the lock that the control loop takes. Raises OSError.

        What changes them without saving sets `unsaved`: a session, an end, an acknowledged label; a frame does not.
        """
        with self._disk:
            with self._lock:
                text, self.unsaved = json.dumps(sealed(self._saved)), self._path is not None
            if self._path is None:
                return
            write_atomically(self._path, text, mode=0o600)  # it holds a token
            with self._lock:
                self.unsaved = text != json.dumps(sealed(self._saved))


def _named(session: str) -> str:
    """A name that no other session has."""
    return f"{session}-{uuid.uuid4().hex[:8]}"
