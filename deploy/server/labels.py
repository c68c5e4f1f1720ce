"""Labels of episodes: on disk before they are acknowledged, and carried out off the control loop, once each.

`labels.jsonl` has a line for each label and a line for each that was carried out; what a crash leaves undone is done at
the next start. A label of an episode that still runs is held until that is over, so that it finds all of it.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vlamem.core.locks import sole
from vlamem.deploy.server.persistence import sync_folder

Outcome = Literal["success", "failure", "unsaid"]
"""unsaid: nobody labelled the episode before the next one began, and the server's verifier is asked."""


class LabelError(ValueError):
    """A label that means nothing or cannot be kept; the message says why."""


@dataclass(frozen=True)
class Label:
    """What someone said of an episode.

    Attributes:
        label: its own name; a second label of that name is the same one, sent again.
        session, episode: which episode.
        outcome: see Outcome.
        source: who said it, e.g. "operator".
        made: when [s since 1970].
    """

    label: str
    session: str
    episode: int
    outcome: Outcome
    source: str
    made: float

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise LabelError(f"outcome {self.outcome!r}: expected 'success' or 'failure'")
        if not isinstance(self.label, str) or not 0 < len(self.label) <= 64:
            raise LabelError(f"label id {str(self.label)[:80]!r}: expected 1 to 64 letters")


class LabelDesk:
    """Takes labels, keeps them, and hands each to `carry_out` in a thread of its own.

    `carry_out` returns one line that says what it did; when it raises, the label stays undone and is tried again at the
    next start, and `report` is told. Of several labels of an episode the newest counts. A label whose episode `runs` at
    the start is held until it is released.

    Attributes:
        taken: labels on disk.
        judges: whether `carry_out` can judge episodes that nobody labelled, so that it is to be given these too.
    """

    def __init__(
        self,
        path: Path,
        carry_out: Callable[[Label], str],
        report: Callable[[str], None] = lambda line: None,
        most: int = 10_000,
        runs: Callable[[Label], bool] = lambda label: False,
        judges: bool = False,
    ) -> None:
        """`most`: names that are remembered; a label that comes again after as many others counts as a new one.

        Raises LabelError for a file that is damaged, InUseError for one that another process has.
        """
        self._carry_out, self._report, self._most, self.judges = carry_out, report, most, judges
        self._lock = sole(path.with_name(f".{path.name}.lock"), str(path))
        try:
            self._known, undone, self.taken, self._newest = _read(path, most)
        except BaseException:
            self._lock.release()
            raise
        self._held = [label for label in undone if runs(label)]
        self._waiting = [label for label in undone if label not in self._held]
        self._failed: list[Label] = []
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._file).st_size
        sync_folder(path.parent)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="labels", daemon=True)
        self._thread.start()

    def take(self, label: Label, hold: bool = False) -> bool:
        """Keeps a label: on disk when this returns. False for one taken before. Raises OSError on a full disk.

        With `hold` it is carried out when `release` says that its episode is over.
        """
        with self._changed:
            if label.label in self._known:
                return False
            self._append({"label": asdict(label)})
            _remember(self._known, self._newest, label, self._most)
            self.taken += 1
            (self._held if hold else self._waiting).append(label)
            self._changed.notify_all()
            return True

    def release(self, session: str, episode: int) -> None:
        """Episode `episode` of a session is over, and all before it: labels that were held for them are carried out."""
        over = [label for label in self._held if label.session == session and label.episode <= episode]
        if not over:
            return  # without the lock, which is held while a label is written
        with self._changed:
            self._waiting += over  # before they are held no more: at no moment is a label in no list
            self._held = [label for label in self._held if label not in over]
            self._changed.notify_all()

    @property
    def undone(self) -> frozenset[tuple[str, int]]:
        """Session and episode of every label that is not carried out: what they consisted of is still wanted.

        Read without the lock, which is held while a label is written: who asks has robots to serve.
        """
        return frozenset((label.session, label.episode) for label in self._undone())

    def _undone(self) -> list[Label]:
        return self._held + self._waiting + self._failed

    @property
    def held(self) -> frozenset[str]:
        """Sessions with labels that wait for the end of an episode."""
        return frozenset(label.session for label in self._held)

    def settle(self, timeout_s: float) -> bool:
        """Waits until every label that is not held was carried out or reported; False when it took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self) -> None:
        """Ends the thread after the label at hand; the others wait for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        os.close(self._file)
        self._lock.release()

    def _append(self, line: dict[str, Any]) -> None:
        """One line, on the medium when this returns. Raises OSError when it is not: then nothing of it stays."""
        data = (json.dumps(line, sort_keys=True) + "\n").encode()
        os.ftruncate(self._file, self._size)  # cuts what stayed of a line that could not be taken back
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes of a label were written: the disk is full")
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                label = self._waiting[0]
            try:
                said = "another label says what it was" if self._outdone(label) else self._carry_out(label)
                with self._changed:
                    self._append({"done": label.label, "said": said, "at": time.time()})
                self._failed = [f for f in self._failed if (f.session, f.episode) != (label.session, label.episode)]
            except Exception as error:  # whatever the store raises, the next label must have its turn
                self._failed.append(label)
                self._report(f"label '{label.label}' of {label.session}/{label.episode} stays undone: {error}")
            with self._changed:
                self._waiting.pop(0)
                self._changed.notify_all()

    def _outdone(self, label: Label) -> bool:
        """Whether someone has a later word of the episode; that nobody labelled it gives way to any word undone."""
        if label.outcome == "unsaid":
            words = ((o.session, o.episode) for o in self._undone() if o.outcome != "unsaid")
            return (label.session, label.episode) in words
        return self._newest.get((label.session, label.episode)) not in (None, label.label)


def _remember(known: dict[str, None], newest: dict[tuple[str, int], str], label: Label, most: int) -> None:
    """Its name, and that it is the newest word of its episode; that nobody labelled that is no word.

    Both forget what is older than `most` others.
    """
    known[label.label] = None
    if label.outcome != "unsaid":
        newest.pop((label.session, label.episode), None)
        newest[label.session, label.episode] = label.label
    if len(known) > most:
        del known[next(iter(known))]
    if len(newest) > most:
        del newest[next(iter(newest))]


def _read(path: Path, most: int) -> tuple[dict[str, None], list[Label], int, dict[tuple[str, int], str]]:
    """The last `most` names, the labels not carried out, how many there are, and the newest of each episode.

    A last line cut short was never acknowledged: it is removed.
    """
    known: dict[str, None] = {}
    undone: dict[str, Label] = {}
    newest: dict[tuple[str, int], str] = {}
    whole = taken = 0
    if not path.exists():
        return known, [], 0, newest
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                os.truncate(path, whole)
                break
            whole += len(line)
            try:
                body = json.loads(line)
                if "label" in body:
                    label = Label(**body["label"])
                    undone[label.label] = label
                    _remember(known, newest, label, most)
                    taken += 1
                else:
                    undone.pop(body["done"], None)
            except (ValueError, KeyError, TypeError) as error:
                raise LabelError(f"{path}, line {number} is no label ({error}): mend or remove that line") from error
    return known, list(undone.values()), taken, newest
