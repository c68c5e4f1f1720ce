"""deploy/robot/events.py: a log that a disk cannot stop."""

import json
import os
import threading
from pathlib import Path

import pytest
from deploy_cases import LONG_S

from vlamem.deploy.robot import events
from vlamem.deploy.robot.events import EventLog


def test_events_are_counted_and_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "new" / "events.jsonl")
    log.note("clip", kind="speed")
    log.note("clip", kind=Path("box"))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "new" / "events.jsonl").read_text().splitlines()]
    assert [(e["event"], e["kind"]) for e in lines] == [("clip", "speed"), ("clip", "box")]
    assert log.counts == {"clip": 2}


def test_a_disk_that_is_full_for_a_while_costs_the_events_of_that_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, troubles, steps = os.write, [], ["whole", "part", "none", "none", "whole"]

    def sometimes(file: int, data: bytes) -> int:
        troubles.append(log.trouble)
        step = steps.pop(0)
        if step == "none":
            raise OSError("no space left")
        return write(file, data[:5] if step == "part" else data)

    monkeypatch.setattr(os, "write", sometimes)
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(4):
        log.note("clip", number=number)
    log.close()
    assert [trouble is not None for trouble in troubles] == [False, False, False, True, True]
    assert "no space left" in troubles[-1]
    assert log.trouble is None
    assert log.counts == {"clip": 4, "event_lost": 2}
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 3]


def test_events_that_a_slow_disk_keeps_waiting_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, free = threading.Event(), threading.Event()

    def slow(file: int, data: bytes) -> int:
        writing.set()
        assert free.wait(LONG_S)
        return len(data)

    monkeypatch.setattr(events, "_MOST", 3)
    monkeypatch.setattr(os, "write", slow)
    log = EventLog(tmp_path / "events.jsonl")
    log.note("first")
    assert writing.wait(LONG_S)
    for _ in range(5):
        log.note("clip")
    assert log.counts == {"first": 1, "clip": 5, "event_lost": 2}
    free.set()
    log.close()


def test_a_log_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        EventLog(tmp_path)
