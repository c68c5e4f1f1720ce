"""A process and its thread made fit for a control loop: real-time scheduling, no pauses of the garbage collector."""

import gc
import os
import sys
from dataclasses import dataclass

_SWITCH_S = 0.0005
"""Other threads of this process yield to the loop after it; Python's default of 5 ms would be its jitter."""


@dataclass(frozen=True)
class Scheduling:
    """Whether the operating system runs the loop before ordinary processes, and the reason."""

    realtime: bool
    reason: str


def prepare_process(priority: int = 20) -> Scheduling:
    """Makes this process fit for a control loop; to be called in the loop's thread after the others have started."""
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.disable()
    if not hasattr(os, "sched_setscheduler"):
        return Scheduling(False, "this system has no real-time scheduling")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return Scheduling(False, "not permitted: run as root or with CAP_SYS_NICE for steadier timing")
    return Scheduling(True, f"SCHED_FIFO {priority}")


def restore_process() -> None:
    """Undoes `prepare_process`."""
    gc.enable()
    gc.unfreeze()
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
