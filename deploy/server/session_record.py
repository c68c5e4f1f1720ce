"""The record of a session on disk: which policy and memory it belongs to, its token's hash and its episode."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.checksums import sealed, unsealed
from vlamem.core.files import write_atomically

FORMAT = 1
IN_USE = "end that server, or give another --state"
"""The mend where another process holds a lock of the state folder."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FILE = "session.json"


type Fence = tuple[int, str]
"""Epoch and name of a controller: of two on one session the one of the higher epoch drives."""


class StateError(ValueError):
    """A stored session that does not exist, is damaged or belongs to something else; the message names both."""


class DamagedError(StateError):
    """A stored session that cannot be read."""


@dataclass(frozen=True)
class Owner:
    """The policy and memory that a stored session belongs to.

    Attributes:
        policy: name of the frozen policy.
        fingerprint: of its spec.
        normaliser: hash of its normaliser.
        memory: hash of the memory's weights, "none" without one.
        layout: name, dtype and shape of each array of the memory's state.
        version: of this format.
    """

    policy: str
    fingerprint: str
    normaliser: str
    memory: str
    layout: str
    version: int = FORMAT

    def check(self, other: "Owner", where: str) -> None:
        """Raises StateError naming the first field in which what is stored at `where` (self) differs from `other`."""
        for name, mine in asdict(self).items():
            theirs = getattr(other, name)
            if mine != theirs:
                raise StateError(
                    f"{where} belongs to {name} {mine!r}, this server has {theirs!r}: serve the policy and memory that "
                    "wrote it, or begin a new session"
                )


@dataclass(frozen=True)
class StoredSession:
    """The record of a session.

    Attributes:
        name: of the session.
        owner: of its memory.
        token: SHA-256 of the token that resumes it.
        episode: number of its episode, 1 for the first; 0 before it.
        saved: time at which its episode began or ended [s since 1970].
        ended: whether that episode is over.
        epoch, writer: the controller that drives it: how often one was started, and which one this is.
    """

    name: str
    owner: Owner
    token: str
    episode: int
    saved: float
    ended: bool = False
    epoch: int = 0
    writer: str = ""

    @property
    def fence(self) -> Fence:
        """Epoch and writer."""
        return self.epoch, self.writer


def check_name(name: object) -> str:
    """`name`, when it may be the name of a session (and so of a folder). Raises StateError otherwise."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise StateError(f"session {str(name)[:80]!r}: expected 1 to 64 letters, digits, '_', '-' or '.'")
    return name


def layout_of(state: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The layout of a memory's state in one line."""
    return " ".join(f"{k}:{v.dtype.str}:{'x'.join(map(str, v.shape))}" for k, v in sorted(state.items()))


def template_of(layout: str) -> dict[str, np.ndarray[Any, Any]]:
    """An empty state of a layout, the reverse of `layout_of`. Raises StateError for text that is none."""
    found = {}
    for word in layout.split():
        name, _, rest = word.partition(":")
        kind, _, shape = rest.partition(":")
        if kind != "<f4" or not name:
            raise StateError(f"memory layout {word[:80]!r} is not of float32 arrays")
        found[name] = np.zeros([int(n) for n in shape.split("x") if n], np.float32)
    return found


def hash_token(token: str) -> str:
    """The hash of a token, which is all that is stored of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def write_record(folder: Path, session: StoredSession) -> None:
    """Writes the record of the session stored in a folder; on the medium when this returns. Raises OSError."""
    write_atomically(folder / _FILE, json.dumps(sealed(asdict(session)), indent=1, sort_keys=True))


def read_record(folder: Path) -> StoredSession:
    """The record of the session stored in a folder. Raises StateError when there is none or it is damaged."""
    path = folder / _FILE
    try:
        body = unsealed(json.loads(path.read_text(encoding="utf-8")))
        return StoredSession(**(body | {"owner": Owner(**body["owner"])}))
    except FileNotFoundError as error:
        raise StateError(f"there is no session '{folder.name}' in {folder.parent}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({error}): remove the folder of this session") from error


def has_record(folder: Path) -> bool:
    """Whether a session is stored in a folder."""
    return (folder / _FILE).exists()


def stored_sessions(folder: Path) -> list[Path]:
    """The folders of the sessions stored below `folder`, the one changed longest ago first."""
    return [record.parent for record in sorted(folder.glob(f"*/{_FILE}"), key=lambda p: p.stat().st_mtime)]
