"""Sessions of a server: one row of the policy each, bounded in number and idle time, resumed with a token."""

import asyncio
import hmac
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vlamem.deploy.bounds import longest_episode, longest_gap
from vlamem.deploy.server.session_record import Fence, StoredSession, check_name, hash_token


class SessionError(ValueError):
    """A session that cannot be had, or a message out of its order.

    Attributes:
        code: "full", "taken", "fenced", "unknown", "episode", "order", "role" or "limit".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of the sessions.

    Attributes:
        count: sessions at a time, each with a row of the policy.
        idle_s: after it a session without a connection ends, and one whose connection is silent ends when another needs
            its row; what is on disk stays.
        bytes: that the episodes of one session may take on disk until they are labelled.
        rate_hz: messages a second of one connection; beyond it the reader waits.
        burst: messages that may come at once.
        send_s: a client that does not read for this long is disconnected.
        errors: messages of one connection that may be wrong before it is closed.
    """

    count: int = 16
    idle_s: float = 300.0
    bytes: int = 128 << 20
    rate_hz: float = 200.0
    burst: int = 600
    send_s: float = 5.0
    errors: int = 50


@dataclass
class Session:
    """One robot's session at the server.

    Attributes:
        name: of the session.
        token: SHA-256 of what resumes it.
        row: of the policy; the session alone uses it.
        persistent: whether it is kept when its connection ends.
        episode: number of its episode, 1 for the first; 0 before it.
        step: last step of the episode that the memory saw; -1 before the first.
        stepped: when it saw that [s on the table's clock]; None where that is not known.
        ended: whether the episode is over; its labels are processed then.
        reply: to that step, sent again when the step comes again.
        connection: that has it now.
        used: when it was last used [s on the table's clock].
        record: what is on disk, or None when nothing is.
        fence: the controller that drives it.
        key: the number of the key that its client has shown; None without keys.
        lock: held while a message of it is worked on.
    """

    name: str
    token: str
    row: int
    persistent: bool
    episode: int = 0
    step: int = -1
    stepped: float | None = None
    ended: bool = False
    reply: dict[str, Any] | None = None
    connection: Any = None
    used: float = 0.0
    record: StoredSession | None = None
    fence: Fence = (0, "")
    key: int | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check_step(self, episode: int, step: int, now: float, control_hz: float) -> bool:
        """Whether the step is new; False for one that the memory has seen.

        Raises SessionError for another episode than the one that runs, and for a step that control at this rate
        cannot have reached `now`.
        """
        if episode != self.episode:
            raise SessionError(
                "episode",
                f"episode {episode} does not run in session '{self.name}' but {self.episode or 'none'}: start it first",
            )
        most = longest_episode(control_hz)
        if self.stepped is not None:
            most = min(most, self.step + longest_gap(control_hz) + math.ceil((now - self.stepped) * control_hz))
        if step > most:
            raise SessionError(
                "limit",
                f"step {step} of session '{self.name}' cannot have come after step {self.step} at {control_hz:g} Hz: "
                f"expected at most {most}; count one step a control period",
            )
        return step > self.step


