"""One thing that `vlamem doctor` looked at, on a machine or in a checkpoint."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "absent", "undeclared", "broken", "refused"]


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what.
        status: "absent" for an optional part that is not installed, which is no fault; "undeclared" for what a
            checkpoint does not say and an option would; "broken" for a fault of the machine, "refused" for what keeps a
            checkpoint from being used.
        found: what is there.
        mend: what to do about it; empty when it is ok.
    """

    name: str
    status: Status
    found: str
    mend: str = ""

    @property
    def fails(self) -> bool:
        """Whether something has to be mended first."""
        return self.status in ("broken", "refused")
