"""Rows of a recorded episode, one for each policy step: what was observed, sent and answered then."""

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.messages import Frame, Reply
from vlamem.deploy.robot.rounds import Mode, Round


class ActedBy(enum.IntEnum):
    """Who decided the command of a frame."""

    POLICY = 0
    """A chunk: it is executed, or its last command is held."""
    OPERATOR = 1
    """The operator pressed stop: rest, until go."""
    REST = 2
    """Neither: rest, before the first chunk or without a fresh one."""
    TELEOPERATOR = 3
    """A person, who has the arm with a teleoperator."""


_ACTED = {
    Mode.RUN: ActedBy.POLICY,
    Mode.HOLD: ActedBy.POLICY,
    Mode.HALT: ActedBy.OPERATOR,
    Mode.WAIT: ActedBy.REST,
    Mode.STOP: ActedBy.REST,
    Mode.TELEOP: ActedBy.TELEOPERATOR,
}


@dataclass
class Row:
    """One policy step.

    Attributes:
        frame: what was observed.
        action: [A], the last command that was sent in this step; None while none was.
        acted_by: whose it is.
        reply: what the server's memory made of the frame; None while that is unknown.
    """

    frame: Frame
    action: NDArray[np.float64] | None = None
    acted_by: ActedBy = ActedBy.REST
    reply: Reply | None = None


class EpisodeRows:
    """Brings together the rows of the episode that runs; each is given on when it is complete.

    A row waits for the frame after it, which says that no other command belongs to it, and for the reply to its own,
    but no longer than `patience` steps: a server may be away. A step in which nothing was sent, as before an arm's
    first command, or whose proprioception is not finite is left out.

    `frame` and `replied` are for the control thread; `sent` may come from its watchdog, too.

    Args:
        give: gets each row, in order.
        patience: steps that a row waits for its reply.
    """

    def __init__(self, give: Callable[[Row], None], patience: int) -> None:
        self._give, self._patience = give, patience
        self._rows: list[Row] = []
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forgets rows that were not given on."""
        with self._lock:
            self._rows.clear()

    def frame(self, frame: Frame) -> None:
        """A policy step begins."""
        with self._lock:
            self._rows.append(Row(frame))
            while len(self._rows) > 1 and (self._rows[0].reply is not None or len(self._rows) > self._patience):
                self._pass_on(self._rows.pop(0))

    def replied(self, reply: Reply) -> None:
        """The server's memory has seen a frame, or refused it."""
        with self._lock:
            for row in self._rows:
                if (row.frame.episode, row.frame.step) == (reply.episode, reply.step) and reply.kind != "refused":
                    row.reply = reply

    def sent(self, round_: Round) -> None:
        """A round of the control loop ended."""
        with self._lock:
            if self._rows and round_.command is not None and self._rows[-1].frame.episode == round_.episode:
                resting = round_.mode is Mode.RUN and round_.planned is None  # at the end of an episode
                self._rows[-1].action = round_.command
                self._rows[-1].acted_by = ActedBy.REST if resting else _ACTED[round_.mode]

    def end(self) -> None:
        """The episode is over: gives on what is left."""
        with self._lock:
            for row in self._rows:
                self._pass_on(row)
            self._rows.clear()

    def _pass_on(self, row: Row) -> None:
        if row.action is not None and np.isfinite(np.asarray(row.frame.observation.proprioception)).all():
            self._give(row)
