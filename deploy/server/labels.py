"""Labels of episodes: on disk before they are acknowledged, then processed in the background, once each.

`labels.jsonl` has a line for each label and a line for each that was processed; what a crash leaves unprocessed is done
at the next start. A label of an episode that still runs is held until that is over, so that it finds all of it. A label
is known by its session, its episode and its id: that which comes again is acknowledged, that which says something else
is an error.

A label that a robot's key brought is quarantined: kept, and not processed before an operator or a verifier labels the
same episode.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vlamem.core.checksums import sealed, unsealed
from vlamem.core.files import write_atomically
from vlamem.core.jsonl import JsonLog, LineError, read_lines
from vlamem.core.locks import exclusive_lock
from vlamem.deploy.server.session_record import IN_USE

Outcome = Literal["success", "failure", "unlabelled"]
"""unlabelled: nobody labelled the episode before the next one began, and the server's verifier judges it."""
_ON_DISK = {"unlabelled": "unsaid"}
"""Outcomes that version 0.1 wrote under another name."""
_FROM_DISK = {old: new for new, old in _ON_DISK.items()}
_ENTRIES = {"label", "done", "dead", "session", "token", "episode", "said", "why", "at"}
_TRIES = 3
_LONG = 8
"""A file of more lines than so many times the labels that are remembered is begun anew."""
_LONGEST_PAUSE_S = 60.0
_PASSING = (OSError, sqlite3.OperationalError)
"""What passes by itself or by an operator: a full disk, a database that another process holds."""
type _Episode = tuple[str, str, int]
"""Session, its token's mark, and number of the episode."""
type _Identity = tuple[str, str, int, str]
"""The same, and the label's id."""


class LabelError(ValueError):
    """A label that means nothing or cannot be kept; the message says why."""


class LabelLimitError(LabelError):
    """More labels than are kept; the message says how many."""


class LabelConflictError(LabelError):
    """A label whose id is that of another label of its episode, which says something else."""


@dataclass(frozen=True)
class Label:
    """The outcome of an episode, as an operator, a task or a verifier reports it.

    Attributes:
        label: its id; a second label of that id and episode is the same one, sent again.
        session, episode: which episode.
        outcome: see Outcome.
        source: who labelled, e.g. "operator".
        made: when [s since 1970].
        token: first letters of the hash of the session's token, which tells two sessions of one name apart; "" in files
            of version 0.1.
        quarantined: whether it waits for an operator's or a verifier's.

    Raises LabelError for another outcome, or an id that is not 1 to 64 letters.
    """

    label: str
    session: str
    episode: int
    outcome: Outcome
    source: str
    made: float
    token: str = ""
    quarantined: bool = False

    @property
    def of(self) -> _Episode:
        """The episode that it is of."""
        return self.session, self.token, self.episode

    @property
    def identity(self) -> _Identity:
        """What no other label has."""
        return *self.of, self.label

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise LabelError(f"outcome {self.outcome!r}: expected 'success' or 'failure'")
        if not isinstance(self.label, str) or not 0 < len(self.label) <= 64:
            raise LabelError(f"label id {str(self.label)[:80]!r}: expected 1 to 64 letters")


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
            self._history, self._path = _History(most), path
            unprocessed = self._history.read(path)
            self._shorten(unprocessed)
            self._log = JsonLog(path, _line)
        except BaseException:
            self._lock.release()
            raise
        self.stored, self.dead = self._history.count, self._history.dead
        self.damaged, self._retry_s = len(self._history.damaged), retry_s
        if self.damaged:
            report(_set_aside(path, self._history.damaged))
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
            self._lock.check()
            self._log.append({"label": _to_disk(label)})
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
        over = [label for label in self._held if label.session == session and label.episode <= episode]
        if not over:
            return  # without the lock, which is held while a label is written
        with self._changed:
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
        self._log.close()
        self._lock.release()

    def _shorten(self, pending: list[Label]) -> None:
        """Once it is long the file begins anew, with the labels that are pending or remembered; the file before stays
        beside it under another name, and is read no more."""
        history = self._history
        if history.lines <= _LONG * history.most or history.damaged:
            return
        waiting = {label.identity for label in pending}
        kept = history.labels | {label.identity: label for label in pending}
        lines = []
        for identity, label in kept.items():
            lines.append({"label": _to_disk(label)})
            if identity not in waiting:
                lines.append(_reference("done", label) | {"said": "in an earlier file"})
        number = 1 + max((int(p.suffixes[-2][1:]) for p in _earlier(self._path)), default=0)
        os.link(self._path, self._path.with_suffix(f".{number}.jsonl"))
        write_atomically(self._path, "".join(f"{_line(line)}\n" for line in lines))
        history.lines = len(lines)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and self._history.lines > _LONG * self._history.most and not self._closing:
                    self._lock.check()
                    self._log.close()
                    try:
                        self._shorten([*self._pending(), *self._quarantined])
                    finally:
                        self._log = JsonLog(self._path, _line)
                while not (self._closing or self._waiting or self._due() is not None):
                    self._changed.wait(self._pause())
                if self._closing:
                    return
                again = None if self._waiting else self._due()
                label = self._waiting[0] if again is None else again.label
            try:
                result = "another label of this episode counts" if self._superseded(label) else self._process(label)
                with self._changed:
                    self._lock.check()
                    self._log.append(_reference("done", label) | {"said": result, "at": time.time()})
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
                    self._lock.check()
                    self._log.append(_reference("dead", label) | {"why": why[:500], "at": time.time()})
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


