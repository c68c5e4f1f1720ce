"""Labels of episodes: on disk before they are acknowledged, then processed in the background, once each.

`labels.jsonl` has a line for each label and a line for each that was processed; what a crash leaves unprocessed is done
at the next start. A label of an episode that still runs is held until that is over, so that it finds all of it. A label
is known by its session, its episode and its id: that which comes again is acknowledged, that which says something else
is an error.

A label that a robot's key brought is quarantined: kept, and not processed before an operator or a verifier labels the
same episode.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlamem.core.files import write_atomically
from vlamem.core.jsonl import JsonLog
from vlamem.core.locks import exclusive_lock
from vlamem.deploy.server.label_file import (
    History,
    Label,
    LabelConflictError,
    LabelError,
    LabelLimitError,
    Outcome,
    earlier_files,
    line_of,
    reference,
    set_aside,
    to_disk,
)
from vlamem.deploy.server.session_record import IN_USE

__all__ = ["Label", "LabelConflictError", "LabelError", "LabelLimitError", "LabelQueue", "Outcome"]

_TRIES = 3
_LONG = 4
"""A file of more lines than so many times the labels that are remembered is begun anew."""
_LONGEST_PAUSE_S = 60.0
_PASSING = (OSError, sqlite3.OperationalError)
"""What passes by itself or by an operator: a full disk, a database that another process holds."""


class LabelQueue:
    """Keeps labels on disk and passes each to `process` in a thread of its own.

    `process` returns one line that says what it did. When it raises, the label is tried again, later each time, and
    `report` gets a line about it: for as long as it takes for an OSError or a busy database, three times for anything
    else; then it is dead, which its file says, and its trace is needed no more. Of several labels of an episode the
    newest counts. A label whose episode `runs` at the start is held until it is released.

    Attributes:
        stored: labels on disk.
        takes_unlabelled: whether `process` can judge unlabelled episodes, so that they are to be added too.
        most_quarantined: labels of one session in quarantine; beyond it they are refused.
        dead: labels that were given up.
        damaged: lines of the file that could not be read.
    """

    most_quarantined = 64

    def __init__(
        self,
        path: Path,
        process: Callable[[Label], str],
        report: Callable[[str], None] = lambda line: None,
        most: int = 10_000,
        runs: Callable[[Label], bool] = lambda label: False,
        takes_unlabelled: bool = False,
        retry_s: float = 1.0,
    ) -> None:
        """`most`: ids that are remembered; a label that comes again after as many others counts as a new one.

        `retry_s`: after it a label that failed is tried again, after twice as long the next time, up to a minute.

        Lines of the file that are damaged are set aside in one named `.damaged` beside it, and reported. Raises
        InUseError for a file that another process has.
        """
        self._process, self._report, self.takes_unlabelled = process, report, takes_unlabelled
        self._lock = exclusive_lock(path.with_name(f".{path.name}.lock"), str(path), IN_USE)
        try:
            self._history, self._path, self._long = History(most), path, _LONG
            self._log: JsonLog | None = None
            unprocessed = self._history.read(path)
            self._shorten(unprocessed)
            self._log = JsonLog(path, line_of)
        except BaseException:
            self._lock.release()
            raise
        self.stored, self.dead = self._history.count, self._history.dead
        self.damaged, self._retry_s = len(self._history.damaged), retry_s
        if self.damaged:
            report(set_aside(path, self._history.damaged))
        self._quarantined = [label for label in unprocessed if self._waits_for_another(label)]
        counting = [label for label in unprocessed if label not in self._quarantined]
        self._held = [label for label in counting if runs(label)]
        self._waiting = [label for label in counting if label not in self._held]
        self._failed: list[_Failed] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="labels", daemon=True)
        self._thread.start()

    def add(self, label: Label, hold: bool = False) -> bool:
        """Keeps a label: on disk when this returns. False for one added before.

        With `hold` it is processed when `release` says that its episode is over. Raises LabelConflictError when its id
        is another label's of this episode, LabelLimitError when the quarantine is full, OSError on a full disk.
        """
        with self._changed:
            if self._history.has(label):
                return False
            isolated = self._waits_for_another(label)
            waiting = sum(other.session == label.session for other in self._quarantined) if isolated else 0
            if waiting >= self.most_quarantined:
                raise LabelLimitError(
                    f"{waiting} labels of session '{label.session}' wait for an operator: label their episodes with an "
                    "operator's or a verifier's key first"
                )
            self._append({"label": to_disk(label)})
            self._history.remember(label)
            self._history.lines += 1
            self.stored += 1
            if isolated:
                self._quarantined.append(label)
                return True
            joined = [other for other in self._quarantined if other.of == label.of]  # they are superseded by this one
            self._quarantined = [other for other in self._quarantined if other not in joined]
            queue = self._held if hold else self._waiting
            queue += [*joined, label]
            self._changed.notify_all()
            return True

    def _append(self, entry: dict[str, Any]) -> None:
        """Adds a line to the file, which is opened again where it could not be. Raises OSError; `_changed` is held."""
        self._lock.check()
        if self._log is None:
            self._log = JsonLog(self._path, line_of)
        self._log.append(entry)

    def _waits_for_another(self, label: Label) -> bool:
        """Whether a label is to be quarantined; one of an episode that is labelled already is superseded instead."""
        return label.quarantined and label.of not in self._history.newest

    @property
    def failing(self) -> tuple[str, ...]:
        """Why labels could not be processed that are tried again, one reason each."""
        return tuple(failed.why for failed in self._failed)

    @property
    def quarantined(self) -> tuple[Label, ...]:
        """Labels that wait for an operator's or a verifier's."""
        return tuple(self._quarantined)

    def release(self, session: str, episode: int) -> None:
        """Episode `episode` of a session is over, and all before it: labels that were held for them are processed."""

        def over_now() -> list[Label]:
            return [label for label in self._held if label.session == session and label.episode <= episode]

        if not over_now():
            return  # without the lock, which is held while a label is written
        with self._changed:
            over = over_now()  # another thread may have released them
            self._waiting += over  # before they leave `_held`: at no moment is a label in no list
            self._held = [label for label in self._held if label not in over]
            self._changed.notify_all()

    @property
    def pending(self) -> frozenset[tuple[str, int]]:
        """Session and episode of every label that is not processed: their traces are still needed.

        Read without the lock, which is held while a label is written: the caller has robots to serve.
        """
        return frozenset((label.session, label.episode) for label in self._pending())

    def _pending(self) -> list[Label]:
        return self._held + self._waiting + [failed.label for failed in self._failed]

    @property
    def held(self) -> frozenset[str]:
        """Sessions with labels that wait for the end of an episode."""
        return frozenset(label.session for label in self._held)

    def drain(self, timeout_s: float) -> bool:
        """Waits until every label that is not held was processed or reported; False when it took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self) -> None:
        """Ends the thread after the current label; the others wait for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._log is not None:
            self._log.close()
        self._lock.release()

    def _shorten(self, pending: list[Label]) -> None:
        """Once it is long the file begins anew, with the labels that are pending or remembered; the file before stays
        beside it under another name, and is read no more."""
        history = self._history
        if not self._is_long() or history.damaged:
            return
        waiting = {label.identity for label in pending}
        kept = dict(history.labels) | {label.identity: label for label in pending}
        lines = []
        for identity, label in kept.items():
            lines.append({"label": to_disk(label)})
            if identity not in waiting:
                lines.append(reference("done", label) | {"said": "in an earlier file"})
        number = 1 + max((int(p.suffixes[-2][1:]) for p in earlier_files(self._path)), default=0)
        try:
            os.link(self._path, self._path.with_suffix(f".{number}.jsonl"))
            if self._log is not None:  # it would be that of the file before; the next line opens the new one
                self._log.close()
                self._log = None
            write_atomically(self._path, "".join(f"{line_of(line)}\n" for line in lines))
        except OSError as error:  # of a full disk, or one without hard links: a long file is only slow to open
            self._long *= 2
            self._report(f"{self._path} stays long: {error}")
            return
        history.lines = len(lines)

    def _is_long(self) -> bool:
        return self._history.lines > self._long * self._history.most

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and self._is_long() and not self._closing and self._lock.held():
                    self._shorten([*self._pending(), *self._quarantined])
                while not (self._closing or self._waiting or self._due() is not None):
                    self._changed.wait(self._pause())
                if self._closing:
                    return
                again = None if self._waiting else self._due()
                label = self._waiting[0] if again is None else again.label
            try:
                result = "another label of this episode counts" if self._superseded(label) else self._process(label)
                with self._changed:
                    self._append(reference("done", label) | {"said": result, "at": time.time()})
                    self._history.lines += 1
                self._failed = [failed for failed in self._failed if failed.label.of != label.of]
            except Exception as error:  # whatever the store raises, the next label must have its turn
                self._fail(label, again, error)
            with self._changed:
                if again is None:
                    self._waiting.pop(0)
                self._changed.notify_all()

    def _due(self) -> "_Failed | None":
        """The label that failed and is to be tried again now."""
        now = time.monotonic()
        return next((failed for failed in self._failed if failed.due <= now), None)

    def _pause(self) -> float | None:
        return max(0.0, min(f.due for f in self._failed) - time.monotonic()) if self._failed else None

    def _fail(self, label: Label, before: "_Failed | None", error: Exception) -> None:
        tries, why = 1 if before is None else before.tries + 1, f"{type(error).__name__}: {error}"
        name = f"label '{label.label}' of {label.session}/{label.episode}"
        others = [failed for failed in self._failed if failed is not before]
        if tries >= _TRIES and not isinstance(error, _PASSING):
            self._report(f"{name} is given up after {tries} tries: {why}")
            try:
                with self._changed:
                    self._append(reference("dead", label) | {"why": why[:500], "at": time.time()})
                self._failed = others
                self.dead += 1
                return
            except OSError as full:
                why = f"{type(full).__name__}: {full}"
        if before is None or before.why != why:
            self._report(f"{name} stays pending: {why}")
        pause = min(_LONGEST_PAUSE_S, self._retry_s * 2 ** min(tries - 1, 16))
        self._failed = [*others, _Failed(label, tries, time.monotonic() + pause, why)]

    def _superseded(self, label: Label) -> bool:
        """Whether a later label of the episode counts; an unlabelled one gives way to any that is pending."""
        if label.outcome == "unlabelled":
            return any(label.of == other.of for other in self._pending() if other.outcome != "unlabelled")
        if label.quarantined:
            return True  # it is processed only once another came
        return self._history.newest.get(label.of) not in (None, label.label)


@dataclass(frozen=True)
class _Failed:
    """A label that could not be processed: how often it was tried, and when it is again."""

    label: Label
    tries: int
    due: float
    why: str
