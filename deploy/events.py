"""The robot side's account of itself: one JSON line for each thing that happened, written off the control loop."""

import json
import queue
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any


class EventLog:
    """Counts events by kind, and writes them to a file from a thread of its own; `note` never waits for a disk.

    Without a path events are counted alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._path = path
        self._thread: threading.Thread | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._thread = threading.Thread(target=self._write, name="events", daemon=True)
            self._thread.start()

    def note(self, event: str, **what: Any) -> None:
        """Something happened."""
        self.counts[event] += 1
        if self._thread is not None:
            self._queue.put({"t": time.time(), "event": event} | what)

    def close(self) -> None:
        """Writes what is left."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _write(self) -> None:
        assert self._path is not None
        with self._path.open("a", encoding="utf-8", buffering=1 << 16) as file:
            while (line := self._queue.get()) is not None:
                file.write(json.dumps(line, default=str) + "\n")
                if self._queue.empty():
                    file.flush()
