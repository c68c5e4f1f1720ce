"""Who a client is: the role of the key that it shows."""

import hmac
from collections.abc import Sequence
from typing import Literal, get_args

Role = Literal["reader", "robot", "verifier", "operator"]
"""reader: figures alone. robot: drives sessions; its labels wait for an operator's or a verifier's.
verifier: labels the episodes of every session. operator: all of it."""
ROLES: tuple[Role, ...] = get_args(Role)
DRIVES: frozenset[Role] = frozenset({"robot", "operator"})
"""Roles that may have a session."""
LABELS_ANY: frozenset[Role] = frozenset({"verifier", "operator"})
"""Roles that may label the episodes of any session, and whose labels count at once."""


class Keys:
    """The keys of a server with their roles; without one every client is an operator.

    Attributes:
        driving: keys that may have sessions.

    Raises ValueError for a key that stands twice.
    """

    def __init__(self, keys: Sequence[tuple[Role, str]] = ()) -> None:
        self._keys = tuple((role, key.encode()) for role, key in keys)
        self.driving = sum(role in DRIVES for role, _ in self._keys)
        if len({key for _, key in self._keys}) != len(self._keys):
            raise ValueError("a key stands twice among the keys of the server: give each role its own")

    def role_of(self, authorization: str | None) -> Role | None:
        """The role of an Authorization header, "Api-Key KEY" or "Bearer KEY"; None for one that no key has."""
        if not self._keys:
            return "operator"
        number = self.number_of(authorization)
        return None if number is None else self._keys[number][0]

    def number_of(self, authorization: str | None) -> int | None:
        """Which key an Authorization header shows; None for one that is no key."""
        scheme, _, shown = (authorization or "").partition(" ")
        found: int | None = None
        for number, (_, key) in enumerate(self._keys):  # all of them: the time it takes says nothing
            if hmac.compare_digest(shown.strip().encode(), key):
                found = number
        return found if scheme.lower() in ("api-key", "bearer") else None


def source_of(role: Role, said: str | None) -> str:
    """The source of a label: the role of the key that it came with, and what the client says of itself behind it."""
    return role if said in (None, role) else f"{role}:{said}"
