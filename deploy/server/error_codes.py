"""What a client hears when something fails: a code for each kind of failure, and a line."""

import errno

from vlamem.core.locks import InUseError
from vlamem.deploy.server.labels import LabelConflictError, LabelError, LabelLimitError
from vlamem.deploy.server.observations import ObservationError
from vlamem.deploy.server.session_record import DamagedError, StateError
from vlamem.deploy.server.session_store import SessionsFullError
from vlamem.deploy.server.sessions import SessionError
from vlamem.deploy.wire import WireError
from vlamem.memory.designs.aura.journal import JournalError
from vlamem.policies.memory_policy import NotFiniteError

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (WireError, "message"),
    (ObservationError, "observation"),
    (SessionsFullError, "full"),
    (DamagedError, "damaged"),
    (JournalError, "damaged"),
    (StateError, "state"),
    (LabelConflictError, "conflict"),
    (LabelLimitError, "limit"),
    (LabelError, "label"),
    (NotFiniteError, "nan"),
    (InUseError, "unavailable"),
)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}


def code_of(error: Exception) -> str:
    """The code of an error; "internal" for one that the client has no part in and cannot name."""
    if isinstance(error, SessionError):
        return error.code
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError) and error.errno in _DISK:
        return "disk"
    return "observation" if type(error).__name__ == "InstructionError" else "internal"


def text_of(error: Exception) -> str:
    """The line that a client gets."""
    code = code_of(error)
    if code == "internal":
        return "the policy failed on this observation: the server's log has more under this id"
    if code == "disk":
        return f"the server's disk took nothing ({getattr(error, 'strerror', None) or 'it failed'}): make room there"
    return str(error)