class _History:
    """What the last `most` labels say, and the newest id of each episode."""

    def __init__(self, most: int) -> None:
        self.most, self.count, self.dead, self.lines = most, 0, 0, 0
        self.labels: dict[_Identity, Label] = {}
        self.damaged: list[tuple[bytes, LineError]] = []
        self.known: dict[_Identity, tuple[str, str]] = {}
        self.newest: dict[_Episode, str] = {}

    def has(self, label: Label) -> bool:
        """Whether this label is known. Raises LabelConflictError for another of its identity."""
        says = self.known.get(label.identity)
        if says is not None and says != (label.outcome, label.source):
            raise LabelConflictError(
                f"label '{label.label}' of {label.session}/{label.episode} says {says[0]} by {says[1]} already, not "
                f"{label.outcome} by {label.source}: give a label that corrects it an id of its own"
            )
        return says is not None

    def remember(self, label: Label) -> None:
        """That an episode is unlabelled is not its newest label. What is older than `most` others is forgotten."""
        self.known[label.identity] = label.outcome, label.source
        self.labels[label.identity] = label
        if label.outcome != "unlabelled" and not label.quarantined:
            self.newest.pop(label.of, None)
            self.newest[label.of] = label.label
        if len(self.known) > self.most:
            oldest = next(iter(self.known))
            del self.known[oldest]
            del self.labels[oldest]
        if len(self.newest) > self.most:
            del self.newest[next(iter(self.newest))]

    def read(self, path: Path) -> list[Label]:
        """Remembers every label of a file, and gives those that were not processed."""
        pending: dict[_Identity, Label] = {}
        by_id: dict[str, _Identity] = {}
        for entry in read_lines(path, _from_disk, "label", lambda *line: self.damaged.append(line)):
            self.lines += 1
            if isinstance(entry, Label):
                pending[entry.identity] = entry
                by_id[entry.label] = entry.identity
                self.remember(entry)
                self.count += 1
            elif isinstance(entry, _Dead):
                pending.pop(entry.identity, None)
                self.dead += 1
            elif isinstance(entry, tuple):
                pending.pop(entry, None)
            elif entry in by_id:
                pending.pop(by_id[entry], None)
        return list(pending.values())


def _line(body: dict[str, Any]) -> str:
    return json.dumps(sealed(body), sort_keys=True)


def _earlier(path: Path) -> list[Path]:
    """Files that it replaced."""
    return [p for p in path.parent.glob(f"{path.stem}.*.jsonl") if p.suffixes[-2][1:].isdigit()]


def _set_aside(path: Path, damaged: list[tuple[bytes, LineError]]) -> str:
    """Puts damaged lines into a file beside the labels; a line about them."""
    aside = path.with_name(f"{path.name}.damaged")
    line = f"{len(damaged)} lines of {path} are damaged, and the labels in them lost; the first: {damaged[0][1]}"
    try:
        write_atomically(aside, b"".join(raw for raw, _ in damaged))
    except OSError as error:
        return f"{line} (they could not be set aside in {aside}: {error})"
    return f"{line} (they are set aside in {aside})"


def _to_disk(label: Label) -> dict[str, Any]:
    body = asdict(label) | {"outcome": _ON_DISK.get(label.outcome, label.outcome)}
    return {name: value for name, value in body.items() if value or name not in ("token", "quarantined")}


def _reference(what: str, label: Label) -> dict[str, Any]:
    return {what: label.label, "session": label.session, "token": label.token, "episode": label.episode}


@dataclass(frozen=True)
class _Dead:
    identity: _Identity


def _from_disk(line: Any) -> "Label | _Identity | _Dead | str":
    """A label, one that was given up, or the identity of one that was processed.

    Of one that version 0.1 processed it is the id alone, which no two labels had.
    """
    line = unsealed(line)
    if not line.keys() <= _ENTRIES:
        raise ValueError(f"unknown entries {sorted(line.keys() - _ENTRIES)}")
    if "dead" in line:
        return _Dead((line["session"], line["token"], line["episode"], line["dead"]))
    if "label" not in line:
        processed: str = line["done"]
        return (line["session"], line["token"], line["episode"], processed) if "session" in line else processed
    body = line["label"]
    return Label(**(body | {"outcome": _FROM_DISK.get(body["outcome"], body["outcome"])}))
