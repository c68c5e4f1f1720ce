"""The controller's side of a recording: nothing waits for a disk, and what goes wrong costs the recording alone."""

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.messages import Frame, LinkProtocol, Reply
from vlamem.deploy.robot.record.columns import frame_of, rate_of
from vlamem.deploy.robot.record.rows import EpisodeRows, Row
from vlamem.deploy.robot.record.stream import receive, send
from vlamem.deploy.robot.robot_file import load_robot_file
from vlamem.deploy.robot.rounds import Round

_WAITING = 256 << 20
"""Bytes of pictures that may wait for the recording process."""
_PATIENCE_S = 2.0
"""A frame waits so long for the server's reply, then it is recorded without one."""
_START_S = 600.0
"""Its process may take so long to import what it needs, on a busy machine; the arm does not move yet."""
_END_S = 120.0
"""The run waits so long for its last episode to be written."""


class RecordError(ValueError):
    """A dataset that cannot be recorded into; the message says why and the mend."""


class Recorder:
    """Records the episodes of one robot into the LeRobotDataset in a folder, as a context around a run.

    Between `begin` and `end` the controller's frames and replies pass through `link`, its rounds through `sent`. An
    episode is stored with its last label when the next one begins, or the run ends. One that cannot be recorded (a full
    disk, more pictures than can be written, a run that fails in its middle) is given up as a whole: `say` gets a line,
    the event log `not_recorded`, and control goes on.

    Attributes:
        stored: episodes that this run has added.
        lost: episodes that this run could not record.
        total: episodes in the dataset.

    Args:
        root: folder of the dataset; made when it is missing, gone on with when it is this robot's.
        robot_file: path or shipped name.
        events: gets `recorded` and `not_recorded`.
        say: gets what the operator is to know, in a thread of its own.
        most_waiting: bytes of pictures that may wait to be written.

    Raises RobotFileError for a robot whose rate cannot be recorded.
    """

    def __init__(
        self,
        root: Path,
        robot_file: str | Path,
        events: EventLog,
        say: Callable[[str], None],
        most_waiting: int = _WAITING,
    ) -> None:
        self.root, self._file_name, self._events, self._say = root, str(robot_file), events, say
        self._file = load_robot_file(robot_file)
        self._rows = EpisodeRows(self._put, round(_PATIENCE_S * rate_of(self._file)))
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of what follows, for the control thread and those below
        self._most_waiting, self._waiting = most_waiting, 0
        self._episode = 0
        self._whole = self._over = self._ended = False
        self._label: bool | None = None
        self._pending: set[int] = set()
        self._given_up: set[int] = set()
        self._saying: list[threading.Thread] = []
        self.stored = self.lost = self.total = 0

    def __enter__(self) -> Self:
        """Starts the process that writes. Raises RecordError with what it found wrong."""
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        words = ["vlamem.deploy.robot.record.writer_process", str(theirs.fileno()), str(self.root), self._file_name]
        there = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        # in a session of its own: Ctrl-C and a closed terminal are the controller's, which still ends the episode
        run = [sys.executable, "-m", *words]
        self._process = subprocess.Popen(run, pass_fds=[theirs.fileno()], env=there, start_new_session=True)
        theirs.close()
        self._connection.settimeout(_START_S)
        try:
            answer = receive(self._connection) or {"refused": "its process has ended, and its output says why"}
        except TimeoutError:
            answer = {"refused": f"its process does not answer within {_START_S:g} s"}
        if "refused" in answer:
            self._process.kill()
            self._free()
            raise RecordError(f"--record {self.root}: {answer['refused']}")
        self._connection.settimeout(None)
        self.total = int(answer["ready"])
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send_all, self._receive_all)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stores the last episode, unless an error cut it short, and waits until it is written."""
        self._finish()
        self._queue.put(None)
        sender, receiver = self._threads
        receiver.join(_END_S)
        for thread in self._saying:
            thread.join()
        if receiver.is_alive():
            self._say(f"process {self._process.pid} still writes to {self.root}, and ends by itself")
            return
        sender.join()
        self._free()

    def _free(self) -> None:
        self._connection.close()
        self._process.wait()

    # The control thread -----------------------------------------------------------------------------------------------

    def link(self, link: LinkProtocol) -> LinkProtocol:
        """`link`, with its frames and replies recorded."""
        return _RecordingLink(link, self)

    def begin(self, episode: int, step: int = -1) -> None:
        """An episode begins; one that goes on after `step` of an earlier run is not whole, and is not recorded."""
        self._finish()
        self._rows.clear()
        with self._lock:
            self._episode, self._label, self._over, self._whole = episode, None, False, True
        if step >= 0:
            self._give_up(episode, "the run before this one was at it, and its beginning is lost")
        elif self._ended:
            self._give_up(episode, "the recording process has ended")

    def label(self, episode: int, outcome: Literal["success", "failure"]) -> None:
        """Labels the episode that runs or has just ended; the last label counts."""
        with self._lock:  # else the next episode could begin between the two lines, and be labelled
            if episode == self._episode:
                self._label = outcome == "success"

    def frame(self, frame: Frame) -> None:
        """A policy step begins."""
        if self._whole:
            self._rows.frame(frame)

    def replied(self, reply: Reply) -> None:
        """The server has replied to a frame."""
        if self._whole:
            self._rows.replied(reply)

    def sent(self, round_: Round) -> None:
        """A round of the control loop is over; the controller's `record`."""
        if self._whole:
            self._rows.sent(round_)

    def end(self) -> None:
        """The episode is over; it can still be labelled."""
        if self._whole:
            self._rows.end()
        self._over = True

    def _put(self, row: Row) -> None:
        """Queues a row for the process, where there is room."""
        size = _bytes_of(row)
        with self._lock:
            if not self._whole:
                return
            full = self._waiting + size > self._most_waiting
            if not full:
                self._waiting += size
                self._queue.put({"episode": self._episode, "row": row})
        if full:
            self._give_up(self._episode, f"{self._most_waiting >> 20} MB of pictures wait to be written")

    def _finish(self) -> None:
        """The episode that is over is stored, with the label that it has by now; one that is not is no whole one."""
        if self._whole and not self._over:
            self._give_up(self._episode, "the run ended in its middle")
        with self._lock:
            if self._whole:
                self._pending.add(self._episode)
                self._queue.put({"episode": self._episode, "store": self._label})
            self._whole = False

    def _give_up(self, episode: int, why: str) -> None:
        """An episode is not recorded, which is said once; from any thread."""
        with self._lock:
            if episode in self._given_up:
                return
            self._given_up.add(episode)
            self._pending.discard(episode)
            self._whole = self._whole and episode != self._episode
            self.lost += 1
            self._queue.put({"episode": episode, "drop": True})
            line = f"episode {episode} is not recorded: {why}"
            thread = threading.Thread(target=self._say, args=(line,), daemon=True)  # a terminal may be slow
            self._saying.append(thread)
            thread.start()
        self._events.note("not_recorded", episode=episode, why=why)

    # Its threads ------------------------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        """Sends what is queued, until None."""
        while (item := self._queue.get()) is not None:
            row = item.pop("row", None)
            try:
                send(self._connection, item if row is None else item | {"frame": frame_of(row, self._file)})
            except OSError:
                pass  # the process has ended, which `_receive_all` has seen
            except Exception as error:  # a camera that is missing, an image of floats
                self._give_up(item["episode"], f"{type(error).__name__}: {error}")
            if row is not None:
                with self._lock:
                    self._waiting -= _bytes_of(row)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def _receive_all(self) -> None:
        """Notes what the process says, until it has ended."""
        while (answer := receive(self._connection)) is not None:
            if "stored" in answer:
                with self._lock:
                    self._pending.discard(answer["episode"])
                    self.stored, self.total = self.stored + 1, int(answer["stored"])
                self._events.note("recorded", episode=answer["episode"], total=self.total)
            else:
                self._give_up(answer["episode"], answer["lost"])
        with self._lock:
            self._ended = True
            left = self._pending | ({self._episode} if self._whole else set())
        for episode in sorted(left):
            self._give_up(episode, "the recording process has ended")


class _RecordingLink:
    """A link whose frames and replies are recorded."""

    def __init__(self, link: LinkProtocol, recorder: Recorder) -> None:
        self._link, self._recorder = link, recorder

    def begin(self, episode: int) -> None:
        """As the link's."""
        self._link.begin(episode)

    def send(self, frame: Frame) -> None:
        """As the link's."""
        self._recorder.frame(frame)
        self._link.send(frame)

    def poll(self) -> list[Reply]:
        """As the link's."""
        replies = self._link.poll()
        for reply in replies:
            self._recorder.replied(reply)
        return replies


def _bytes_of(row: Row) -> int:
    return sum(image.nbytes for image in row.frame.observation.images.values())
