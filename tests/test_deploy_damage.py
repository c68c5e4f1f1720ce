"""Files of a deployment that a medium has changed: each changed bit is found or changes nothing, and ends no server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, episode_in, filled, label

from vlamem.core.checksums import sealed, unsealed
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.outbox import LinkError, Outbox
from vlamem.deploy.server.labels import Label, LabelError, LabelQueue
from vlamem.deploy.server.session_record import StateError, read_record
from vlamem.deploy.server.traces import TraceStore, _entry
from vlamem.sim.bench.faults.samples import export_sample

FLIPS = 400


def record_in(folder: Path) -> tuple[Path, Callable[[], Any]]:
    filled(folder).close()
    return folder / "arm" / "session.json", lambda: read_record(folder / "arm")


def link_in(folder: Path) -> tuple[Path, Callable[[], Any]]:
    box = Outbox("arm", folder, 9, 3, EventLog(), lambda: 0.0)
    box.joined({"session": "arm", "token": "secret", "episode": 1}, first=True)
    box.label(1, "success", "operator")

    def read() -> Any:
        saved = dict(Outbox("arm", folder, 9, 3, EventLog(), lambda: 0.0)._saved)
        return saved

    return folder / "link.json", read


def trace_in(folder: Path) -> tuple[Path, Callable[[], Any]]:
    traces = episode_in(folder)
    return traces.path("arm", 1), lambda: str(list(TraceStore(folder).read("arm", 1)))


@pytest.mark.parametrize("made", [record_in, link_in, trace_in, export_sample])
def test_every_bit_that_is_changed_is_found_or_changes_nothing(
    tmp_path: Path, made: Callable[[Path], tuple[Path, Callable[[], Any]]]
) -> None:
    path, read = made(tmp_path)
    whole, expected, rng = path.read_bytes(), read(), np.random.default_rng(0)
    found = 0
    for at in rng.integers(0, 8 * len(whole), FLIPS).tolist():
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            assert read() == expected, f"bit {at} of {path.name} is read as something else"
        except (StateError, LinkError, LabelError):
            found += 1
    assert found > 0.9 * FLIPS


def test_a_damaged_line_of_labels_is_set_aside_and_counted_and_the_others_are_carried_out(tmp_path: Path) -> None:
    def fails(given: Label) -> str:
        raise OSError("not yet")

    queue = LabelQueue(tmp_path / "l.jsonl", fails)
    for name in "abc":
        queue.add(label(name))
    queue.close()
    lines = (tmp_path / "l.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"success", b"failure")
    (tmp_path / "l.jsonl").write_bytes(b"".join([b"\xff\x00\n", b"[" * 5000 + b"\n", *lines]))
    done: list[str] = []
    reports: list[str] = []
    for _ in range(2):  # and the file is read the same the next time
        queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.label) or "done", reports.append)
        assert queue.drain(LONG_S)
        queue.close()
        assert queue.damaged == 3
    assert done == ["c"]
    assert reports[0].startswith(f"3 lines of {tmp_path / 'l.jsonl'} are damaged, and the labels in them lost")
    aside = (tmp_path / "l.jsonl.damaged").read_bytes()
    assert (aside.count(b"\n"), lines[1] in aside) == (3, True)


def test_a_trace_that_version_0_1_began_goes_on_as_it_was(tmp_path: Path) -> None:
    traces = episode_in(tmp_path)
    entries = list(traces.read("arm", 1))
    old = [{"identity": entries[0]["identity"]}, *entries[1:]]
    traces.path("arm", 1).write_bytes(b"".join(_entry(entry, checked=False) for entry in old))
    again = TraceStore(tmp_path)
    again.record_action("arm", 1, 9, np.zeros(7, np.float32))
    assert len(list(TraceStore(tmp_path).read("arm", 1))) == len(entries) + 1


def test_a_record_of_version_0_1_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    path, read = record_in(tmp_path)
    before = read()
    body = unsealed(json.loads(path.read_text()))
    path.write_text(json.dumps({k: v for k, v in body.items() if k not in ("epoch", "writer")}))
    assert read() == before
    assert sealed(unsealed(body)) == sealed(body)