class SessionTable:
    """The sessions of a server. Not for several threads.

    Of several keys that drive robots one may have so many sessions that each of the others still has a place.

    Args:
        limits: of the sessions.
        rows: of the policy.
        keys: that may have sessions.
        key_of: which key a connection has shown; None without keys.

    Raises ValueError when there are more sessions than rows.
    """

    def __init__(
        self,
        limits: SessionLimits,
        rows: int,
        keys: int = 1,
        key_of: Callable[[Any], int | None] = lambda connection: None,
    ) -> None:
        if limits.count > rows:
            raise ValueError(f"{limits.count} sessions need as many rows, the policy has {rows}")
        self.limits, self._key_of = limits, key_of
        self._share = max(1, limits.count - max(0, keys - 1))
        self._free = list(range(limits.count))[::-1]
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def full(self) -> bool:
        """Whether no row is free."""
        return not self._free

    @property
    def connected(self) -> int:
        """Sessions that someone holds now."""
        return sum(s.connection is not None for s in self._sessions.values())

    def check_share(self, connection: Any, now: float) -> None:
        """Raises SessionError when the key of a connection has all the sessions that it may have; those that are idle
        do not count, since they go when another needs the place."""
        key, idle = self._key_of(connection), self.idle(now)
        held = sum(s.key == key and s not in idle for s in self._sessions.values())
        if key is not None and self._share < self.limits.count and held >= self._share:
            raise SessionError(
                "full",
                f"{held} sessions of this key are in use, of {self.limits.count}, and each other key has a place: end "
                "one, or try again later",
            )

    def get(self, name: str) -> Session | None:
        """The session of this name, or None."""
        return self._sessions.get(name)

    def create(self, name: str | None, connection: Any, now: float, nonce: str | None = None) -> tuple[Session, str]:
        """A new session, with the token that resumes it: the client's `nonce` where it sent one; without a name it ends
        with its connection.

        Raises StateError for a name that may not be one, SessionError when the name is taken or the table is full.
        """
        persistent = name is not None
        name = check_name(name) if name is not None else f"anonymous-{secrets.token_hex(8)}"
        if name in self._sessions:
            raise SessionError("taken", f"session '{name}' is in use: resume it with its token, or choose another name")
        token = nonce or secrets.token_urlsafe(24)
        return self.adopt(Session(name, hash_token(token), -1, persistent), connection, now), token

    def adopt(self, session: Session, connection: Any, now: float) -> Session:
        """Gives a session that was stored a row and a connection. Raises SessionError when the table is full."""
        self.check_share(connection, now)
        if not self._free:
            raise SessionError("full", f"all {self.limits.count} sessions are in use: try again later")
        session.row, session.key = self._free.pop(), self._key_of(connection)
        session.connection, session.used = connection, now
        self._sessions[session.name] = session
        return session

    def resume(self, name: str, token: str, connection: Any, now: float, fence: Fence = (0, "")) -> Session | None:
        """Gives a session to a connection that has its token; None when there is none of this name.

        Raises SessionError when the token is another, saying no more than that, or another controller drives it.
        """
        session = self._sessions.get(name)
        if session is None:
            return None
        check_token(session.token, token, name)
        check_fence(session.fence, fence, name)
        session.connection, session.used = connection, now
        session.key = self._key_of(connection)
        session.fence = max(session.fence, fence)  # now, and not when its lock is free: an older one could come between
        session.stepped = None  # frames may have been lost meanwhile
        return session

    def disconnect(self, session: Session, connection: Any, now: float) -> bool:
        """A connection ends. True when the session ends with it, and its row is free again."""
        if session.connection is not connection:
            return False  # someone else has resumed it
        session.connection, session.used = None, now
        if not session.persistent:
            self.drop(session)
            return True
        return False

    def idle(self, now: float) -> list[Session]:
        """Sessions without a message for `idle_s`, the first to end first: those without a connection, by age."""
        silent = [s for s in self._sessions.values() if now - s.used > self.limits.idle_s and not s.lock.locked()]
        return sorted(silent, key=lambda s: (s.connection is not None, s.used))

    def unused(self) -> list[Session]:
        """Sessions that have had no episode and are not worked on now, the oldest first."""
        found = [s for s in self._sessions.values() if s.episode == 0 and not s.lock.locked()]
        return sorted(found, key=lambda s: s.used)

    def drop(self, session: Session) -> None:
        """Ends a session; its row is free again."""
        session.connection = None  # whoever holds it has nothing any more
        if self._sessions.get(session.name) is session:
            del self._sessions[session.name]
            self._free.append(session.row)


def check_token(stored: str, given: str, name: str) -> None:
    """Raises SessionError unless `given` is the token whose hash is `stored`; takes the same time whatever it is."""
    if not hmac.compare_digest(stored, hash_token(given)):
        raise SessionError("taken", f"session '{name}' is not resumed by this token: begin one of another name")


def check_fence(driving: Fence, given: Fence, name: str) -> None:
    """Raises SessionError for a controller that was started before the one that drives a session, or beside it."""
    if given[0] < driving[0] or (given[0] == driving[0] and given[1] != driving[1]):
        raise SessionError(
            "fenced",
            f"session '{name}' is driven by another controller, of epoch {driving[0]}, and not by this one, of epoch "
            f"{given[0]}: end one of the two; the one that is started last drives",
        )
