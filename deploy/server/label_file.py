"""The file of labels: a line for each, a line for each that was processed, and what of it is remembered."""

import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vlamem.core.checksums import sealed, unsealed_line
from vlamem.core.files import write_atomically
from vlamem.core.jsonl import LineError, read_lines

Outcome = Literal["success", "failure", "unlabelled"]
"""unlabelled: nobody labelled the episode before the next one began, and the server's verifier judges it."""
_OUTCOMES = get_args(Outcome)
_ON_DISK = {"unlabelled": "unsaid"}
"""Outcomes that version 0.1 wrote under another name."""
_FROM_DISK = {old: new for new, old in _ON_DISK.items()}
_ENTRIES = {"label", "done", "dead", "session", "token", "episode", "said", "why", "at"}
type EpisodeName = tuple[str, str, int]
"""Session, its token's mark, and number of the episode."""
type LabelIdentity = tuple[str, str, int, str]
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
    def of(self) -> EpisodeName:
        """The episode that it is of."""
        return self.session, self.token, self.episode

    @property
    def identity(self) -> LabelIdentity:
        """What no other label has."""
        return *self.of, self.label

    def __post_init__(self) -> None:
        if self.outcome not in _OUTCOMES:
            raise LabelError(f"outcome {self.outcome!r}: expected 'success' or 'failure'")
        if not isinstance(self.label, str) or not 0 < len(self.label) <= 64:
            raise LabelError(f"label id {str(self.label)[:80]!r}: expected 1 to 64 letters")


class History:
    """What the last `most` labels say, and the newest id of each episode."""

    def __init__(self, most: int) -> None:
        self.most, self.count, self.dead, self.lines = most, 0, 0, 0
        self.labels: OrderedDict[LabelIdentity, Label] = OrderedDict()  # a dict is slow to lose its oldest
        self.damaged: list[tuple[bytes, LineError]] = []
        self.known: OrderedDict[LabelIdentity, tuple[str, str]] = OrderedDict()
        self.newest: OrderedDict[EpisodeName, str] = OrderedDict()

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
        identity, of = label.identity, label.of
        self.known[identity] = label.outcome, label.source
        self.labels[identity] = label
        if label.outcome != "unlabelled" and not label.quarantined:
            self.newest[of] = label.label
            self.newest.move_to_end(of)
        if len(self.known) > self.most:
            oldest, _ = self.known.popitem(last=False)
            del self.labels[oldest]
        if len(self.newest) > self.most:
            self.newest.popitem(last=False)

    def read(self, path: Path) -> list[Label]:
        """Remembers every label of a file, and gives those that were not processed."""
        pending: dict[LabelIdentity, Label] = {}
        by_id: dict[str, LabelIdentity] = {}
        for entry in read_lines(path, _from_disk, "label", lambda *line: self.damaged.append(line), unsealed_line):
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


def line_of(body: dict[str, Any]) -> str:
    """The line of an entry, with its checksum."""
    return json.dumps(sealed(body), sort_keys=True)


def earlier_files(path: Path) -> list[Path]:
    """Files that it replaced."""
    return [p for p in path.parent.glob(f"{path.stem}.*.jsonl") if p.suffixes[-2][1:].isdigit()]


def set_aside(path: Path, damaged: list[tuple[bytes, LineError]]) -> str:
    """Puts damaged lines into a file beside the labels; a line about them."""
    aside = path.with_name(f"{path.name}.damaged")
    line = f"{len(damaged)} lines of {path} are damaged, and the labels in them lost; the first: {damaged[0][1]}"
    try:
        write_atomically(aside, b"".join(raw for raw, _ in damaged))
    except OSError as error:
        return f"{line} (they could not be set aside in {aside}: {error})"
    return f"{line} (they are set aside in {aside})"


def to_disk(label: Label) -> dict[str, Any]:
    """A label as its line has it, with the outcome under the name that version 0.1 reads."""
    body = asdict(label) | {"outcome": _ON_DISK.get(label.outcome, label.outcome)}
    return {name: value for name, value in body.items() if value or name not in ("token", "quarantined")}


def reference(what: str, label: Label) -> dict[str, Any]:
    """The entry that says of a label what became of it: `what` is "done" or "dead"."""
    return {what: label.label, "session": label.session, "token": label.token, "episode": label.episode}


@dataclass(frozen=True)
class _Dead:
    identity: LabelIdentity


def _from_disk(line: Any) -> "Label | LabelIdentity | _Dead | str":
    """A label, one that was given up, or the identity of one that was processed.

    Of one that version 0.1 processed it is the id alone, which no two labels had.
    """
    if not line.keys() <= _ENTRIES:
        raise ValueError(f"unknown entries {sorted(line.keys() - _ENTRIES)}")
    if "dead" in line:
        return _Dead((line["session"], line["token"], line["episode"], line["dead"]))
    if "label" not in line:
        processed: str = line["done"]
        return (line["session"], line["token"], line["episode"], processed) if "session" in line else processed
    body = line["label"]
    return Label(**(body | {"outcome": _FROM_DISK.get(body["outcome"], body["outcome"])}))
