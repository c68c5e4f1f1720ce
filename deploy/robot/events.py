"""The log of the robot's side: one JSON line an event, written in a thread beside the control loop."""

import json
import queue
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from vlamem.core.jsonl import JsonLog

_MOST = 10_000
"""Events that may wait for the disk; beyond it they are counted and lost."""


class EventLog:
    """Counts events by kind, and writes them to a file from a thread of its own; `note` never waits for a disk.

    Without a path events are counted alone. An event that cannot be written is counted as "event_lost", and `trouble`
    says why until one is written again. Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._counting = threading.Lock()  # loop, link, watchdog and panel count
        self.trouble: str | None = None
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if path is not None:
            log = JsonLog(path, _line, sync=False)
            self._thread = threading.Thread(target=self._write, args=(log, path), name="events", daemon=True)
            self._thread.start()

    def note(self, event: str, **what: Any) -> None:
        """Counts an event and queues it for the file."""
        self._count(event)
        if self._thread is None:
            return
        if self._queue.qsize() < _MOST:
            self._queue.put({"t": time.time(), "event": event} | what)
        else:
            self._count("event_lost")

    def _count(self, event: str) -> None:
        with self._counting:
            self.counts[event] += 1

    def close(self) -> None:
        """Writes what is left."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _write(self, log: JsonLog, path: Path) -> None:
        while (event := self._queue.get()) is not None:
            try:
                log.append(event)
                self.trouble = None
            except OSError as error:
                self._count("event_lost")
                self.trouble = f"events are not written to {path} ({error})"
        log.close()


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, default=str)
