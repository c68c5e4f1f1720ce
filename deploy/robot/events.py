"""The robot side's account of itself: one JSON line for each thing that happened, written off the control loop."""

import json
import os
import queue
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

_MOST = 10_000
"""Events that may wait for the disk; beyond it they are counted and lost."""


class EventLog:
    """Counts events by kind, and writes them to a file from a thread of its own; `note` never waits for a disk.

    Without a path events are counted alone. An event that cannot be written is counted as "event_lost", and `trouble`
    says why until one is written again. Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.trouble: str | None = None
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._thread = threading.Thread(target=self._write, args=(file, path), name="events", daemon=True)
            self._thread.start()

    def note(self, event: str, **what: Any) -> None:
        """Something happened."""
        self.counts[event] += 1
        if self._thread is None:
            return
        if self._queue.qsize() < _MOST:
            self._queue.put({"t": time.time(), "event": event} | what)
        else:
            self.counts["event_lost"] += 1

    def close(self) -> None:
        """Writes what is left."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _write(self, file: int, path: Path) -> None:
        cut = b""
        while (event := self._queue.get()) is not None:
            line = (json.dumps(event, default=str) + "\n").encode()
            try:
                if os.write(file, cut + line) != len(cut + line):
                    cut = b"\n"  # the next event has a line of its own
                    raise OSError(f"{path} took a part of an event: the disk is full")
                cut, self.trouble = b"", None
            except OSError as error:
                self.counts["event_lost"] += 1
                self.trouble = f"events are not written ({error})"
        os.close(file)
